"""Write files completely or not at all (no section of the paper).

A file is written under a temporary name in the folder of its destination and renamed at the end. A rename
within one folder is atomic, so an interrupted program leaves either the old file or the new one.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"
"""First part of the names of files that are being written."""


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` if the block succeeds.

    The temporary name ends like `path`, because some writers choose the format by it. Missing folders are
    created. If the block raises or writes nothing, `path` is unchanged and the temporary file is removed.

    Raises:
        FileNotFoundError: the block ended without writing the temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=PARTIAL, suffix=path.name, dir=path.parent)
    os.close(handle)
    os.unlink(name)
    partial = Path(name)
    try:
        yield partial
        if not partial.exists():
            raise FileNotFoundError(f"nothing was written for {path}: write to the yielded path")
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> Path:
    """Write a text in UTF-8 with its own ends of lines, completely or not at all, and return its path."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")
    return Path(path)


def _flush(path: Path) -> None:
    """Make sure that the content reaches the disk before the name does."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256(path: Path | str) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
