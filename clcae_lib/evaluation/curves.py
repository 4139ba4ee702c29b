"""Compare edits at equal response, and find the front of fidelity and editability (no section of the paper).

A direction that moves its factor only a little also changes little else. So methods are not compared at equal
strength, but at the strengths at which the factor has moved by the same amount.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clcae_lib.evaluation.statistics import percentiles

READ = ("leakage", "identity", "truth_distance")
"""Measures that are read at equal response."""


def at_equal_response(
    curve: pd.DataFrame,
    *,
    response: float = 1.0,
    by: Sequence[str] = ("factor",),
    n: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the mean cost of an edit at the strength where the factor has moved by `response` on average.

    In each group the measures are averaged over images at every strength; strength 0 is the unedited
    reconstruction. Measures are interpolated linearly and read where the mean of `moved` first reaches the
    response. A curve that never reaches it has no value. Intervals are percentiles over resampled images.

    Args:
        curve: result of `measure_curve`, or several of them joined.
        response: wanted movement, in standard deviations of the factor.

    Returns:
        One row for each group: `by`, `response`, `strength`, `reached` (the share of resamples that reached
        the response; intervals are over those), `images`, and for each of `READ` its value, `..._low`,
        `..._high`.

    Raises:
        ValueError: the response is not positive.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for named, _, steps, values in _groups(curve, response, by):
        found = _read(steps, values.mean(axis=1), response)
        count = values.shape[1]
        draws = [values[:, rng.integers(count, size=count)].mean(axis=1) for _ in range(n)]
        resampled = np.array([_read(steps, draw, response) for draw in draws])
        met = resampled[~np.isnan(resampled[:, 0])]
        row = named | {"response": response, "strength": found[0], "reached": len(met) / n, "images": count}
        for i, name in enumerate(READ, start=1):
            known = len(met) and not np.isnan(found[i])
            low, high = percentiles(met[:, i]) if known else (np.nan, np.nan)
            row |= {name: found[i], f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def images_at_response(
    curve: pd.DataFrame, *, response: float = 1.0, by: Sequence[str] = ("factor",)
) -> pd.DataFrame:
    """Return each image's cost at the strength where its group has moved by `response` on average.

    These are the values that `at_equal_response` averages, for paired tests over images. The arguments are
    the same. A group that never reaches the response has no rows.

    Returns:
        One row for each group and image: `by`, `image`, `strength`, `moved` and each of `READ`.

    Raises:
        ValueError: the response is not positive.
    """
    frames = [pd.DataFrame(columns=[*by, "image", "strength", "moved", *READ])]
    for named, images, steps, values in _groups(curve, response, by):
        strength = _read(steps, values.mean(axis=1), response)[0]
        if np.isnan(strength):
            continue
        i = min(np.searchsorted(steps, strength), len(steps) - 1)
        share = (strength - steps[i - 1]) / (steps[i] - steps[i - 1])
        frame = pd.DataFrame((1 - share) * values[i - 1] + share * values[i], columns=["moved", *READ])
        frame = frame.assign(**named, image=images, strength=strength)
        frames.append(frame[list(frames[0].columns)])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _groups(
    curve: pd.DataFrame, response: float, by: Sequence[str]
) -> Iterator[tuple[dict[str, Any], list[Any], np.ndarray, np.ndarray]]:
    """Yield names, images, strengths from 0, and values by strength, image and measure (`moved`, `READ`)."""
    if not response > 0:
        raise ValueError(f"response={response}: must be positive, in standard deviations of the factor")
    for key, group in curve.groupby(list(by), sort=False):
        tables = [group.pivot(index="step", columns="image", values=name) for name in ("moved", *READ)]
        steps = np.concatenate([[0.0], tables[0].index.to_numpy(float)])
        values = np.stack([table.to_numpy(float) for table in tables], axis=-1)
        first = group.drop_duplicates("image").set_index("image").reindex(tables[0].columns)
        none = np.zeros(len(first))
        start = np.stack([none, none, first["identity_unedited"], first["inversion_distance"]], axis=-1)
        named = dict(zip(by, key, strict=True))
        yield named, list(first.index), steps, np.concatenate([start[None], values])


def _read(steps: np.ndarray, curve: np.ndarray, response: float) -> np.ndarray:
    """Return strength and measures where the first column first reaches the response; nan if never."""
    moved = curve[:, 0]
    above = np.flatnonzero(moved >= response)
    if not len(above) or above[0] == 0:
        return np.full(curve.shape[1], np.nan)
    i = above[0]
    share = (response - moved[i - 1]) / (moved[i] - moved[i - 1])
    strength = steps[i - 1] + share * (steps[i] - steps[i - 1])
    return np.concatenate([[strength], (1 - share) * curve[i - 1, 1:] + share * curve[i, 1:]])


def front(table: pd.DataFrame, *, fidelity: str, editability: str) -> pd.DataFrame:
    """Return the table with `on_front`: whether no other row is as good in both columns and better in one.

    Args:
        table: one row per method (and space); rows with a missing value are never on the front.
        fidelity: name of a column in which higher is better.
    """
    points = table[[fidelity, editability]].to_numpy(float)
    as_good = (points[None] >= points[:, None]).all(axis=2)
    better = (points[None] > points[:, None]).any(axis=2)
    dominated = (as_good & better).any(axis=1)
    return table.assign(on_front=~dominated & ~np.isnan(points).any(axis=1))
