"""The cost of a sweep, printed before it starts: runs, time from steps that were measured, disk."""

import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.filesize import decimal

STEPS, TRAINING = "training steps", "training time"
"""The measures of how long a notebook trained; where it has none, whole runs are compared."""


@dataclass(frozen=True)
class Estimate:
    """What is to be done, and what it should take.

    Attributes:
        total: runs asked for.
        waiting: those not complete yet.
        jobs: notebooks at a time.
        seconds: the time of all waiting runs together; None where no run was ever measured.
        disk: bytes they should need; None where no run is on this disk.
        free: bytes that are free.
        basis: the origin of the estimates.
    """

    total: int
    waiting: int
    jobs: int
    seconds: float | None
    disk: int | None
    free: int
    basis: str

    def lines(self) -> list[str]:
        """Return the plan as a person reads it."""
        basis = f" ({self.basis})" if self.basis else ""
        known = self.seconds is not None
        time_text = f"{_duration(self.seconds)}{basis}" if known else "unknown: no run was measured yet"
        disk_text = "unknown: no run is here yet" if self.disk is None else decimal(self.disk)
        lines = [
            f"runs   {self.waiting} of {self.total} to do, {self.jobs} at a time",
            f"time   {time_text}",
            f"disk   {disk_text}; {decimal(self.free)} free",
        ]
        if self.disk is not None and self.disk > self.free:
            lines.append("       not enough: runs will fail; choose a folder on another disk with --output")
        return lines


def estimate(
    waiting: Sequence[Mapping[str, Any]],
    *,
    total: int,
    jobs: int,
    measured: Mapping[str, pd.DataFrame],
    folders: Iterable[Path],
    target: Path,
) -> Estimate:
    """Return the plan for runs with these parameters.

    The time of a run is that of a measured one outside its training, plus its own steps at the measured pace.

    Args:
        waiting: the parameters of every run to do.
        total: runs asked for, complete ones among them.
        jobs: notebooks at a time.
        measured: tables like `runs.csv` by their origin, the best first; the first with rows counts.
        folders: folders of complete runs, for their size.
        target: the folder of the results.
    """
    found = {name: pace for name, frame in measured.items() if (pace := _pace(frame)) is not None}
    basis, (outside, a_step) = next(iter(found.items()), ("", (0.0, 0.0)))
    sizes = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in folders]
    there = next(path for path in (target, *target.parents) if path.exists())
    steps = [parameters.get("steps", 0) for parameters in waiting]
    each = [outside + a_step * (count if isinstance(count, int | float) else 0) for count in steps]
    return Estimate(
        total=total,
        waiting=len(waiting),
        jobs=jobs,
        seconds=max(sum(each) / jobs, max(each, default=0.0)) if found else None,
        disk=int(statistics.median(sizes) * len(waiting)) if sizes else None,
        free=shutil.disk_usage(there).free,
        basis=basis,
    )


def _pace(frame: pd.DataFrame) -> tuple[float, float] | None:
    """Return seconds of a run outside its training, and per step; None without a measured run."""
    keys = ["variant", "seed"]
    runs = frame.drop_duplicates(keys).set_index(keys)["seconds"].dropna().rename("run")
    if runs.empty:
        return None
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
