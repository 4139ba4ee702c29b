"""Confidence intervals of means: bootstrap over images, paired differences, Student's t over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Interval:
    """A measured value and the ends of its confidence interval, in the value's unit."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return the value with its interval in brackets, three significant digits."""
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap_ci(
    values: ArrayLike, *, statistic: Statistic = np.mean, n: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return a statistic with its percentile bootstrap interval (Efron, Tibshirani 1993, ch. 13).

    Args:
        values: independent measurements, one per image.
        level: confidence level, between 0 and 1.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    values = finite(values)
    rng = np.random.default_rng(seed)
    resampled = [statistic(values[rng.integers(len(values), size=len(values))]) for _ in range(n)]
    return Interval(float(statistic(values)), *percentiles(resampled, level=level))


def percentiles(resampled: ArrayLike, *, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the percentile interval of a statistic, from its values on resampled data."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(a: ArrayLike, b: ArrayLike, **options: Any) -> Interval:
    """Return a statistic of `a - b` with its interval, for measurements of the same images in the same order.

    Variation over the images that both share cancels. So the interval is narrower than that of unpaired
    samples if `paired_correlation` is positive, and wider if it is negative.

    Args:
        options: options of `bootstrap_ci`.

    Raises:
        ValueError: the two differ in length, are empty, or have a value that is not finite.
    """
    a, b = _pairs(a, b)
    return bootstrap_ci(a - b, **options)


def paired_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Return Pearson's r of paired measurements: how much of their variation they share.

    The variance of the differences is `var(a) + var(b) - 2 r sd(a) sd(b)`: pairing helps if r is above 0. It
    is nan for fewer than three pairs (two points always have 1 or -1), or if `a` or `b` does not vary.

    Raises:
        ValueError: the two differ in length, are empty, or have a value that is not finite.
    """
    a, b = _pairs(a, b)
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = finite(a), finite(b)
    if len(a) != len(b):
        raise ValueError(f"a has {len(a)} values and b has {len(b)}: pairs are needed, one per image")
    return a, b


def student_ci(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the mean of a few values with Student's t interval, as for the seeds of a training.

    A bootstrap interval of three values misses the true mean in one of four cases; this one keeps its level
    for roughly normal values.

    Raises:
        ValueError: there are fewer than two values, or one is not finite.
    """
    values = finite(values)
    if len(values) < 2:
        raise ValueError("student_ci: an interval needs two or more values; run more seeds")
    mean = float(values.mean())
    reach = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - reach, mean + reach)


def summarise(
    frame: pd.DataFrame, *, by: Sequence[str], columns: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Return one row for each group and column: `metric`, the mean as `value`, `low`, `high`, and `count`.

    Args:
        frame: one row per measured image; missing values are left out.
        by: columns that name a group.
        columns: columns that are averaged; booleans become shares.
    """
    rows = []
    for key, group in frame.groupby(list(by), sort=False):
        for column in columns:
            values = group[column].dropna().to_numpy(float)
            if len(values):
                mean = bootstrap_ci(values, seed=seed)
                row = dict(zip(by, key, strict=True))
                rows.append(row | {"metric": column, **vars(mean), "count": len(values)})
    return pd.DataFrame(rows, columns=[*by, "metric", "value", "low", "high", "count"])


def finite(values: ArrayLike, *, ndim: int = 1) -> np.ndarray:
    """Return values as an array of float64; raise ValueError if there are none, or one is not finite."""
    values = np.asarray(values, dtype=float)
    if values.ndim != ndim or values.size == 0:
        raise ValueError(f"values: needs {ndim} dimension(s) and a value, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"values: {np.sum(~np.isfinite(values))} of {values.size} are not finite")
    return values
