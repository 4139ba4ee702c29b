"""Run one job: execute the notebook in a hidden folder, then replace the earlier results.

The hidden folder is next to the destination. It is renamed to the destination only after a complete success,
so a run that fails or is interrupted does not change earlier results. The files of a failed run are moved to
another folder, with its traceback. Locks prevent two runs from writing to one folder.
"""

import os
import re
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import nbformat
from filelock import FileLock, Timeout

from clcae_lib import paths
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

    On success the folder is replaced as a whole. Otherwise it is unchanged, and the executed copy and the
    traceback go to the folder `failed`. `environment` has variables for the kernel; `watch` is called with
    the number of finished cells and of all cells.

    Raises:
        NotebookError: the notebook failed, or its results could not be read or stored. All other exceptions
            are converted to it, so that the notebooks after this one still run.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in running(target):  # left by runs that were killed
        _remove(stale)
    # A new name, because the kernel of a killed run may still be writing to the previous folder.
    staging = target.with_name(f".{target.name}.{uuid4().hex[:8]}{_RUNNING}")
    staging.mkdir()
    began = time.monotonic()
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
        facts = {"notebook": job.name, "profile": profile.name, "key": key}
        parameters, device = dict(job.parameters), str(job.parameters["device"])
        record = Record.of_run(began, device=device, parameters=parameters, **facts)
        _finish(job, staging, target)
        (staging / "kernel.log").unlink(missing_ok=True)
        record.write(staging)
        _replace(target, staging)
        _remove(failed)
        return record
    except NotebookError as error:
        _keep_failed(job, staging, target, failed, error)
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        failure = NotebookError(reason, details=traceback.format_exc())
        _keep_failed(job, staging, target, failed, failure)
        raise failure from error
    finally:
        _remove(staging)


def _shown(path: Path) -> str:
    """Return a path for results: relative to the repository if it is inside it."""
    root = paths.root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _finish(job: Job, staging: Path, target: Path) -> None:
    """Write final paths into the executed copy, and write its HTML, with links to the others' HTML."""
    executed, folder = staging / job.path.name, job.path.parent
    if executed.is_file():
        text = executed.read_text(encoding="utf-8")
        for written in (str(staging), _shown(staging)):  # absolute first: it contains the other
            text = text.replace(written, _shown(target))
        docs, figures = (
            Path(os.path.relpath(place, target)).as_posix()
            for place in (folder.parent / "docs", folder / "figures")
        )
        text = text.replace("](../docs/", f"]({docs}/")
        html = to_html(nbformat.reads(text, as_version=4), str(folder))
        html = re.sub(r'href="(\d\d\w+)\.ipynb"', r'href="../\1/\1.html"', html)
        executed.with_suffix(".html").write_text(html, encoding="utf-8")
        executed.write_text(text.replace("](figures/", f"]({figures}/"), encoding="utf-8")


def _keep_failed(job: Job, staging: Path, target: Path, failed: Path, error: NotebookError) -> None:
    """Move the files and the traceback of a failed run to `failed`; add errors of this to the details."""
    try:
        _finish(job, staging, target)
    except Exception:
        error.details += f"\n\nThe HTML copy could not be made:\n{traceback.format_exc()}"
    with suppress(OSError):
        (staging / "traceback.txt").write_text(error.details + "\n", encoding="utf-8")
        _replace(failed, staging)


def _replace(target: Path, staging: Path) -> None:
    """Replace the folder `target` by `staging`; the old one is deleted only after the new one is in place."""
    old = _old(target)
    _remove(old)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.replace(target, old)
    os.replace(staging, target)
    _remove(old)


def restore(target: Path) -> None:
    """Restore the folder if a process was killed between the two renames of `_replace`."""
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
    """Lock `target` against other runs inside the block; the lock also ends with the process.

    If another run holds the lock, a SuiteError is raised.
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
    """Return the lock of the run at `target`; other processes wait for it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(target.with_name(f".{target.name}.lock"))
