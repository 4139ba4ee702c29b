"""Run the suite: the notebooks in order, each only if something it depends on changed, then the report.

`results/<profile>/` receives a folder for each notebook (executed copy, HTML, figures, `metrics.json`),
`metrics.csv`, `index.html`, `status.json` and `run.log`. If a notebook fails, only those
that need it are not run.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clcae_lib import paths
from clcae_lib.errors import ClcaeError
from clcae_lib.provenance import device_text
from clcae_lib.suite import digest
from clcae_lib.suite.collect import provenance_rows
from clcae_lib.suite.console import Board, log_to
from clcae_lib.suite.perform import only_writer, perform, restore
from clcae_lib.suite.plan import Job, Profile, plan, read_suite
from clcae_lib.suite.record import NotebookError, SuiteError, complete_record
from clcae_lib.suite.report import Outcome, Status, write_report, write_run

logger = logging.getLogger("clcae_lib.suite")


@dataclass(frozen=True)
class Summary:
    """The outcome of a run: its folder and the outcome of every notebook."""

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
    """Run a profile's notebooks and write the report; the arguments are the options of `clcae run`.

    Raises:
        SuiteError: something is wrong before the first notebook starts.
    """
    folder = paths.notebooks_dir()
    limits = {"timeout": timeout, "start_timeout": start_timeout}
    chosen, jobs = plan(folder, profile, only=only, settings=settings, **limits)
    target = (output or paths.results_dir() / profile).expanduser().resolve()
    names = [entry.name for entry in read_suite(folder)]
    with only_writer(target):
        for name in names:
            restore(target / name)
        _check_earlier(jobs, target)
        devices = {job.name: device_text(str(job.parameters["device"])) for job in jobs}
        with log_to(target / "run.log"):
            outcomes = _run_jobs(chosen, jobs, names, devices, target=target, force=force)
            folders = [target / outcome.notebook for outcome in outcomes if outcome.good]
            rows = [
                row for f in folders if (found := complete_record(f)) for row in provenance_rows(f, found)
            ]
            write_run(target, Status(profile=chosen.name, about=chosen.about, notebooks=outcomes), rows)
            write_report(target)
    return Summary(target, tuple(outcomes))


def _check_earlier(jobs: Sequence[Job], target: Path) -> None:
    selected = {job.name for job in jobs}
    for job in jobs:
        for need in job.entry.needs:
            if need not in selected and complete_record(target / need) is None:
                raise SuiteError(f"{job.name} needs {need}, of which {target} has no results; run it too")


def _run_jobs(
    profile: Profile,
    jobs: Sequence[Job],
    names: Sequence[str],
    devices: Mapping[str, str],
    *,
    target: Path,
    force: bool,
) -> list[Outcome]:
    by_name = {job.name: job for job in jobs}
    outcomes: dict[str, Outcome] = {}
    name = ""
    code = digest.code_digest(without=("suite", "cli", "faults.py"))
    with Board(profile.name, list(by_name), lambda: {name} & by_name.keys()) as board:
        for device in sorted(set(devices.values())):
            logger.info("device %s", device)
            board.print(f"device {device}")
        for line in _estimated(profile, jobs):
            logger.info("%s", line)
            board.print(line)
        for name in names:
            if name not in by_name:
                record = complete_record(target / name)
                earlier = {"state": "earlier", "seconds": record.seconds} if record else {"state": "absent"}
                outcomes[name] = Outcome(notebook=name, **earlier)
                continue
            job = by_name[name]
            broken = [need for need in job.entry.needs if not outcomes[need].good]
            if broken:
                outcomes[name] = Outcome(notebook=name, state="stopped", reason=f"needs {', '.join(broken)}")
            else:
                upstream = {need: digest.result_digest(target / need) for need in job.entry.needs}
                kind = devices[name].split(":")[0]
                key = digest.job_key(job, code=code, upstream=upstream, device=kind)
                outcomes[name] = _run_one(job, key, profile, board, target=target, force=force)
            outcome = outcomes[name]
            level = logging.INFO if outcome.good else logging.ERROR
            logger.log(level, "%s %s  %s", name, outcome.state, outcome.note)
            board.end(name, outcome.state, outcome.note)
    return list(outcomes.values())


def _estimated(profile: Profile, jobs: Sequence[Job]) -> list[str]:
    """Return the estimate of a profile with `estimate: true`, or the reason if there is none."""
    if not profile.estimate:
        return []
    from clcae_lib.suite.run_cost import run_cost  # slow import: all that notebooks use

    try:
        return run_cost(profile, jobs)
    except (ClcaeError, RuntimeError) as error:
        return [f"no estimate of the time: {error}"]


def _run_one(job: Job, key: str, profile: Profile, board: Board, *, target: Path, force: bool) -> Outcome:
    record = complete_record(target / job.name)
    if record is not None and record.key == key and not force:
        return Outcome(notebook=job.name, state="unchanged", seconds=record.seconds)
    logger.info("%s starts with %s", job.name, json.dumps(dict(job.parameters), default=str))
    clock = time.monotonic()
    options = {"key": key, "profile": profile, "failed": target / "failed" / job.name}
    try:
        record = perform(job, target / job.name, watch=partial(board.progress, job.name), **options)
    except NotebookError as error:
        seconds = round(time.monotonic() - clock, 1)
        return Outcome(notebook=job.name, state="failed", seconds=seconds, reason=error.reason)
    return Outcome(notebook=job.name, state="done", seconds=record.seconds)
