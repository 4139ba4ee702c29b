"""Digests of files whose publisher printed none, written down when they are first used.

The record cannot say that a file is the right one, only that it is still the same.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from clcae_lib.assets._errors import AssetError
from clcae_lib.files import atomic_path


class Recorded(BaseModel):
    """A file as it was when it was first used; `size` in bytes."""

    model_config = ConfigDict(extra="forbid")

    sha256: str
    size: int
    address: str
    first_used: str


_RECORDS = TypeAdapter(dict[str, Recorded])


class Digests:
    """The record, `digests.json` in the data folder.

    Args:
        folder: the data folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "digests.json"

    def get(self, name: str) -> Recorded | None:
        """What is recorded of an asset.

        Raises:
            AssetError: the record is damaged.
        """
        return self._read().get(name)

    def add(self, name: str, *, sha256: str, size: int, address: str) -> None:
        """Records an asset; one that is recorded stays as it is."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(".digests.lock")):
            records = self._read()
            today = datetime.now(UTC).date().isoformat()
            new = Recorded(sha256=sha256, size=size, address=address, first_used=today)
            records.setdefault(name, new)
            with atomic_path(self.path) as partial:
                content = {key: record.model_dump() for key, record in sorted(records.items())}
                partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _read(self) -> dict[str, Recorded]:
        try:
            return _RECORDS.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise AssetError(f"{self.path} is damaged: delete it to record digests anew") from error
