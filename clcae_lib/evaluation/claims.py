"""Judge differences by fixed rules: effect sizes, p-values, Holm's correction, verdicts (not in the paper).

A claim of the paper is supported, refuted or undecided. It is not judged if training is too short or the
measure is invalid. A method is better or worse than another one, or the comparison is undecided.

The effect size is that of paired data: the mean difference over the standard deviation of the differences
(Cohen's d_z), times Hedges' exact factor, which makes it unbiased in small samples (Hedges 1981). Holm's
step-down procedure (1979) keeps the probability of any false claim in a table at its level.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special, stats

from clcae_lib.evaluation.statistics import Interval, finite, percentiles, student_ci

Verdict = Literal["supported", "refuted", "undecided", "too early", "invalid measure"]
LEAST_STEPS = 3000
"""Training steps below which claims are not judged, the default length of `clcae train inversion`."""
OUTCOMES = {"supported": "better", "refuted": "worse", "undecided": "undecided"}
"""The outcome of a comparison of two methods that each verdict stands for."""
COMPARED = ("value", "low", "high", "effect", "p", "p_holm", "verdict", "seeds", "images")
"""The last columns of every table of comparisons."""


@dataclass(frozen=True)
class Gain(Interval):
    """The mean paired difference of two methods with its interval; positive is better.

    Attributes:
        effect: effect size of the differences, from `effect_size`.
        p: two-sided p-value against no difference, or against the margin if there is one.
        seeds: number of paired training seeds.
        images: number of paired images in each; 1 if the differences are means.
    """

    effect: float
    p: float
    seeds: int
    images: int = 1


def effect_size(differences: ArrayLike) -> float:
    """Return Hedges' g_z, unbiased: the mean of paired differences in units of their standard deviation.

    The factor is `gamma(m / 2) / (sqrt(m / 2) gamma((m - 1) / 2))` with m = n - 1. About 0.2 is small, 0.8
    large. It is nan for fewer than three differences, or for equal ones.
    """
    values = np.asarray(differences, dtype=float).ravel()
    if len(values) < 3 or np.ptp(values) == 0:
        return float("nan")
    m = len(values) - 1
    factor = np.exp(special.gammaln(m / 2) - special.gammaln((m - 1) / 2)) / np.sqrt(m / 2)
    return float(factor * values.mean() / values.std(ddof=1))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return Holm's adjusted p-values in the given order; nan stays nan and is not counted.

    Raises:
        ValueError: a value is outside 0 to 1.
    """
    p = np.asarray(p_values, dtype=float)
    known = np.flatnonzero(~np.isnan(p))
    if ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError(f"holm: p-values are between 0 and 1, got {p}")
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    weights = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(weights * p[order]))
    return adjusted


def verdict(
    gain: Interval,
    *,
    p: float | None = None,
    margin: float = 0.0,
    level: float = 0.95,
    steps: float | None = None,
    valid: bool = True,
) -> Verdict:
    """Return the verdict on a claim "better than" (or, with a margin, "not worse by more than it").

    * "too early": the trainings had fewer than `LEAST_STEPS` steps;
    * "invalid measure": a method that ignores the image wins the measure;
    * "supported": the whole interval is above `-margin`, and `p` is below `1 - level`;
    * "refuted": the whole interval is below `-margin`, and `p` is below `1 - level`;
    * "undecided": all other cases, including a missing interval or p-value.

    Args:
        gain: mean difference with its interval, positive in favour of the claim.
        p: p-value, corrected for the other claims in the table; None if it is the only claim.
        margin: difference that still counts as not worse, in the measure's unit; not negative.
        steps: fewest training steps of the compared runs; None if nothing was trained.
        valid: whether trivial methods lose in the measure.

    Raises:
        ValueError: the margin is negative.
    """
    if not margin >= 0:
        raise ValueError(
            f"verdict: margin={margin} must be 0 or more, the largest difference that counts as no cost"
        )
    if steps is not None and steps < LEAST_STEPS:
        return "too early"
    if not valid:
        return "invalid measure"
    if p is not None and not p < 1 - level:
        return "undecided"
    if gain.low > -margin:
        return "supported"
    return "refuted" if gain.high < -margin else "undecided"


def gain_over_seeds(differences: ArrayLike, *, margin: float = 0.0, level: float = 0.95) -> Gain:
    """Return the gain from one difference per seed, with Student's interval and t-test, for few seeds.

    With one difference, interval and p are nan, so that the verdict is "undecided".

    Raises:
        ValueError: there are no differences, or one is not finite.
    """
    values = finite(differences)
    if len(values) < 2:
        nan = float("nan")
        return Gain(float(values.mean()), nan, nan, nan, nan, len(values))
    if np.ptp(values) == 0:
        p = float(values[0] == -margin)  # the limit of the t-test
    else:
        p = float(stats.ttest_1samp(values, -margin).pvalue)
    interval = student_ci(values, level=level)
    return Gain(**asdict(interval), effect=effect_size(values), p=p, seeds=len(values))


def gain_over_images(differences: ArrayLike, *, n: int = 2000, seed: int = 0) -> Gain:
    """Return the gain from a table of differences, by hierarchical bootstrap over seeds and images.

    The p-value is twice the share of resampled means on the other side of 0, plus one in both counts, so
    never 0. The effect size is over images, each averaged over seeds. With one seed the gain says nothing
    about retraining; with two to four the interval is too narrow: use `gain_over_seeds` of the rows' means.

    Args:
        differences: one row per training seed, one column per image.

    Raises:
        ValueError: `differences` is not such a table, or a value is not finite.
    """
    values = finite(differences, ndim=2)
    rng = np.random.default_rng(seed)
    rows, columns = values.shape
    means = np.empty(n)
    for i in range(n):
        row, column = rng.integers(rows, size=rows), rng.integers(columns, size=columns)
        means[i] = values[np.ix_(row, column)].mean()
    tail = min((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2 * (tail + 1) / (n + 1))
    effect = effect_size(values.mean(axis=0))
    return Gain(float(values.mean()), *percentiles(means), effect, float(p), rows, columns)


def judge_table(
    gains: Mapping[str, Gain],
    *,
    margins: Mapping[str, float] | None = None,
    level: float = 0.95,
    steps: float | None = None,
    invalid: Collection[str] = (),
) -> pd.DataFrame:
    """Return one row per claim, indexed by its name: the gain, `p_holm` over the table, and the verdict.

    Args:
        gains: every claim of the family; Holm's correction is valid only if none is left out.
        margins: margins of claims, as in `verdict`; the gain's p must be tested against the same margin.
        steps: fewest training steps of the compared runs, as in `verdict`.
        invalid: names of the claims whose measure a trivial method wins.
    """
    margins = margins or {}
    adjusted = holm([gain.p for gain in gains.values()])
    shared = {"level": level, "steps": steps}
    rows = []
    for (name, gain), p in zip(gains.items(), adjusted, strict=True):
        word = verdict(gain, p=p, margin=margins.get(name, 0.0), valid=name not in invalid, **shared)
        rows.append(asdict(gain) | {"p_holm": p, "verdict": word})
    return pd.DataFrame(rows, columns=list(COMPARED), index=pd.Index(list(gains), name="claim"))


def compare_gains(gains: Mapping[str, Gain], *, level: float = 0.95) -> pd.DataFrame:
    """Return the table of `judge_table` for two methods, with "better", "worse" or "undecided"."""
    table = judge_table(gains, level=level)
    return table.assign(verdict=table["verdict"].map(OUTCOMES))


def compare_methods(
    frame: pd.DataFrame,
    column: str,
    *,
    baseline: str,
    better: Literal["higher", "lower"],
    by: str = "method",
    n: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return every method's gain over the baseline on the same seeds and images, with Holm's correction.

    With five seeds or more, or with one, the gain is `gain_over_images`; with two to four it is
    `gain_over_seeds` of the seeds' means. Methods are paired over the seeds that both have; a method with a
    single seed (optimisation is not trained) is compared with the baseline's mean over seeds.

    Args:
        frame: one row for each method, seed and image: the columns `by`, `seed`, `image` and `column`.
        better: direction in which the measure is better; a positive gain is better.

    Raises:
        ValueError: the baseline is missing, a row occurs twice, or a method shares no images with it.
    """
    if frame.duplicated([by, "seed", "image"]).any():
        raise ValueError(f"compare_methods: a {by}, seed and image occur twice; choose one space first")
    groups = frame.groupby(by, sort=False)
    tables = {name: part.pivot(index="seed", columns="image", values=column) for name, part in groups}
    if baseline not in tables:
        raise ValueError(f"baseline={baseline!r} is not one of {', '.join(map(str, tables))}")
    base, sign = tables.pop(baseline), 1 if better == "higher" else -1
    gains = {}
    for name, table in tables.items():
        differences = sign * _paired(table, base, str(name))
        if 2 <= len(differences) < 5:
            gains[str(name)] = gain_over_seeds(differences.mean(axis=1))
        else:
            gains[str(name)] = gain_over_images(differences, n=n, seed=seed)
    return compare_gains(gains).rename_axis(by)


def _paired(table: pd.DataFrame, base: pd.DataFrame, name: str) -> np.ndarray:
    """Return differences on common seeds and images; with one seed, from the baseline's mean over seeds."""
    images = table.columns.intersection(base.columns)
    seeds = table.index.intersection(base.index)
    if len(table) == 1 and len(base) > 1:
        base = base.mean(axis=0).to_frame(table.index[0]).T
        seeds = table.index
    if not len(images) or not len(seeds):
        raise ValueError(f"{name} shares no images or seeds with the baseline; measure both on the same")
    return (table.loc[seeds, images] - base.loc[seeds, images]).dropna(axis=1).to_numpy(float)
