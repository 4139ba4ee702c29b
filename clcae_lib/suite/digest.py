"""When a run may be skipped: a key over everything its results depend on.

The key covers the notebook's cells, its parameters, the library's code, the versions of what computes, the
world's weights and photographs, the published networks, the files in folders that parameters name, and the
results of the notebooks it needs. Comments, docstrings and layout of the code do not count, nor do a
notebook's outputs. A run of the suite depends on the kind of device as well, so that a GPU added later is
used. A run of a sweep does not: a sweep that takes days can be resumed from a machine without a GPU.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import nbformat

from clcae_lib import paths
from clcae_lib.cache import key, source_digest
from clcae_lib.files import sha256
from clcae_lib.provenance import versions
from clcae_lib.suite.plan import Job

LIBRARY = Path(__file__).resolve().parent.parent
_LARGE = 256 * 2**20  # bytes; beyond it size and time of change stand for the content


def job_key(
    job: Job,
    *,
    code: str,
    upstream: Mapping[str, str] | None = None,
    world: str | None = None,
    device: str = "",
) -> str:
    """Return the key of one run, in hexadecimal.

    Args:
        job: the notebook and its parameters.
        code: what `code_digest` returns for the library.
        upstream: for each notebook it needs, what `result_digest` returns for its results.
        world: what `world_digest` returns; computed if None.
        device: the kind of device, where results depend on it.
    """
    entry, parameters = job.entry, dict(job.parameters)
    folders = {name: parameters[name] for name in entry.folders if parameters.get(name)}
    cells = nbformat.read(job.path, as_version=4).cells
    reads = [pattern for read in entry.reads for pattern in (read, f"{read}/**/*")]
    return key(
        [(cell.cell_type, cell.source) for cell in cells],
        parameters,
        dict(upstream or {}),
        code,
        versions(),
        world_digest(str(parameters["world"]), entry.inputs) if world is None else world,
        {name: listing_digest(paths.root() / Path(str(f)).expanduser()) for name, f in folders.items()},
        device,
        files_digest(paths.results_dir(), reads),
    )


def code_digest(*, without: Iterable[str] = ()) -> str:
    """Return a digest of the library's code as the interpreter sees it.

    Args:
        without: packages that do not matter, such as "suite".
    """
    files = {path.relative_to(LIBRARY): path for path in sorted(LIBRARY.rglob("*.py"))}
    kept = {name: path for name, path in files.items() if name.parts[0] not in tuple(without)}
    return key({name.as_posix(): source_digest(path) for name, path in kept.items()})


def world_digest(name: str, inputs: Iterable[str]) -> str:
    """Return a digest of a world's files and of the published networks.

    Args:
        name: the name of the world.
        inputs: patterns of the weights that count; of a world of photographs, everything counts.
    """
    from clcae_lib.worlds import PhotoWorld, get_world, world_names

    world = get_world(name) if name in world_names() else None
    photographs = ""
    if isinstance(world, PhotoWorld):
        inputs, photographs = ["*"], listing_digest(world.images_folder)
    weights = files_digest(paths.world_dir(name), inputs)
    return key(weights, photographs, files_digest(paths.world_dir("networks"), ["*"]))


def listing_digest(folder: Path) -> str:
    """Return a digest of the files below a folder by name, size and time of change, as there may be many."""
    found = {}
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            with suppress(OSError):  # a link that leads nowhere
                status = path.stat()
                found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return key(found)


def files_digest(folder: Path, patterns: Iterable[str]) -> str:
    """Return a digest of the files under a folder that fit any of the patterns; a missing folder has none."""
    found = {path for pattern in patterns for path in folder.glob(pattern)} if folder.is_dir() else set()
    files = [path for path in found if path.is_file() and not path.name.startswith(".")]
    status = {path: path.stat() for path in files}
    return key(
        {
            path.relative_to(folder).as_posix(): _file_digest(path, found.st_size, found.st_mtime_ns)
            for path, found in status.items()
        }
    )


@cache
def _file_digest(path: Path, size: int, changed: int) -> str:
    return key(size, changed) if size > _LARGE else sha256(path)


def result_digest(folder: Path) -> str:
    """Return a digest of what a notebook left for others: its metrics and tables."""
    return files_digest(folder, ["metrics.json", "*.csv", "*.safetensors"])
