"""One job from start to end: run the notebook aside, then put its results in place of the earlier ones.

A notebook writes into a hidden folder beside its destination. Only when everything went well does that folder
get the destination's name, so a run that fails or is interrupted leaves earlier results as they were. What a
failed run left is kept elsewhere, with its traceback. Locks keep the writers of a folder apart.
"""

import os
import re
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import nbformat
from filelock import FileLock, Timeout

from clcae_lib import paths
from clcae_lib.provenance import commit, device_text, versions
from clcae_lib.suite.execute import Watch, execute
from clcae_lib.suite.export import to_html
from clcae_lib.suite.plan import Job, Profile
from clcae_lib.suite.record import NotebookError, Record, SuiteError, check_results

_RUNNING = ".running"


def perform(
    job: Job,
    target: Path,
    *,
    key: str,
    profile: Profile,
    failed: Path,
    environment: Mapping[str, str] | None = None,
    watch: Watch = lambda done, total: None,
) -> Record:
    """Run a job, put its results at `target`, and return the record, with the job's key.

    The folder is replaced as a whole on success, and untouched otherwise: then the executed copy and the
    traceback go to the folder `failed`. `environment` has variables for the kernel; `watch` is called with
    cells
    done and cells in all.

    Raises:
        NotebookError: the notebook failed, or its results could not be read or kept; every other exception
            becomes one, so that the notebooks after this one still run.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in running(target):  # left by runs that were killed
        _remove(stale)
    # A name of its own: the kernel of a run that was killed may still be writing into the one before.
    staging = target.with_name(f".{target.name}.{uuid4().hex[:8]}{_RUNNING}")
    staging.mkdir()
    started, clock = datetime.now(UTC), time.monotonic()
    try:
        execute(
            job.path,
            staging / job.path.name,
            {**job.parameters, "output_dir": _shown(staging)},
            profile=profile,
            environment=environment,
            watch=watch,
        )
        check_results(staging)
        record = Record(
            notebook=job.name,
            profile=profile.name,
            key=key,
            parameters=dict(job.parameters),
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 1),
            device=device_text(str(job.parameters["device"])),
            commit=commit(),
            versions=versions(),
        )
        _finish(job, staging, target)
        (staging / "kernel.log").unlink(missing_ok=True)
        record.write(staging)
        _replace(target, staging)
        _remove(failed)
        return record
    except NotebookError as error:
        _set_aside(job, staging, target, failed, error)
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        failure = NotebookError(reason, details=traceback.format_exc())
        _set_aside(job, staging, target, failed, failure)
        raise failure from error
    finally:
        _remove(staging)


def _shown(path: Path) -> str:
    """Return a path as it may stand in results: relative to the repository if it is inside it."""
    root = paths.root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _finish(job: Job, staging: Path, target: Path) -> None:
    """Write final paths into the executed copy, and its HTML, whose links lead to the others' HTML."""
    executed, folder = staging / job.path.name, job.path.parent
    if executed.is_file():
        text = executed.read_text(encoding="utf-8").replace(_shown(staging), _shown(target))
        html = to_html(nbformat.reads(text, as_version=4), str(folder))
        html = re.sub(r'href="(\d\d\w+)\.ipynb"', r'href="../\1/\1.html"', html)
        executed.with_suffix(".html").write_text(html, encoding="utf-8")
        away = Path(os.path.relpath(folder / "figures", target)).as_posix()
        executed.write_text(text.replace("](figures/", f"]({away}/"), encoding="utf-8")


def _set_aside(job: Job, staging: Path, target: Path, failed: Path, error: NotebookError) -> None:
    """Keep what a failed run left, with its traceback; what cannot be kept hides no failure."""
    try:
        _finish(job, staging, target)
    except Exception:
        error.details += f"\n\nThe HTML copy could not be made:\n{traceback.format_exc()}"
    with suppress(OSError):
        (staging / "traceback.txt").write_text(error.details + "\n", encoding="utf-8")
        _replace(failed, staging)


def _replace(target: Path, staging: Path) -> None:
    """Put one folder in another's place; the old one goes only when the new one is there."""
    old = _old(target)
    _remove(old)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.replace(target, old)
    os.replace(staging, target)
    _remove(old)


def restore(target: Path) -> None:
    """Undo what a kill between the two renames of `_replace` left."""
    if _old(target).exists() and not target.exists():
        os.replace(_old(target), target)


def _old(target: Path) -> Path:
    return target.parent / f".{target.name}.old"


def running(target: Path) -> list[Path]:
    """Return the folders that unfinished runs of `target` write to."""
    return sorted(target.parent.glob(f".{target.name}.*{_RUNNING}"))


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Keep every other run from writing to `target`; the lock ends with the process, however that ends.

    A SuiteError says that another run is writing already.
    """
    try:
        held = lock(target).acquire(timeout=0)
    except Timeout as error:
        raise SuiteError(
            f"another run is writing to {target}; wait until it ends, or choose a folder with --output"
        ) from error
    with held:
        yield


def lock(target: Path) -> FileLock:
    """Return the lock of the one process at a time that makes the run at `target`; others wait."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(target.with_name(f".{target.name}.lock"))
