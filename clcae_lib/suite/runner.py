"""Runs the suite: the notebooks in order, each only if something it depends on changed, then the report.

`results/<profile>/` receives a folder a notebook (executed copy, HTML, figures, `metrics.json`),
`metrics.csv`, `index.html`, `status.json` and `run.log`. A notebook that fails stops those that need it, and
no others.
"""

import json
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.provenance import device_text
from clcae_lib.suite import _digest
from clcae_lib.suite._collect import complete_record, provenance_rows, table
from clcae_lib.suite._console import Display, log_to
from clcae_lib.suite._errors import NotebookError, SuiteError
from clcae_lib.suite._lock import alone
from clcae_lib.suite._perform import perform, restore
from clcae_lib.suite._plan import Job, Profile, plan, read_suite
from clcae_lib.suite._report import write_report

logger = logging.getLogger("clcae_lib.suite")

State = Literal["done", "unchanged", "earlier", "failed", "stopped", "absent"]
_GOOD = ("done", "unchanged", "earlier")


@dataclass(frozen=True)
class Outcome:
    """How one notebook fared.

    `done`: run now; `unchanged`: nothing it depends on changed; `earlier`: not selected, results from before;
    `failed`; `stopped`: a notebook it needs failed; `absent`: not selected and never run.
    """

    notebook: str
    state: State
    seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """How a run fared: its folder and every notebook's outcome."""

    folder: Path
    outcomes: tuple[Outcome, ...]

    @property
    def report(self) -> Path:
        """The report's page."""
        return self.folder / "index.html"

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not any(outcome.state in ("failed", "stopped") for outcome in self.outcomes)


def run_suite(
    profile: str = "quick",
    *,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    force: bool = False,
    output: Path | None = None,
    notebooks: Path | None = None,
    timeout: float | None = None,
    start_timeout: float | None = None,
) -> Summary:
    """Runs a profile's notebooks and writes the report.

    Args:
        profile: the name of a file in `notebooks/profiles/`.
        only: notebooks by name or beginning of name; none means all.
        settings: `name=value`, over the profile's values.
        force: run what is unchanged too.
        output: folder for the results; `results/<profile>` by default.
        notebooks: folder of the suite; the repository's by default.
        timeout, start_timeout: seconds, over the profile's limits.

    Raises:
        SuiteError: something is wrong before the first notebook starts.
    """
    folder = notebooks or paths.notebooks_dir()
    chosen, jobs = plan(folder, profile, only=only, settings=settings)
    chosen = _limited(chosen, timeout, start_timeout)
    target = (output or paths.results_dir() / profile).expanduser().resolve()
    names = [entry.name for entry in read_suite(folder)]
    with alone(target):
        for name in names:
            restore(target / name)
        _check_earlier(jobs, target)
        _check_devices(jobs)
        with log_to(target / "run.log"), _terminable():
            outcomes = _run_jobs(chosen, jobs, names, target=target, force=force)
            _write_results(target, chosen, outcomes, folder)
    return Summary(target, tuple(outcomes))


def _limited(profile: Profile, timeout: float | None, start_timeout: float | None) -> Profile:
    values = vars(profile) | {"timeout": timeout or profile.timeout}
    return Profile(**values | {"start_timeout": start_timeout or profile.start_timeout})


def _check_earlier(jobs: Sequence[Job], target: Path) -> None:
    """What a selected notebook needs is selected too, or was run before."""
    selected = {job.name for job in jobs}
    for job in jobs:
        for need in job.entry.needs:
            if need not in selected and complete_record(target / need) is None:
                raise SuiteError(f"{job.name} needs {need}, of which {target} has no results; run it too")


def _check_devices(jobs: Sequence[Job]) -> None:
    """The devices that notebooks are to use exist."""
    for job in jobs:
        try:
            device_text(str(job.parameters["device"]))
        except ValueError as error:
            raise SuiteError(f"{job.name}: {error}") from error


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside, a request to terminate ends the run as Ctrl-C does, so that kernels end with it."""

    def interrupt(*_signal: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread, where signals are not this code's business
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_jobs(
    profile: Profile, jobs: Sequence[Job], names: Sequence[str], *, target: Path, force: bool
) -> list[Outcome]:
    """Runs the jobs in order and tells how every notebook of the suite fared."""
    by_name = {job.name: job for job in jobs}
    outcomes: dict[str, Outcome] = {}
    code = _digest.code_digest(without=("suite", "cli"))
    with Display(profile.name, len(jobs)) as display:
        for device in sorted({device_text(str(job.parameters["device"])) for job in jobs}):
            logger.info("device %s", device)
            display.console.print(f"device {device}", markup=False, soft_wrap=True)
        for name in names:
            if name not in by_name:
                outcomes[name] = _unselected(name, target)
                continue
            display.begin(name)
            outcomes[name] = _run_one(by_name[name], outcomes, profile, target, code, force, display)
            line = describe(outcomes[name])
            logger.log(logging.INFO if outcomes[name].state in _GOOD else logging.ERROR, line)
            display.end(line)
    return list(outcomes.values())


def _unselected(name: str, target: Path) -> Outcome:
    record = complete_record(target / name)
    return Outcome(name, "earlier", record.seconds) if record else Outcome(name, "absent")


def _run_one(
    job: Job,
    outcomes: dict[str, Outcome],
    profile: Profile,
    target: Path,
    code: str,
    force: bool,
    display: Display,
) -> Outcome:
    """Runs one notebook unless one it needs failed or nothing changed."""
    broken = [need for need in job.entry.needs if outcomes[need].state not in _GOOD]
    if broken:
        return Outcome(job.name, "stopped", reason=f"needs {', '.join(broken)}")
    upstream = {need: _digest.result_digest(target / need) for need in job.entry.needs}
    key = _digest.job_key(
        job.entry,
        job.parameters,
        upstream=upstream,
        code=code,
        results=paths.results_dir(),
        device=device_text(str(job.parameters["device"])).split(":")[0],
    )
    record = complete_record(target / job.name)
    if record is not None and record.key == key and not force:
        return Outcome(job.name, "unchanged", record.seconds)
    logger.info("%s starts with %s", job.name, json.dumps(dict(job.parameters), default=str))
    clock = time.monotonic()
    try:
        record = perform(
            job,
            target / job.name,
            key=key,
            profile=profile,
            failed=target / "failed" / job.name,
            watch=display.watch,
        )
    except NotebookError as error:
        return Outcome(job.name, "failed", round(time.monotonic() - clock, 1), error.reason)
    return Outcome(job.name, "done", record.seconds)


def describe(outcome: Outcome) -> str:
    """An outcome as one line."""
    time_text = f"  {outcome.seconds:.0f} s" if outcome.state in ("done", "failed") else ""
    return f"{outcome.notebook:<30} {outcome.state}{time_text}" + (
        f"  {outcome.reason}" if outcome.reason else ""
    )


def _write_results(target: Path, profile: Profile, outcomes: Sequence[Outcome], notebooks: Path) -> None:
    """Writes `metrics.csv`, `status.json` and the report from the folders of the notebooks that are good."""
    rows = []
    for outcome in outcomes:
        record = complete_record(target / outcome.notebook) if outcome.state in _GOOD else None
        rows += provenance_rows(target / outcome.notebook, record) if record else []
    metrics = table(rows)
    status = {
        "profile": profile.name,
        "about": profile.about,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "notebooks": [asdict(outcome) for outcome in outcomes],
    }
    with atomic_path(target / "metrics.csv") as partial:
        metrics.to_csv(partial, index=False)
    with atomic_path(target / "status.json") as partial:
        partial.write_text(json.dumps(status, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_report(target, status=status, metrics=metrics, notebooks=notebooks)
