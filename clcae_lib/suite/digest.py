"""The key of a run, which depends on everything its results depend on; equal keys: the run is skipped.

The key covers the notebook's cells, its parameters, the library's code, the versions of packages, the world's
weights and photographs, the published networks, the files in folders that parameters name, and the
results of the notebooks it needs. Comments, docstrings and layout of the code do not count, nor do a
notebook's outputs. For a run of the suite, the kind of device counts too, so that a GPU added later is used.
For a run of a sweep it does not: a sweep of several days can be resumed from a machine without a GPU.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import nbformat

from clcae_lib import paths
from clcae_lib.cache import key, source_digest
from clcae_lib.files import sha256
from clcae_lib.provenance import versions
from clcae_lib.suite.plan import Job

LIBRARY = Path(__file__).resolve().parent.parent
_LARGE = 256 * 2**20


def job_key(
    job: Job,
    *,
    code: str,
    upstream: Mapping[str, str] | None = None,
    world: str | None = None,
    device: str = "",
) -> str:
    """Return the key of one run, in hexadecimal.

    `code`, `upstream` (of the notebooks that it needs) and `world` (computed if None) are digests of this
    module; `device` is the kind of device if results depend on it, else empty.
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
        {
            name: files_digest(paths.root() / Path(str(f)).expanduser(), large=0)
            for name, f in folders.items()
        },
        device,
        files_digest(paths.results_dir(), reads),
    )


def code_digest(*, without: Iterable[str] = ()) -> str:
    """Return a digest of the library's code, without comments and some of its packages and modules."""
    files = {path.relative_to(LIBRARY): path for path in sorted(LIBRARY.rglob("*.py"))}
    kept = {name: path for name, path in files.items() if name.parts[0] not in tuple(without)}
    return key({name.as_posix(): source_digest(path) for name, path in kept.items()})


def world_digest(name: str, inputs: Iterable[str]) -> str:
    """Return a digest of the published networks and of a world's weights that match the patterns `inputs`.

    For a world of photographs, all weights and the photographs count.
    """
    from clcae_lib.worlds import PhotoWorld, get_world, world_names

    world = get_world(name) if name in world_names() else None
    photographs = ""
    if isinstance(world, PhotoWorld):
        inputs, photographs = ["*"], files_digest(world.images_folder, large=0)
    weights = files_digest(paths.world_dir(name), inputs)
    return key(weights, photographs, files_digest(paths.world_dir("networks"), ["*"]))


def files_digest(folder: Path, patterns: Iterable[str] = ("**/*",), *, large: int = _LARGE) -> str:
    """Return a digest of the files under a folder that match any pattern; a missing folder counts as empty.

    For files of more than `large` bytes, size and modification time replace the content.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    status = {path: path.stat() for path in found if not path.name.startswith(".")}
    return key(
        {
            path.relative_to(folder).as_posix(): _digest(path, s.st_size, s.st_mtime_ns, s.st_size > large)
            for path, s in status.items()
        }
    )


@cache
def _digest(path: Path, size: int, changed: int, large: bool) -> str:
    return key(size, changed) if large else sha256(path)


def result_digest(folder: Path) -> str:
    """Return a digest of the results that other notebooks read: metrics and tables."""
    return files_digest(folder, ["metrics.json", "*.csv", "*.safetensors"])
