"""Re-runs one notebook for every variant and seed of `notebooks/ablations.yaml`, several at once.

A Dask LocalCluster is the executor: it runs as many notebooks together as there are workers, and runs one
again whose worker was killed. What is complete is not run again, so an interrupted sweep resumes where it
stopped. Results lie in `results/sweeps/ablations/<variant>/seed<k>/`, all of them together in `runs.csv` and
`runs.parquet` beside the variants.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.suite import _digest
from clcae_lib.suite._collect import SWEEP_COLUMNS, provenance_rows, table
from clcae_lib.suite._console import Display, log_to
from clcae_lib.suite._errors import NotebookError, SuiteError
from clcae_lib.suite._parameters import check_value, declared_parameters, read_yaml
from clcae_lib.suite._perform import perform, restore
from clcae_lib.suite._plan import Job, Profile, plan
from clcae_lib.suite._record import Record, read_record

logger = logging.getLogger("clcae_lib.suite")
_UNIMPORTANT = ("suite", "cli.py", "visuals")


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
        found = read_record(self.target)
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


def sweep_ablations(
    *,
    profile: str = "quick",
    seeds: Sequence[int] = (0, 1, 2),
    variants: Sequence[str] = (),
    settings: Sequence[str] = (),
    workers: int | None = None,
    force: bool = False,
    keep: bool = False,
    output: Path | None = None,
    notebooks: Path | None = None,
) -> SweepSummary:
    """Runs variants times seeds, except what is complete, and gathers everything in one table.

    Args:
        profile: gives the notebook's other parameters.
        seeds: the seeds of every variant.
        variants: names in `ablations.yaml`; none means all.
        settings: `name=value`, over the profile's values.
        workers: notebooks at once; by default one a GPU, or one a pair of cores.
        force: run what is complete too.
        keep: take complete runs with equal parameters as they are, although code or weights have changed.
        output: folder for the results; `results/sweeps/ablations` by default.
        notebooks: folder of the suite; the repository's by default.

    Raises:
        SuiteError: something is wrong before the first run starts.
    """
    folder = notebooks or paths.notebooks_dir()
    target = (output or paths.results_dir() / "sweeps" / "ablations").expanduser().resolve()
    table_of_variants = read_ablations(folder)
    chosen, runs = _runs(folder, table_of_variants, profile, settings, [*seeds, *_seeds_at(target)], target)
    selected = _select(runs, seeds, variants or list(table_of_variants["variants"]))
    for run in runs:
        restore(run.target)
    waiting = [run for run in selected if force or run.record(keep=keep) is None]
    with log_to(target / "sweep.log"), Display("ablations", len(selected)) as display:
        for run in selected:
            if run not in waiting:
                display.end(f"{run.name:<40} unchanged")
        failed = _run_all(waiting, chosen, workers, display, lambda: gather(target, runs, keep=keep))
        complete = gather(target, runs, keep=keep)
    return SweepSummary(target, complete, failed)


def read_ablations(folder: Path) -> dict[str, Any]:
    """The content of `ablations.yaml`: `notebook`, `inputs` and `variants`.

    Raises:
        SuiteError: a part is missing, or a variant sets what its notebook does not declare.
    """
    path = folder / "ablations.yaml"
    content = read_yaml(path)
    if set(content) - {"inputs"} != {"notebook", "variants"} or not isinstance(content["variants"], dict):
        raise SuiteError(f"{path}: has `notebook`, `variants` and perhaps `inputs`, not {', '.join(content)}")
    declared = declared_parameters(folder / f"{content['notebook']}.ipynb")
    for variant, values in content["variants"].items():
        for name, value in (values or {}).items():
            check_value(f"{path}, {variant}: {content['notebook']}", name, value, declared)
    return content


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
    runs = []
    for variant, overrides in ablations["variants"].items():
        for seed in dict.fromkeys(seeds):
            values = {**job.parameters, **(overrides or {}), "seed": seed}
            if "variant" in values:
                values["variant"] = variant
            key = _digest.job_key(entry, values, upstream={}, code=code, results=paths.results_dir())
            place = target / variant / f"seed{seed}"
            runs.append(Run(variant, seed, Job(entry, values), key, place))
    return chosen, runs


def _seeds_at(target: Path) -> list[int]:
    """Seeds of which an earlier sweep left results."""
    names = [path.name.removeprefix("seed") for path in target.glob("*/seed*")]
    return sorted({int(name) for name in names if name.isdigit()})


def _select(runs: Sequence[Run], seeds: Sequence[int], variants: Sequence[str]) -> list[Run]:
    known = list(dict.fromkeys(run.variant for run in runs))
    for variant in variants:
        if variant not in known:
            raise SuiteError(f"--variants: there is no {variant!r}; ablations.yaml has {', '.join(known)}")
    return [run for run in runs if run.variant in variants and run.seed in seeds]


def _run_all(
    runs: Sequence[Run], profile: Profile, workers: int | None, display: Display, gather_now: Any
) -> dict[str, str]:
    """Runs everything on a cluster of this machine and tells what failed, and why."""
    if not runs:
        return {}
    from dask import config
    from distributed import Client, LocalCluster, as_completed

    gpus = _gpu_count()
    count = min(workers or gpus or max(1, (os.cpu_count() or 1) // 2), len(runs))
    threads = max(1, (os.cpu_count() or 1) // count)
    failed: dict[str, str] = {}
    # Dask makes its processes hand freed memory back at once (MALLOC_TRIM_THRESHOLD_); a training kernel
    # that inherits this spends half its time in page faults.
    environment = {"distributed.nanny.pre-spawn-environ": {}}
    quiet = {"distributed.scheduler.allowed-failures": 3, "distributed.admin.tick.limit": "1h"}
    with (
        config.set(quiet | environment),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        futures = {client.submit(work, run, profile, threads, gpus, pure=False): run for run in runs}
        for future in as_completed(futures):
            run = futures[future]
            reason = _reason(future)
            if reason:
                failed[run.name] = reason
            logger.log(logging.ERROR if reason else logging.INFO, "%s %s", run.name, reason or "done")
            display.end(f"{run.name:<40} {f'failed  {reason}' if reason else 'done'}")
            gather_now()
    return failed


def _reason(future: Any) -> str:
    """Why a run failed; nothing if it did not."""
    error = future.exception()
    return f"{type(error).__name__}: {error}" if error is not None else future.result()


def work(run: Run, profile: Profile, threads: int, gpus: int) -> str:
    """Executes one run, in a worker; returns why it failed, or nothing."""
    from distributed import get_worker

    environment = {"OMP_NUM_THREADS": str(threads)}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = str(int(get_worker().name) % gpus)
    failed = run.target.parents[1] / "failed" / run.variant / f"seed{run.seed}"
    try:
        perform(run.job, run.target, key=run.key, profile=profile, failed=failed, environment=environment)
    except NotebookError as error:
        return error.reason
    return ""


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def gather(target: Path, runs: Sequence[Run], *, keep: bool) -> int:
    """Writes `runs.csv` and `runs.parquet` from the complete runs and returns how many there are."""
    rows: list[dict[str, Any]] = []
    complete = 0
    for run in runs:
        record = run.record(keep=keep)
        if record is not None:
            rows += provenance_rows(run.target, record, variant=run.variant)
            complete += 1
    frame = table(rows, SWEEP_COLUMNS)
    _write(frame, target)
    return complete


def _write(frame: pd.DataFrame, target: Path) -> None:
    with atomic_path(target / "runs.csv") as partial:
        frame.to_csv(partial, index=False)
    with atomic_path(target / "runs.parquet") as partial:
        frame.astype({"headline": bool, "seed": "int64"}).to_parquet(partial, index=False)
