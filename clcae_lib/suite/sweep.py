"""Re-runs one notebook for every variant and seed of `notebooks/<sweep>.yaml`, several at once.

Dask is the executor, on this machine or at a scheduler that is named: it runs as many notebooks together as
there are workers, and runs one again whose worker was killed. A run is known by its key (see `_digest`):
what is complete under it is not run again, so an interrupted sweep resumes where it stopped. Results lie in
`results/sweeps/<sweep>/<variant>/seed<k>/`, all of them together in `runs.csv` and `runs.parquet` beside the
variants. Workers elsewhere need the same checkout and results at the same paths, on a shared file system.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.settings import read_yaml
from clcae_lib.suite import _digest
from clcae_lib.suite._collect import SWEEP_COLUMNS, complete_record, provenance_rows, read_runs, table
from clcae_lib.suite._console import Board, log_to
from clcae_lib.suite._errors import NotebookError, SuiteError
from clcae_lib.suite._estimate import Estimate, estimate
from clcae_lib.suite._lock import alone, in_turn
from clcae_lib.suite._parameters import check_value, declared_parameters, section
from clcae_lib.suite._perform import perform, restore, running
from clcae_lib.suite._plan import Job, Profile, plan
from clcae_lib.suite._record import RECORD, Record, read_record
from clcae_lib.suite.cluster import VISIBLE, Place, check_place, connect, gpu_of, worker_count

logger = logging.getLogger("clcae_lib.suite")
MAX_SEEDS = 10_000
_UNIMPORTANT = ("suite", "cli", "plots", "explorer")


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
        """Such as "foundation/seed0"."""
        return f"{self.variant}/seed{self.seed}"

    def record(self, *, keep: bool) -> Record | None:
        """The complete run in the folder, if its key, or with `keep` its parameters, are this run's."""
        found = complete_record(self.target)
        if found is None:
            return None
        same = found.parameters == dict(self.job.parameters) if keep else found.key == self.key
        return found if same else None


@dataclass(frozen=True)
class SweepSummary:
    """How a sweep fared: its folder, how many runs are complete, and the reason of each that failed."""

    folder: Path
    complete: int
    failed: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """A sweep that was checked and not started: every known run, those selected and those to do."""

    name: str
    profile: Profile
    target: Path
    runs: Sequence[Run]
    selected: Sequence[Run]
    waiting: Sequence[Run]

    def cost(self, jobs: int | None = None) -> Estimate:
        """What it should take with so many notebooks at once."""
        here = self.target / "runs.csv"
        kept = paths.results_dir() / "reference" / "sweeps" / self.name / "runs.csv"
        sources = {"measured here": here, "measured for the reference": kept}
        return estimate(
            [run.job.parameters for run in self.waiting],
            total=len(self.selected),
            jobs=worker_count(jobs, len(self.waiting)),
            measured={name: read_runs(path.parent) for name, path in sources.items() if path.is_file()},
            folders=[run.target for run in self.runs if read_record(run.target) is not None],
            target=self.target,
        )


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
    notebooks: Path | None = None,
) -> Plan:
    """What a sweep would do; writes nothing. Arguments and errors are those of `run_sweep`."""
    folder = notebooks or paths.notebooks_dir()
    target = (output or paths.results_dir() / "sweeps" / name).expanduser().resolve()
    variants_table = read_sweep(folder, name)
    names = list(variants_table["variants"])
    wanted = {variant: _seeds_of(variants_table, variant, seeds) for variant in names}
    every = [*(seed for several in wanted.values() for seed in several), *_seeds_at(target)]
    chosen, runs = _runs(folder, variants_table, profile, settings, every, target)
    selected = _select(runs, wanted, variants or names, name)
    waiting = [run for run in selected if force or run.record(keep=keep) is None]
    return Plan(name, chosen, target, runs, selected, waiting)


def run_sweep(
    name: str = "ablations",
    *,
    place: Place | None = None,
    retries: int = 1,
    keep: bool = False,
    output: Path | None = None,
    **options: Any,
) -> SweepSummary:
    """Runs variants times seeds, except what is complete, and gathers everything in one table.

    Args:
        name: of the file in `notebooks/` without `.yaml`.
        place: where to run; by default on this machine, a notebook a GPU or a pair of cores.
        retries: how often a run that failed is tried again before it is reported.
        keep: take complete runs with equal parameters as they are, although code or weights have changed.
        output: folder for the results; `results/sweeps/<name>` by default.
        options: `profile` gives the notebook's other parameters, `seeds` those of every variant (by default
            as many as the file says, or three), `variants` their names (none means all), `settings`
            `name=value` over the profile's, `force` runs what is complete too, `notebooks` the suite's
            folder.

    Raises:
        SuiteError: something is wrong before the first run starts, such as another sweep into the folder.
    """
    place = place or Place()
    check_place(place)
    target = (output or paths.results_dir() / "sweeps" / name).expanduser().resolve()
    with alone(target):
        for run in plan_sweep(name, keep=keep, output=output, **options).runs:
            restore(run.target)
        plan = plan_sweep(name, keep=keep, output=output, **options)
        with log_to(target / "sweep.log"), Board(name, [run.name for run in plan.selected]) as board:
            for run in plan.selected:
                if run not in plan.waiting:
                    board.end(run.name, "unchanged")
            failed = _run_all(plan, place, retries, board, lambda: gather(target, plan.runs, keep=keep))
            complete = gather(target, plan.runs, keep=keep)
    return SweepSummary(target, complete, failed)


def read_sweep(folder: Path, name: str = "ablations") -> dict[str, Any]:
    """The content of `<name>.yaml`: `notebook`, `variants`, and perhaps `inputs` and `seeds`.

    Raises:
        SuiteError: there is no such file, a part is missing, or a variant sets what its notebook does
        not declare.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        there = (
            ", ".join(sorted(file.stem for file in folder.glob("*.yaml") if file.stem != "suite")) or "none"
        )
        raise SuiteError(f"sweep {name!r}: no file {path}; there is {there}")
    content = read_yaml(path, error=SuiteError)
    parts = {"notebook", "variants"}
    if set(content) - {"inputs", "seeds"} != parts:
        raise SuiteError(
            f"{path}: has `notebook`, `variants` and perhaps `inputs` and `seeds`, not {', '.join(content)}"
        )
    for name in ("variants", "seeds"):
        content[name] = section(content, name, source=str(path))
    inputs = content.get("inputs", [])
    if not isinstance(inputs, list) or not all(isinstance(pattern, str) for pattern in inputs):
        raise SuiteError(f"{path}: inputs: must be a list of file names or patterns, not {inputs!r}")
    _check_seeds(path, content)
    declared = declared_parameters(folder / f"{content['notebook']}.ipynb")
    for variant in content["variants"]:
        for name, value in section(content["variants"], variant, source=str(path)).items():
            check_value(f"{path}, {variant}: {content['notebook']}", name, value, declared)
    return content


def _check_seeds(path: Path, content: Mapping[str, Any]) -> None:
    """That `seeds` gives counts, of variants that there are."""
    for variant, count in content["seeds"].items():
        if variant not in (*content["variants"], "default") or not isinstance(count, int) or count < 1:
            raise SuiteError(f"{path}: seeds: {variant}: {count} is no number of seeds of a variant")
        if count > MAX_SEEDS:
            raise SuiteError(f"{path}: seeds: {variant}: {count} is more than {MAX_SEEDS}")


def _seeds_of(content: Mapping[str, Any], variant: str, asked: Sequence[int] | None) -> Sequence[int]:
    """The seeds that were asked for, else as many as the file gives the variant."""
    counts = content.get("seeds", {})
    return asked if asked is not None else range(counts.get(variant, counts.get("default", 3)))


def _runs(
    folder: Path,
    ablations: Mapping[str, Any],
    profile: str,
    settings: Sequence[str],
    seeds: Iterable[int],
    target: Path,
) -> tuple[Profile, list[Run]]:
    """Every variant with every seed."""
    chosen, (job,) = plan(folder, profile, only=[ablations["notebook"]], settings=settings)
    entry = replace(job.entry, inputs=tuple(ablations.get("inputs", ("*",))))
    code = _digest.code_digest(without=_UNIMPORTANT)
    runs, worlds = [], {}
    for variant, overrides in ablations["variants"].items():
        for seed in dict.fromkeys(seeds):
            values = {**job.parameters, **(overrides or {}), "seed": seed}
            if "variant" in values:
                values["variant"] = variant
            world = str(values["world"])
            if world not in worlds:
                worlds[world] = _digest.world_digest(world, entry.inputs)
            key = _digest.job_key(
                entry,
                values,
                upstream={},
                code=code,
                results=paths.results_dir(),
                world=worlds[world],
            )
            place = target / variant / f"seed{seed}"
            runs.append(Run(variant, seed, Job(entry, values), key, place))
    return chosen, runs


def _seeds_at(target: Path) -> list[int]:
    """Seeds of which an earlier sweep left results."""
    names = [path.name.removeprefix("seed") for path in target.glob("*/seed*")]
    return sorted({int(name) for name in names if name.isdigit()})


def _select(
    runs: Sequence[Run], seeds: Mapping[str, Sequence[int]], variants: Sequence[str], name: str
) -> list[Run]:
    known = list(dict.fromkeys(run.variant for run in runs))
    for variant in variants:
        if variant not in known:
            raise SuiteError(f"--variants: there is no {variant!r}; {name}.yaml has {', '.join(known)}")
    return [run for run in runs if run.variant in variants and run.seed in seeds[run.variant]]


def _run_all(
    plan: Plan, place: Place, retries: int, board: Board, gather_now: Callable[[], int]
) -> dict[str, str]:
    """Runs what waits, tries again what failed, and tells what failed for good, and why."""
    if not plan.waiting:
        return {}
    from distributed import as_completed

    failed: dict[str, str] = {}
    tries = {run.name: 1 for run in plan.waiting}
    with connect(place, runs=len(plan.waiting)) as workers:

        def submit(run: Run) -> Any:
            arguments = (run, plan.profile, workers.threads, workers.gpus)
            return workers.client.submit(work, *arguments, pure=False, resources=workers.resources)

        futures = {submit(run): run for run in plan.waiting}
        board.watch(lambda: {run.name for run in plan.waiting if running(run.target)})
        queue = as_completed(futures)
        for future in queue:
            run = futures.pop(future)
            reason = _reason(future)
            logger.log(logging.ERROR if reason else logging.INFO, "%s %s", run.name, reason or "done")
            if reason and tries[run.name] <= retries:
                tries[run.name] += 1
                board.note(run.name, f"try {tries[run.name]} after: {reason}")
                again = submit(run)
                futures[again] = run
                queue.add(again)
                continue
            if reason:
                failed[run.name] = (
                    f"{reason} (tried {tries[run.name]} times)" if tries[run.name] > 1 else reason
                )
            board.end(run.name, "failed" if reason else "done", failed.get(run.name, ""))
            gather_now()
    return failed


def _reason(future: Any) -> str:
    """Why a run failed; nothing if it did not."""
    error = future.exception()
    return f"{type(error).__name__}: {error}" if error is not None else future.result()


def work(run: Run, profile: Profile, threads: int | None, gpus: int) -> str:
    """Executes one run, in a worker; returns why it failed, or nothing.

    A worker that its scheduler has given up may still be at it: then this waits, and takes what it made.
    """
    from distributed import get_worker

    # Dask has its workers hand freed memory back at once; a training kernel that inherits this spends half
    # of its time in page faults.
    os.environ.pop("MALLOC_TRIM_THRESHOLD_", None)
    state = run.target.parent / f".{run.target.name}.{run.key[:12]}.state"
    environment = {paths.STATE: str(state)}
    if threads:
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    if gpus:
        environment[VISIBLE] = gpu_of(os.environ.get(VISIBLE), gpus, int(get_worker().name))
    before = run.target / RECORD
    started = before.stat().st_mtime_ns if before.is_file() else None
    failed = run.target.parents[1] / "failed" / run.variant / f"seed{run.seed}"
    with in_turn(run.target):
        if run.record(keep=False) is not None and (run.target / RECORD).stat().st_mtime_ns != started:
            return ""
        _forget(run.target, but=state)
        try:
            perform(run.job, run.target, key=run.key, profile=profile, failed=failed, environment=environment)
        except NotebookError as error:
            return error.reason
        _forget(run.target)
    return ""


def _forget(target: Path, *, but: Path | None = None) -> None:
    """Removes the checkpoints that runs of `target` left, but those of the run at hand."""
    for state in target.parent.glob(f".{target.name}.*.state"):
        if state != but:
            shutil.rmtree(state, ignore_errors=True)


def gather(target: Path, runs: Sequence[Run], *, keep: bool) -> int:
    """Writes `runs.csv` and `runs.parquet` from the complete runs and returns how many there are.

    Tables that the runs have recorded, such as `records.parquet`, are joined, with the variant's name.
    """
    rows: list[dict[str, Any]] = []
    tables: dict[str, list[pd.DataFrame]] = {}
    complete = 0
    for run in runs:
        record = run.record(keep=keep)
        if record is not None:
            rows += provenance_rows(run.target, record, variant=run.variant)
            complete += 1
            for path in sorted(run.target.glob("*.parquet")):
                frame = pd.read_parquet(path).assign(variant=run.variant, seed=run.seed)
                tables.setdefault(path.name, []).append(frame)
    frame = table(rows, SWEEP_COLUMNS)
    _write(frame, target)
    for name, parts in tables.items():
        with atomic_path(target / name) as partial:
            pd.concat(parts, ignore_index=True).to_parquet(partial, index=False)
    return complete


def _write(frame: pd.DataFrame, target: Path) -> None:
    with atomic_path(target / "runs.csv") as partial:
        frame.to_csv(partial, index=False)
    with atomic_path(target / "runs.parquet") as partial:
        frame.astype({"headline": bool, "seed": "int64"}).to_parquet(partial, index=False)
