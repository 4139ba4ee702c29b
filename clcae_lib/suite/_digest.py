"""When a run may be skipped: a key over everything its results depend on.

The key covers the notebook's cells, its parameters, the library's code, the versions of what computes, the
world's weights and photographs, the published networks, the files in folders that parameters name, and the
results of the notebooks it needs. Comments, docstrings and layout of the code do not count, nor do a
notebook's outputs. A run of the suite depends on the kind of device as well, so that a GPU added later is
used. A run of a sweep does not: a sweep that takes days can be resumed from a machine without a GPU.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
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
    entry: Entry,
    parameters: Mapping[str, Any],
    *,
    upstream: Mapping[str, str],
    code: str,
    results: Path,
    world: str | None = None,
    device: str = "",
) -> str:
    """The key of one run, in hexadecimal.

    Args:
        entry: the notebook.
        parameters: its parameters, `output_dir` excepted.
        upstream: for each notebook it needs, what `result_digest` says of its results.
        code: what `code_digest` says of the library.
        results: the folder that the notebook's `reads` are relative to.
        world: what `world_digest` says; asked if None.
        device: the kind of device, where results depend on it.
    """
    folders = {name: parameters[name] for name in entry.folders if parameters.get(name)}
    parts = {
        "cells": _cells(entry.path),
        "parameters": parameters,
        "upstream": upstream,
        "code": code,
        "versions": versions(),
        "world": world_digest(str(parameters["world"]), entry.inputs) if world is None else world,
        "folders": {name: listing_digest(paths.root() / Path(f).expanduser()) for name, f in folders.items()},
        "device": device,
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


def world_digest(name: str, inputs: Iterable[str]) -> str:
    """A digest of a world's files and of the published networks.

    Args:
        name: of the world.
        inputs: patterns of the weights that count; of a world of photographs, everything counts.
    """
    from clcae_lib.worlds import PhotoWorld, get_world, world_names

    world = get_world(name) if name in world_names() else None
    photographs = ""
    if isinstance(world, PhotoWorld):
        inputs, photographs = ["*"], listing_digest(world.images_folder)
    weights = files_digest(paths.world_dir(name), inputs)
    return _hash(f"{weights} {photographs} {files_digest(paths.world_dir('networks'), ['*'])}".encode())


def listing_digest(folder: Path) -> str:
    """A digest of the files below a folder by name, size and time of change, as there may be many."""
    lines = []
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            with suppress(OSError):  # a link that leads nowhere
                status = path.stat()
                lines.append(f"{path.relative_to(folder).as_posix()}:{status.st_size}:{status.st_mtime_ns}\n")
    return _hash("".join(sorted(lines)).encode())


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
