"""When a run may be skipped: a key over everything its results depend on.

The key covers the notebook's cells, its parameters, the library's code, the versions of what computes, the
world's weights and the results of the notebooks it needs. Comments, docstrings and layout of the code do not
count, nor do a notebook's outputs.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

from clcae_lib import paths
from clcae_lib.cache import source_digest
from clcae_lib.provenance import versions
from clcae_lib.suite._plan import Entry

_LIBRARY = Path(__file__).resolve().parent.parent
_LARGE = 256 * 2**20  # bytes; beyond it size and time of change stand for the content


def job_key(
    entry: Entry, parameters: Mapping[str, Any], *, upstream: Mapping[str, str], code: str, results: Path
) -> str:
    """The key of one run, in hexadecimal.

    Args:
        entry: the notebook.
        parameters: its parameters, `output_dir` excepted.
        upstream: for each notebook it needs, what `result_digest` says of its results.
        code: what `code_digest` says of the library.
        results: the folder that the notebook's `reads` are relative to.
    """
    world = paths.world_dir(str(parameters["world"]))
    parts = {
        "cells": _cells(entry.path),
        "parameters": parameters,
        "upstream": upstream,
        "code": code,
        "versions": versions(),
        "weights": files_digest(world, entry.inputs),
        "reads": files_digest(
            results, [pattern for read in entry.reads for pattern in (read, f"{read}/**/*")]
        ),
    }
    return _hash(json.dumps(parts, sort_keys=True, default=str).encode())


def code_digest(*, without: Iterable[str] = ()) -> str:
    """A digest of the library's code as the interpreter sees it.

    Args:
        without: parts that do not matter, such as "suite" or "cli.py".
    """
    without = tuple(without)
    files = [path.relative_to(_LIBRARY) for path in sorted(_LIBRARY.rglob("*.py"))]
    kept = [path for path in files if path.parts[0] not in without]
    return _hash("".join(f"{path.as_posix()}:{source_digest(_LIBRARY / path)}\n" for path in kept).encode())


def files_digest(folder: Path, patterns: Iterable[str]) -> str:
    """A digest of the files under a folder that fit any of the patterns; a missing folder has none."""
    found = {path for pattern in patterns for path in folder.glob(pattern)} if folder.is_dir() else set()
    files = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    return _hash(
        "".join(f"{path.relative_to(folder).as_posix()}:{file_digest(path)}\n" for path in files).encode()
    )


def file_digest(path: Path) -> str:
    """A digest of one file's content."""
    status = path.stat()
    return _content_digest(path, status.st_size, status.st_mtime_ns)


@cache
def _content_digest(path: Path, size: int, changed: int) -> str:
    if size > _LARGE:
        return _hash(f"{size} {changed}".encode())
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def result_digest(folder: Path) -> str:
    """A digest of what a notebook left for others: its metrics and tables."""
    return files_digest(folder, ["metrics.json", "*.csv", "*.safetensors"])


def _cells(path: Path) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in nbformat.read(path, as_version=4).cells]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
