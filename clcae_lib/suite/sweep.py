"""Run one notebook for every variant and seed of `notebooks/<sweep>.yaml`, several at a time.

Dask executes the runs, on this machine or at a given scheduler: as many at a time as there are workers, and
again if a worker was killed. A run with a complete result of the same key (see `digest`) is not repeated, so
an interrupted sweep resumes where it stopped. Results are in `results/sweeps/<sweep>/<variant>/seed<k>/`;
`runs.csv` and `runs.parquet` in the sweep's folder have all of them. Workers on other machines need the same
checkout and results at the same paths, on a shared file system.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, Field

from clcae_lib import paths
from clcae_lib.files import atomic_path, write_text
from clcae_lib.settings import read_yaml, validated
from clcae_lib.suite import digest
from clcae_lib.suite.cluster import VISIBLE, Place, connect, gpu_names
from clcae_lib.suite.collect import SWEEP_COLUMNS, provenance_rows, table
from clcae_lib.suite.console import Board, log_to
from clcae_lib.suite.perform import lock, only_writer, perform, restore, running
from clcae_lib.suite.plan import Job, Profile, Values, check_value, declared_parameters, named_file, plan
from clcae_lib.suite.record import NotebookError, Record, SuiteError, complete_record, read_record

logger = logging.getLogger("clcae_lib.suite")
MAX_RUNS = 10_000
_VARIANT = re.compile(r"(?!failed$)\w[\w.+-]{0,99}")  # name of a folder of results; `failed` is reserved
_UNIMPORTANT = ("suite", "cli", "faults.py", "plots", "explorer")


class SweepFile(BaseModel, extra="forbid", strict=True):
    """The content of `<sweep>.yaml`: the notebook, the parameters of all variants and of each, and seeds."""

    notebook: str
    variants: dict[str, Values]
    common: Values = {}
    inputs: list[str] = ["*"]
    seeds: dict[str, Annotated[int, Field(ge=1, le=MAX_RUNS)]] = {}

    def seeds_of(self, variant: str, asked: Sequence[int] | None) -> Sequence[int]:
        """Return the requested seeds, else as many as the file has for the variant, or three."""
        return asked if asked is not None else range(self.seeds.get(variant, self.seeds.get("default", 3)))


@dataclass(frozen=True)
class Run:
    """One variant with one seed: the job, its key and its folder."""

    variant: str
    seed: int
    job: Job
    key: str
    target: Path

    @property
    def name(self) -> str:
        """The run's name, such as "foundation/seed0"."""
        return f"{self.variant}/seed{self.seed}"

    def record(self, *, keep: bool) -> Record | None:
        """Return the record of the folder's complete run if its key, or with `keep` its parameters, match."""
        found = complete_record(self.target)
        if found is None:
            return None
        same = found.parameters == dict(self.job.parameters) if keep else found.key == self.key
        return found if same else None


@dataclass(frozen=True)
class SweepSummary:
    """The outcome of a sweep: its folder, the number of complete runs, and the reason of each failure."""

    folder: Path
    complete: int
    failed: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """A checked sweep before its start, with all runs and the selected ones."""

    name: str
    profile: Profile
    target: Path
    runs: Sequence[Run]
    selected: Sequence[Run]
    force: bool
    keep: bool

    @cached_property
    def waiting(self) -> list[Run]:
        """The selected runs that are still to do, found out once."""
        return [run for run in self.selected if self.force or run.record(keep=self.keep) is None]


def plan_sweep(
    name: str = "ablations",
    *,
    profile: str = "quick",
    seeds: Sequence[int] | None = None,
    variants: Sequence[str] = (),
    settings: Sequence[str] = (),
    force: bool = False,
    keep: bool = False,
    output: Path | None = None,
) -> Plan:
    """Return the plan of a sweep; nothing is written. Arguments and errors are those of `run_sweep`."""
    folder = paths.notebooks_dir()
    target = _target(name, output)
    sweep = read_sweep(folder, name)
    for variant in variants:
        if variant not in sweep.variants:
            known = ", ".join(sweep.variants)
            raise SuiteError(f"--variants: there is no {variant!r}; {name}.yaml has {known}")
    chosen, (job,) = plan(folder, profile, only=[sweep.notebook], settings=settings)
    job = Job(job.entry.model_copy(update={"inputs": tuple(sweep.inputs)}), job.path, job.parameters)
    runs = _runs(sweep, job, seeds, target)
    selected = [
        run
        for run in runs
        if run.variant in (variants or sweep.variants) and run.seed in sweep.seeds_of(run.variant, seeds)
    ]
    return Plan(name, chosen, target, runs, selected, force, keep)


def run_sweep(
    name: str = "ablations",
    *,
    place: Place | None = None,
    retries: int = 1,
    keep: bool = False,
    output: Path | None = None,
    **options: Any,
) -> SweepSummary:
    """Run all variants and seeds that are not complete, and join the results in one table.

    The arguments are those of `clcae sweep`. By default it runs on this machine, one notebook per GPU or per
    two cores, all variants, and as many seeds as the file has, or three. With `keep`, complete runs with
    equal parameters are not repeated, even if code or weights have changed.

    Raises:
        SuiteError: something is wrong before the first run starts, such as another sweep in the folder.
    """
    place = place or Place()
    place.check()
    target = _target(name, output)
    with only_writer(target):
        plan = plan_sweep(name, keep=keep, output=output, **options)
        for run in plan.runs:
            restore(run.target)
        names = [run.name for run in plan.selected]
        board = Board(name, names, lambda: {run.name for run in plan.waiting if running(run.target)})
        with log_to(target / "sweep.log"), board:
            for run in plan.selected:
                if run not in plan.waiting:
                    board.end(run.name, "unchanged")
            join = partial(gather, target, plan.runs, keep=keep)
            failed, complete = _run_all(plan, place, retries, board, join), join()
    return SweepSummary(target, complete, failed)


def _target(name: str, output: Path | None) -> Path:
    return (output or paths.results_dir() / "sweeps" / name).expanduser().resolve()


def read_sweep(folder: Path, name: str = "ablations") -> SweepFile:
    """Return the content of `<name>.yaml`.

    Raises:
        SuiteError: it is missing or not valid, or a variant sets what its notebook does not declare.
    """
    path = named_file(folder, "sweep", name)
    sweep = validated(SweepFile, read_yaml(path, error=SuiteError), source=str(path), error=SuiteError)
    for variant in sweep.variants:
        if not _VARIANT.fullmatch(variant):
            rule = "use at most 100 letters, digits, _, -, + and dots, not `failed` and no dot at the start"
            raise SuiteError(f"{path}: variants: {variant[:40]!r} cannot be the name of a folder; {rule}")
    for variant in sweep.seeds:
        if variant not in (*sweep.variants, "default"):
            raise SuiteError(
                f"{path}: seeds: {variant!r} is not a variant; it has {', '.join(sweep.variants)}"
            )
    if (count := sum(len(sweep.seeds_of(variant, None)) for variant in sweep.variants)) > MAX_RUNS:
        raise SuiteError(
            f"{path}: variants with their seeds are {count} runs; a sweep has at most {MAX_RUNS}"
        )
    declared = declared_parameters(folder / f"{sweep.notebook}.ipynb")
    for variant, values in {"common": sweep.common, **sweep.variants}.items():
        for parameter, value in values.items():
            check_value(f"{path}, {variant}: {sweep.notebook}", parameter, value, declared)
    return sweep


def _runs(sweep: SweepFile, job: Job, asked: Sequence[int] | None, target: Path) -> list[Run]:
    code = digest.code_digest(without=_UNIMPORTANT)
    runs, world_digest = [], cache(lambda world: digest.world_digest(world, job.entry.inputs))
    for variant, overrides in sweep.variants.items():
        earlier = {path.name.removeprefix("seed") for path in (target / variant).glob("seed*")}
        seeds = {int(seed) for seed in earlier if seed.isdigit()}.union(sweep.seeds_of(variant, asked))
        for seed in sorted(seeds):
            values = {**job.parameters, **sweep.common, **overrides, "seed": seed}
            if "variant" in values:
                values["variant"] = variant
            own = Job(job.entry, job.path, values)
            key = digest.job_key(own, code=code, world=world_digest(str(values["world"])))
            runs.append(Run(variant, seed, own, key, target / variant / f"seed{seed}"))
    return runs


def _run_all(
    plan: Plan, place: Place, retries: int, board: Board, gather_now: Callable[[], int]
) -> dict[str, str]:
    """Run the waiting runs, repeat failed ones, and return the reasons of those that still failed."""
    if not plan.waiting:
        return {}
    from distributed import as_completed

    failed: dict[str, str] = {}
    tries = {run.name: 1 for run in plan.waiting}
    with connect(place, runs=len(plan.waiting)) as submit:
        futures = {submit(_work, run, plan.profile): run for run in plan.waiting}
        queue = as_completed(futures)
        for future in queue:
            run, error = futures.pop(future), future.exception()
            reason = f"{type(error).__name__}: {error}" if error is not None else future.result()
            logger.log(logging.ERROR if reason else logging.INFO, "%s %s", run.name, reason or "done")
            if reason and tries[run.name] <= retries:
                tries[run.name] += 1
                board.note(run.name, f"try {tries[run.name]} after: {reason}")
                again = submit(_work, run, plan.profile)
                futures[again] = run
                queue.add(again)
                continue
            if reason:
                times = f" (tried {tries[run.name]} times)" if tries[run.name] > 1 else ""
                failed[run.name] = f"{reason}{times}"
            board.end(run.name, "failed" if reason else "done", failed.get(run.name, ""))
            gather_now()
    return failed


def _work(run: Run, profile: Profile, threads: int | None, gpus: int) -> str:
    """Execute one run in a worker; return the reason if it failed, else an empty text.

    A worker that its scheduler considers lost may still be executing the run; then wait and use its result.
    """
    from distributed import get_worker

    # Dask's workers return freed memory immediately; a training kernel that inherits this setting spends half
    # of its time in page faults.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    state = run.target.with_name(f".{run.target.name}.{run.key[:12]}.state")  # checkpoints of the training
    environment = {paths.STATE: str(state)}
    if threads:
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    if gpus:  # GPUs are shared if there are more workers than GPUs
        names = gpu_names(os.environ.get(VISIBLE), gpus)
        environment[VISIBLE] = names[int(get_worker().name) % len(names)]
    before = read_record(run.target)
    failed = run.target.parents[1] / "failed" / run.variant / f"seed{run.seed}"
    with lock(run.target):
        if run.record(keep=False) not in (None, before):
            return ""
        for stale in set(run.target.parent.glob(f".{run.target.name}.*.state")) - {state}:
            shutil.rmtree(stale, ignore_errors=True)
        try:
            perform(run.job, run.target, key=run.key, profile=profile, failed=failed, environment=environment)
        except NotebookError as error:
            return error.reason
        shutil.rmtree(state, ignore_errors=True)
    return ""


def gather(target: Path, runs: Sequence[Run], *, keep: bool) -> int:
    """Write `runs.csv` and `runs.parquet` from the complete runs and return how many there are.

    Recorded tables of the runs, such as `records.parquet`, are joined, with the variant's name. With `keep`,
    complete runs with equal parameters count even if code or weights have changed.
    """
    rows: list[dict[str, Any]] = []
    tables: dict[str, list[pd.DataFrame]] = {}
    complete = [(run, record) for run in runs if (record := run.record(keep=keep)) is not None]
    for run, record in complete:
        rows += provenance_rows(run.target, record, variant=run.variant)
        for path in sorted(run.target.glob("*.parquet")):
            frame = pd.read_parquet(path).assign(variant=run.variant, seed=run.seed)
            tables.setdefault(path.name, []).append(frame)
    frame = table(rows, SWEEP_COLUMNS)
    write_text(target / "runs.csv", frame.to_csv(index=False))
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    joined["runs.parquet"] = frame.astype({"headline": bool, "seed": "int64"})
    for name, content in joined.items():
        with atomic_path(target / name) as file:
            content.to_parquet(file, index=False)
    return len(complete)
