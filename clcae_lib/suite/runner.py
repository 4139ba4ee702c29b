"""Runs the suite: the notebooks in order, each only if something it depends on changed, then the report.

`results/<profile>/` receives a folder for each notebook (executed copy, HTML, figures, `metrics.json`),
`metrics.csv`, `index.html`, `status.json` and `run.log`. A notebook that fails stops those that need it, and
no others.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.provenance import device_text
from clcae_lib.suite import digest
from clcae_lib.suite.collect import provenance_rows, table
from clcae_lib.suite.console import Board, log_to
from clcae_lib.suite.perform import only_writer, perform, restore
from clcae_lib.suite.plan import Job, Profile, plan, read_suite
from clcae_lib.suite.record import NotebookError, SuiteError, complete_record
from clcae_lib.suite.report import GOOD, write_report

logger = logging.getLogger("clcae_lib.suite")


@dataclass(frozen=True)
class Outcome:
    """How one notebook fared.

    `done`: run now; `unchanged`: nothing it depends on changed; `earlier`: not selected, results from before;
    `failed`; `stopped`: a notebook it needs failed; `absent`: not selected and never run.
    """

    notebook: str
    state: Literal["done", "unchanged", "earlier", "failed", "stopped", "absent"]
    seconds: float = 0.0
    reason: str = ""

    @property
    def note(self) -> str:
        """The time and the reason, where there are some."""
        time_text = f"{self.seconds:.0f} s" if self.state in ("done", "failed") else ""
        return "  ".join(filter(None, [time_text, self.reason]))


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
    timeout: float | None = None,
    start_timeout: float | None = None,
) -> Summary:
    """Run a profile's notebooks and write the report.

    Args:
        profile: the name of a file in `notebooks/profiles/`.
        only: notebooks by name or beginning of name; none means all.
        settings: `name=value`, over the profile's values.
        force: run what is unchanged too.
        output: folder for the results; `results/<profile>` by default.
        timeout: seconds for one notebook, over the profile's limit.
        start_timeout: seconds for a kernel to start, over the profile's limit.

    Raises:
        SuiteError: something is wrong before the first notebook starts.
    """
    folder = paths.notebooks_dir()
    chosen, jobs = plan(folder, profile, only=only, settings=settings)
    limits = {"timeout": timeout, "start_timeout": start_timeout}
    chosen = chosen.model_copy(update={name: value for name, value in limits.items() if value})
    target = (output or paths.results_dir() / profile).expanduser().resolve()
    names = [entry.name for entry in read_suite(folder)]
    with only_writer(target):
        for name in names:
            restore(target / name)
        _check_earlier(jobs, target)
        devices = {job.name: _device(job) for job in jobs}
        with log_to(target / "run.log"):
            outcomes = _run_jobs(chosen, jobs, names, devices, target=target, force=force)
            _write_results(target, chosen, outcomes)
    return Summary(target, tuple(outcomes))


def _check_earlier(jobs: Sequence[Job], target: Path) -> None:
    """Check that what a selected notebook needs is selected too, or was run before."""
    selected = {job.name for job in jobs}
    for job in jobs:
        for need in job.entry.needs:
            if need not in selected and complete_record(target / need) is None:
                raise SuiteError(f"{job.name} needs {need}, of which {target} has no results; run it too")


def _device(job: Job) -> str:
    """Return the device that a notebook is to use."""
    try:
        return device_text(str(job.parameters["device"]))
    except ValueError as error:
        raise SuiteError(f"{job.name}: {error}") from error


def _run_jobs(
    profile: Profile,
    jobs: Sequence[Job],
    names: Sequence[str],
    devices: Mapping[str, str],
    *,
    target: Path,
    force: bool,
) -> list[Outcome]:
    """Run the jobs in order and return how every notebook of the suite fared."""
    by_name = {job.name: job for job in jobs}
    outcomes: dict[str, Outcome] = {}
    code = digest.code_digest(without=("suite", "cli"))
    with Board(profile.name, [job.name for job in jobs]) as board:
        for device in sorted(set(devices.values())):
            logger.info("device %s", device)
            board.print(f"device {device}")
        for name in names:
            if name not in by_name:
                record = complete_record(target / name)
                outcomes[name] = (
                    Outcome(name, "earlier", record.seconds) if record else Outcome(name, "absent")
                )
                continue
            job = by_name[name]
            board.watch(lambda current={name}: current)
            broken = [need for need in job.entry.needs if outcomes[need].state not in GOOD]
            if broken:
                outcomes[name] = Outcome(name, "stopped", reason=f"needs {', '.join(broken)}")
            else:
                upstream = {need: digest.result_digest(target / need) for need in job.entry.needs}
                kind = devices[name].split(":")[0]
                key = digest.job_key(job, code=code, upstream=upstream, device=kind)
                outcomes[name] = _run_one(job, key, profile, board, target=target, force=force)
            outcome = outcomes[name]
            level = logging.INFO if outcome.state in GOOD else logging.ERROR
            logger.log(level, "%s %s  %s", name, outcome.state, outcome.note)
            board.end(name, outcome.state, outcome.note)
    return list(outcomes.values())


def _run_one(job: Job, key: str, profile: Profile, board: Board, *, target: Path, force: bool) -> Outcome:
    """Run one notebook unless nothing changed."""
    record = complete_record(target / job.name)
    if record is not None and record.key == key and not force:
        return Outcome(job.name, "unchanged", record.seconds)
    logger.info("%s starts with %s", job.name, json.dumps(dict(job.parameters), default=str))
    clock, failed = time.monotonic(), target / "failed" / job.name

    def watch(done: int, total: int) -> None:
        board.note(job.name, f"{done} of {total} cells", quiet=True)

    try:
        record = perform(job, target / job.name, key=key, profile=profile, failed=failed, watch=watch)
    except NotebookError as error:
        return Outcome(job.name, "failed", round(time.monotonic() - clock, 1), error.reason)
    return Outcome(job.name, "done", record.seconds)


def _write_results(target: Path, profile: Profile, outcomes: Sequence[Outcome]) -> None:
    """Write `metrics.csv`, `status.json` and the report from the folders of the notebooks that are good."""
    rows = []
    for outcome in outcomes:
        record = complete_record(target / outcome.notebook) if outcome.state in GOOD else None
        rows += provenance_rows(target / outcome.notebook, record) if record else []
    status = {
        "profile": profile.name,
        "about": profile.about,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "notebooks": [asdict(outcome) for outcome in outcomes],
    }
    with atomic_path(target / "metrics.csv") as partial:
        table(rows).to_csv(partial, index=False)
    with atomic_path(target / "status.json") as partial:
        partial.write_text(json.dumps(status, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_report(target)
