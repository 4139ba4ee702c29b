"""How far a measured mean can be trusted: bootstrap intervals, paired differences, seeds with images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Interval:
    """A measured value and the ends of its confidence interval, in the value's own unit."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """The value with its interval in brackets, three significant digits."""
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap_ci(
    values: ArrayLike, *, statistic: Statistic = np.mean, n: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The statistic of `values` with its percentile bootstrap interval (Efron, Tibshirani 1993, ch. 13).

    Args:
        values: independent measurements, one per image.
        statistic: from a vector to a number.
        n: resamples.
        level: how often such an interval holds the truth, between 0 and 1.
        seed: of the resampling.

    Raises:
        ValueError: there is nothing to resample, or a value is not finite.
    """
    values = _checked(values, ndim=1)
    rng = np.random.default_rng(seed)
    resampled = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(n)]
    return _interval(statistic(values), resampled, level)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    statistic: Statistic = np.mean,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The statistic of `a - b` with its interval: both measured on the same images, in the same order.

    What the images have in common cancels, so this decides between two methods far better than two
    intervals do.

    Raises:
        ValueError: the two differ in length, are empty, or hold a value that is not finite.
    """
    a, b = _checked(a, ndim=1), _checked(b, ndim=1)
    if len(a) != len(b):
        raise ValueError(f"paired_difference: {len(a)} values against {len(b)}: pairs are needed")
    return bootstrap_ci(a - b, statistic=statistic, n=n, level=level, seed=seed)


def hierarchical_ci(
    values: ArrayLike, *, statistic: Statistic = np.mean, n: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The statistic over a table of seeds and images, both resampled.

    Every training seed is measured on the same images, so rows and columns are drawn anew, each with
    replacement. With fewer than about five seeds the interval is too narrow: say how many there were.

    Args:
        values: one row per training seed, one column per image.
        statistic: from all the values to a number.
        n: resamples.
        level: between 0 and 1.
        seed: of the resampling, not of a training run.

    Raises:
        ValueError: the table is empty or holds a value that is not finite.
    """
    values = _checked(values, ndim=2)
    rng = np.random.default_rng(seed)
    rows, columns = values.shape
    draws = ((rng.integers(rows, size=rows), rng.integers(columns, size=columns)) for _ in range(n))
    resampled = [statistic(values[np.ix_(row, column)].ravel()) for row, column in draws]
    return _interval(statistic(values.ravel()), resampled, level)


def student_ci(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """The mean of a few values with Student's t interval, for the seeds of a training.

    A bootstrap of three values cannot reach beyond the least and the greatest of them, and with no effect
    at all it leaves zero out one time in four. This interval keeps its level for roughly normal values.

    Args:
        values: independent measurements, two or more.
        level: how often such an interval holds the truth, between 0 and 1.

    Raises:
        ValueError: there are fewer than two values, or one is not finite.
    """
    values = _checked(values, ndim=1)
    if len(values) < 2:
        raise ValueError("student_ci: one value has no spread; run more seeds")
    mean = float(values.mean())
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - reach, mean + reach)


def summarise(
    frame: pd.DataFrame,
    *,
    by: Sequence[str],
    columns: Sequence[str],
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """One row for each group and column: `metric`, the mean as `value`, `low`, `high`, and `count`.

    Args:
        frame: one row per measured image; a missing value is left out.
        by: the columns that name a group.
        columns: what is averaged; booleans become shares.
        n: resamples of each interval.
        level: of the interval, between 0 and 1.
        seed: of the resampling.
    """
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        for column in columns:
            values = group[column].dropna().to_numpy(float)
            if len(values):
                mean = bootstrap_ci(values, n=n, level=level, seed=seed)
                row = dict(zip(by, key, strict=True))
                rows.append(row | {"metric": column, **vars(mean), "count": len(values)})
    return pd.DataFrame(rows, columns=[*by, "metric", "value", "low", "high", "count"])


def _checked(values: ArrayLike, *, ndim: int) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != ndim or values.size == 0:
        raise ValueError(
            f"bootstrap: needs at least one value in {ndim} dimension(s), got shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"bootstrap: {np.sum(~np.isfinite(values))} of {values.size} values are not finite")
    return values


def _interval(value: float, resampled: Sequence[float], level: float) -> Interval:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))
