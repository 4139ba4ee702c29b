"""A download that is not complete: `NAME.part`, and beside it what it is a part of (not in the paper)."""

import json
import os
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ValidationError

from clcae_lib.files import atomic_path


class Origin(BaseModel):
    """Where the bytes of a part came from; `validator` is the server's mark of that version of the file."""

    address: str
    validator: str | None = None
    total: int | None = None


class Part:
    """The bytes of `target` that are here so far.

    Args:
        target: where the complete file will be.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")

    def size(self) -> int:
        """Bytes here so far."""
        return self.path.stat().st_size if self._is_file() else 0

    def origin(self) -> Origin | None:
        """What the bytes here are a part of; None if that cannot be told."""
        if not self._is_file():
            return None
        try:
            return Origin.model_validate_json(self._note.read_text(encoding="utf-8"))
        except (OSError, ValidationError, ValueError):
            return None

    def begin(self, origin: Origin) -> None:
        """Starts at no bytes, for a download from `origin`."""
        self.discard()
        with atomic_path(self._note) as partial:
            partial.write_text(json.dumps(origin.model_dump()), encoding="utf-8")

    def append(self) -> BinaryIO:
        """The file, open at its end; a link of that name is not followed."""
        flags = (
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        )
        return os.fdopen(os.open(self.path, flags, 0o666), "ab")

    def discard(self) -> None:
        """Nothing is left."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def place(self, target: Path) -> None:
        """The bytes become `target`, at once."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(self.path, target)
        self._note.unlink(missing_ok=True)

    def _is_file(self) -> bool:
        return self.path.is_file() and not self.path.is_symlink()
