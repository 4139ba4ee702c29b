"""What a sweep will cost, told before it starts: runs, time from steps that were measured, disk."""

import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

STEPS, TRAINING = "training steps", "training time"
"""The measures in which a notebook tells how long it trained; where it has none, whole runs are compared."""


@dataclass(frozen=True)
class Estimate:
    """What is to be done, and what it should take.

    Attributes:
        total: runs asked for.
        waiting: those not complete yet.
        jobs: notebooks at once.
        seconds: of all waiting runs together at that many at once; None where no run was ever measured.
        disk: bytes they should need; None where no run lies on this disk.
        free: bytes that are free.
        basis: what the estimates come from.
    """

    total: int
    waiting: int
    jobs: int
    seconds: float | None
    disk: int | None
    free: int
    basis: str

    def lines(self) -> list[str]:
        """The plan as a person reads it."""
        time_text = "unknown: no run was measured yet" if self.seconds is None else _duration(self.seconds)
        disk_text = "unknown: no run lies here yet" if self.disk is None else _size(self.disk)
        lines = [
            f"runs   {self.waiting} of {self.total} to do, {self.jobs} at once",
            f"time   {time_text}{f' ({self.basis})' if self.basis and self.seconds is not None else ''}",
            f"disk   {disk_text}; {_size(self.free)} free",
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
    """The plan for runs with these parameters.

    A run takes what a measured one did outside its training, plus its own steps at the measured pace. With
    several jobs a core has less for each, so pace is that of runs measured the same way: as good as a
    plan gets.

    Args:
        waiting: the parameters of every run to do.
        total: runs asked for, complete ones among them.
        jobs: notebooks at once.
        measured: tables like `runs.csv` by where they come from, the best first; the first with rows counts.
        folders: of complete runs, for their size.
        target: where results will lie.
    """
    basis, pace = next(
        ((name, found) for name, frame in measured.items() if (found := _pace(frame)) is not None), ("", None)
    )
    sizes = [_folder_size(folder) for folder in folders]
    there = next(path for path in (target, *target.parents) if path.exists())
    seconds = None
    if pace is not None:
        each = [pace[0] + pace[1] * _steps(parameters) for parameters in waiting]
        seconds = max(sum(each) / jobs, max(each, default=0.0))
    disk = int(statistics.median(sizes) * len(waiting)) if sizes else None
    return Estimate(total, len(waiting), jobs, seconds, disk, shutil.disk_usage(there).free, basis)


def _steps(parameters: Mapping[str, Any]) -> float:
    steps = parameters.get("steps", 0)
    return float(steps) if isinstance(steps, int | float) else 0.0


def _pace(frame: pd.DataFrame) -> tuple[float, float] | None:
    """Seconds of a run outside its training, and per step; None without a measured run."""
    runs = frame.drop_duplicates(["variant", "seed"]).set_index(["variant", "seed"])["seconds"].dropna()
    if runs.empty:
        return None
    measures = {
        name: frame[frame["metric"] == name]
        .drop_duplicates(["variant", "seed"])
        .set_index(["variant", "seed"])
        for name in (STEPS, TRAINING)
    }
    steps, training = (measures[name]["value"] for name in (STEPS, TRAINING))
    both = pd.concat([runs, steps, training], axis=1, join="inner", keys=["run", "steps", "training"])
    both = both[both["steps"] > 0]
    if both.empty:
        return float(runs.median()), 0.0
    outside = (both["run"] - both["training"]).clip(lower=0)
    return float(outside.median()), float((both["training"] / both["steps"]).median())


def _folder_size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
