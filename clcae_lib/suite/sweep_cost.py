"""The cost of a sweep, printed before it starts: runs, time from measured steps, and disk space."""

import shutil
import statistics
from typing import TYPE_CHECKING

import pandas as pd
from rich.filesize import decimal

from clcae_lib import paths
from clcae_lib.suite.cluster import worker_count
from clcae_lib.suite.collect import read_runs
from clcae_lib.suite.record import read_record

if TYPE_CHECKING:
    from clcae_lib.suite.sweep import Plan, Run

STEPS, TRAINING = "training steps", "training time"
"""The metrics of a notebook's training length; without them, the time of whole runs is used."""


def sweep_cost(plan: "Plan", jobs: int | None = None) -> list[str]:
    """Return lines with the number of runs to do, their time, and the disk space that they need.

    The time of a run is the measured time outside of training, plus its steps times the measured time per
    step, of its variant's runs, or of all if it has none. `jobs` runs are executed at a time.
    """
    jobs, time_text = worker_count(jobs, len(plan.waiting)), "unknown: no run was measured yet"
    kept = paths.results_dir() / "reference" / "sweeps" / plan.name
    for origin, folder in {"measured here": plan.target, "measured for the reference": kept}.items():
        frame = read_runs(folder) if (folder / "runs.csv").is_file() else None
        if frame is not None and frame["seconds"].notna().any():
            each = [_seconds(run, frame) for run in plan.waiting]
            time_text = f"{_duration(max(sum(each) / jobs, max(each, default=0.0)))} ({origin})"
            break
    there = next(path for path in (plan.target, *plan.target.parents) if path.exists())
    needed, disk_text, free = 0, "unknown: no run is here yet", shutil.disk_usage(there).free
    folders = [run.target for run in plan.runs if read_record(run.target) is not None]
    if sizes := [sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) for folder in folders]:
        needed = int(statistics.median(sizes) * len(plan.waiting))
        disk_text = decimal(needed)
    lines = [
        f"runs   {len(plan.waiting)} of {len(plan.selected)} to do, {jobs} at a time",
        f"time   {time_text}",
        f"disk   {disk_text}; {decimal(free)} free",
    ]
    if needed > free:
        lines.append("       not enough: runs will fail; choose a folder on another disk with --output")
    return lines


def _seconds(run: "Run", frame: pd.DataFrame) -> float:
    """Return the estimated seconds of a run from a table of runs, at least one of which has a time."""
    frame = frame[frame["seconds"].notna()]
    own = frame[frame["variant"] == run.variant]
    outside, step = _pace(frame if own.empty else own)
    return outside + step * (run.job.parameters.get("steps") or 0)


def _pace(frame: pd.DataFrame) -> tuple[float, float]:
    """Return the seconds of a run outside of training, and per step: medians over runs."""
    keys = ["variant", "seed"]
    runs = frame.drop_duplicates(keys).set_index(keys)["seconds"].rename("run")
    parts = frame[frame["metric"].isin((STEPS, TRAINING))].drop_duplicates([*keys, "metric"])
    trained = parts.pivot(index=keys, columns="metric", values="value").reindex(columns=[STEPS, TRAINING])
    both = trained.dropna().join(runs, how="inner")
    both = both[both[STEPS] > 0]
    if both.empty:
        return float(runs.median()), 0.0
    outside = (both["run"] - both[TRAINING]).clip(lower=0)
    return float(outside.median()), float((both[TRAINING] / both[STEPS]).median())


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
