"""One job from start to end: run the notebook aside, then put its results in place of the earlier ones.

A notebook writes into a hidden folder beside its destination. Only when everything went well does that folder
take the destination's name, so a run that fails or is interrupted leaves earlier results as they were. What a
failed run left is kept elsewhere, with its traceback.
"""

import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from clcae_lib import paths
from clcae_lib.provenance import commit, device_text, versions
from clcae_lib.suite._collect import check_results
from clcae_lib.suite._errors import NotebookError
from clcae_lib.suite._kernel import Watch, execute
from clcae_lib.suite._plan import Job, Profile
from clcae_lib.suite._record import Record, write_record

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
    """Runs a job and puts its results at `target`.

    Args:
        job: the notebook and its parameters.
        target: the folder for the results; replaced as a whole on success, untouched otherwise.
        key: the job's key, kept in the record.
        profile: gives the time limits.
        failed: the folder for the executed copy and the traceback of a failure.
        environment: variables for the kernel.
        watch: called with cells done and cells in all.

    Raises:
        NotebookError: the notebook failed, or its results could not be read or kept; every other exception
            becomes one, so that the notebooks after this one still run.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_up(target)
    # A name of its own: the kernel of a run that was killed may still be writing into the one before.
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=_RUNNING, dir=target.parent))
    staging.chmod(0o755)
    try:
        record = _run(job, staging, key=key, profile=profile, environment=environment, watch=watch)
        _finish(job, staging, target)
        (staging / "kernel.log").unlink(missing_ok=True)
        write_record(staging, record)
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


def _run(
    job: Job,
    staging: Path,
    *,
    key: str,
    profile: Profile,
    environment: Mapping[str, str] | None,
    watch: Watch,
) -> Record:
    """Executes the notebook and checks that it left results."""
    started, clock = datetime.now(UTC), time.monotonic()
    execute(
        job.entry.path,
        staging / f"{job.name}.ipynb",
        {**job.parameters, "output_dir": shown_path(staging)},
        folder=paths.root(),
        timeout=profile.timeout,
        start_timeout=profile.start_timeout,
        environment=environment,
        watch=watch,
    )
    check_results(staging)
    return Record(
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


def shown_path(path: Path) -> str:
    """A path as it may stand in results: relative to the repository where it lies inside it."""
    root = paths.root()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _finish(job: Job, staging: Path, target: Path) -> None:
    """Gives the executed copy its final folder's name and makes its HTML."""
    executed = staging / f"{job.name}.ipynb"
    if not executed.is_file():
        return
    text = executed.read_text(encoding="utf-8")
    executed.write_text(text.replace(shown_path(staging), shown_path(target)), encoding="utf-8")
    html, _ = HTMLExporter(require_js_url="").from_notebook_node(nbformat.read(executed, as_version=4))
    (staging / f"{job.name}.html").write_text(html, encoding="utf-8")


def _set_aside(job: Job, staging: Path, target: Path, failed: Path, error: NotebookError) -> None:
    """Keeps what a failed run left, with its traceback; what cannot be kept hides no failure."""
    try:
        _finish(job, staging, target)
    except Exception:
        error.details += f"\n\nThe HTML copy could not be made:\n{traceback.format_exc()}"
    with suppress(OSError):
        (staging / "traceback.txt").write_text(error.details + "\n", encoding="utf-8")
        _replace(failed, staging)


def _replace(target: Path, staging: Path) -> None:
    """Puts one folder in another's place; the old one goes only when the new one is there."""
    old = target.parent / f".{target.name}.old"
    _remove(old)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.replace(target, old)
    os.replace(staging, target)
    _remove(old)


def restore(target: Path) -> None:
    """Undoes what a kill between the two renames of `_replace` left."""
    old = target.parent / f".{target.name}.old"
    if old.exists() and not target.exists():
        os.replace(old, target)


def sweep_up(target: Path) -> None:
    """Removes what runs that were killed left beside `target`; nobody else may be running there."""
    for stale in running(target):
        shutil.rmtree(stale, ignore_errors=True)


def running(target: Path) -> list[Path]:
    """The folders that unfinished runs of `target` write to."""
    return sorted(target.parent.glob(f".{target.name}.*{_RUNNING}"))


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
