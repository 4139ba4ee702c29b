"""What is known of a complete run, kept in `run.json` beside its results."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RECORD = "run.json"


@dataclass(frozen=True)
class Record:
    """What is known of a complete run; it is written last, so its presence says that the run is complete."""

    notebook: str
    profile: str
    key: str
    parameters: dict[str, Any]
    started: str
    seconds: float
    device: str
    commit: str
    versions: str


def read_record(folder: Path) -> Record | None:
    """The record of the complete run that a folder holds, or None."""
    try:
        return Record(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_record(folder: Path, record: Record) -> None:
    """Writes the record of a complete run into its folder."""
    text = json.dumps(asdict(record), indent=1, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")
