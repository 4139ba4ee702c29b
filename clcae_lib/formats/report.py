"""`clcae inspect`: what a file is, how big, and what takes it."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clcae_lib.files import sha256
from clcae_lib.formats._errors import reading
from clcae_lib.formats.contents import read_contents
from clcae_lib.formats.recognise import recognise


@dataclass(frozen=True)
class Report:
    """What is known of a weights file.

    Attributes:
        file: its path.
        kind: its kind, a name for programs.
        what: the same for people.
        container: how it is written.
        tensors, parameters: how many tensors, and numbers in them, it holds; everything in it counts.
        bytes: its size on disk.
        sha256: its digest.
        resolution: side of the pictures in pixels, if it has one.
        style_dim: length of a code, if it has one.
        fits: what takes it.
        details: settings and sizes as far as its kind has them.
    """

    file: str
    kind: str
    what: str
    container: str
    tensors: int
    parameters: int
    bytes: int
    sha256: str
    resolution: int | None
    style_dim: int | None
    fits: str
    details: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same in JSON values."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """The same as names and texts, for people; what it has not is left out."""
        rows = asdict(self) | {
            "parameters": f"{self.parameters:,}",
            "bytes": f"{self.bytes:,}",
            "style_dim": self.style_dim,
        }
        details = rows.pop("details")
        rows |= {name: value for name, value in details.items() if not isinstance(value, dict)}
        for config in (value for value in details.values() if isinstance(value, dict)):
            rows |= {name: value for name, value in config.items() if name not in rows}
        return [(name.replace("_", " "), str(value)) for name, value in rows.items() if value is not None]


def inspect_file(path: Path | str) -> Report:
    """What a weights file is; nothing in it is run, and its numbers are not read.

    Raises:
        FileNotFoundError, FormatError: there is no such file, or it is unsafe, damaged or no weights file.
    """
    contents = read_contents(path)
    with reading(path):
        found = recognise(contents)
    facts = dict(found.facts)
    return Report(
        file=str(path),
        kind=found.kind.key,
        what=found.kind.title,
        container=contents.container,
        tensors=len(contents.tensors),
        parameters=sum(math.prod(tensor.shape) for tensor in contents.tensors.values()),
        bytes=contents.path.stat().st_size,
        sha256=sha256(path),
        resolution=facts.pop("resolution", None),
        style_dim=facts.pop("style_dim", None),
        fits=found.kind.fits,
        details=facts,
    )
