"""Edits along their strength, compared where they do equally much, and the front of fidelity and editability.

A direction that moves its factor little also disturbs little. So methods are compared not at equal strength
but at equal response: the strength is found at which the factor has moved by the same amount, and the other
measures are read there.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from clcae_lib.editing import Direction
from clcae_lib.evaluation.editability import Side, measure_edits
from clcae_lib.evaluation.judges import Judges
from clcae_lib.inversion import Inversion, Inverter

READ = ("leakage", "identity", "truth_distance")
"""What `at_equal_response` reads off the curves."""


def measure_curve(
    inverter: Inverter,
    directions: Mapping[str, Direction],
    images: Float[Tensor, "n 3 h w"],
    factors: Float[Tensor, "n k"],
    *,
    judges: Judges,
    strengths: Sequence[float | int] = (0.5, 1.0, 1.5, 2.0, 3.0),
    side: Side = "room",
    space: str = "f",
    inversion: Inversion | None = None,
) -> pd.DataFrame:
    """The rows of `measure_edits` at every strength, with the column `step`: the strength without its sign.

    `truth_distance` compares with the true edit of that same strength; pictures whose factor meets its
    end have a truth that stops there too.

    Args:
        strengths: positive and rising; the others are as in `measure_edits`.

    Raises:
        ValueError: the strengths are not positive and rising.
    """
    if not strengths or min(strengths) <= 0 or sorted(set(strengths)) != list(strengths):
        raise ValueError(f"strengths={list(strengths)}: give positive values that rise")
    inversion = inverter.invert(images) if inversion is None else inversion
    shared = {"judges": judges, "side": side, "space": space, "inversion": inversion}
    frames = [
        measure_edits(inverter, directions, images, factors, strength=strength, **shared).assign(
            step=float(strength)
        )
        for strength in strengths
    ]
    return pd.concat(frames, ignore_index=True)


def at_equal_response(
    curve: pd.DataFrame,
    *,
    response: float = 1.0,
    by: Sequence[str] = ("factor",),
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """What an edit costs at the strength where the factor has moved by `response` on average.

    In each group the measures are averaged over images at every strength, with the unedited reconstruction at
    strength 0 where its value is known. Between strengths they are linear; the strength at which mean `moved`
    first meets the response gives the others. A curve that never gets there has no value, never an
    extrapolated one. Intervals come from resampling the images and repeating all of this.

    Returns:
        One row for each group: `by`, `strength` and, for each of `READ`, its value, `..._low` and `..._high`;
        `reached`, the share of resamples in which the response was met (intervals are over those alone);
        `response`, `images`.

    Raises:
        ValueError: the response is not positive.
    """
    if not response > 0:
        raise ValueError(f"response={response}: must be positive, in standard deviations of the factor")
    rng = np.random.default_rng(seed)
    rows = []
    for key, group in curve.groupby(list(by), sort=False):
        steps, values = _table(group)
        found = _read(steps, values.mean(axis=1), response)
        count = values.shape[1]
        draws = [values[:, rng.integers(count, size=count)].mean(axis=1) for _ in range(n)]
        resampled = np.array([_read(steps, draw, response) for draw in draws])
        met = resampled[~np.isnan(resampled[:, 0])]
        row = dict(zip(by, key, strict=True)) | {"response": response, "strength": found[0]}
        row |= {"reached": len(met) / n, "images": count}
        for i, name in enumerate(READ, start=1):
            ends = np.quantile(met[:, i], [(1 - level) / 2, (1 + level) / 2]) if len(met) else [np.nan] * 2
            known = not np.isnan(found[i])
            row |= {name: found[i]} | {
                f"{name}_{end}": value if known else np.nan
                for end, value in zip(("low", "high"), ends, strict=True)
            }
        rows.append(row)
    return pd.DataFrame(rows)


def images_at_response(
    curve: pd.DataFrame, *, response: float = 1.0, by: Sequence[str] = ("factor",)
) -> pd.DataFrame:
    """What each picture's edit costs at the strength where its group has moved by `response` on average.

    This is `at_equal_response` before its means are taken, for paired tests over pictures: all pictures of a
    group are read at one strength, between strengths linearly. A group that never gets there has no rows.

    Args:
        curve: from `measure_curve`, or several of them joined.
        response: in standard deviations of the factor.
        by: the columns that name a group.

    Returns:
        One row for each group and image: `by`, `image`, `strength`, `moved` and each of `READ`.

    Raises:
        ValueError: the response is not positive.
    """
    if not response > 0:
        raise ValueError(f"response={response}: must be positive, in standard deviations of the factor")
    frames = [pd.DataFrame(columns=[*by, "image", "strength", "moved", *READ])]
    for key, group in curve.groupby(list(by), sort=False):
        steps, values = _table(group)
        strength = _read(steps, values.mean(axis=1), response)[0]
        if np.isnan(strength):
            continue
        i = min(np.searchsorted(steps, strength), len(steps) - 1)
        share = (strength - steps[i - 1]) / (steps[i] - steps[i - 1])
        frame = pd.DataFrame((1 - share) * values[i - 1] + share * values[i], columns=["moved", *READ])
        named = dict(zip(by, key, strict=True)) | {"image": sorted(group["image"].unique())}
        frames.append(frame.assign(**named, strength=strength)[list(frames[0].columns)])
    return pd.concat(frames[1:] or frames, ignore_index=True)


def _table(group: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Strengths from 0 on, and the values by strength, image and measure (`moved`, then `READ`)."""
    names = ("moved", *READ)
    tables = [group.pivot(index="step", columns="image", values=name) for name in names]
    steps = np.concatenate([[0.0], tables[0].index.to_numpy(float)])
    values = np.stack([table.to_numpy(float) for table in tables], axis=-1)
    first = group.drop_duplicates("image").set_index("image").reindex(tables[0].columns)
    none = np.zeros(len(first))
    start = np.stack([none, none, first["identity_unedited"], first["inversion_distance"]], axis=-1)
    return steps, np.concatenate([start[None], values])


def _read(steps: np.ndarray, curve: np.ndarray, response: float) -> np.ndarray:
    """Strength and measures where the first column first meets the response; nan where it never does."""
    moved = curve[:, 0]
    above = np.flatnonzero(moved >= response)
    if not len(above) or above[0] == 0:
        return np.full(curve.shape[1], np.nan)
    i = above[0]
    share = (response - moved[i - 1]) / (moved[i] - moved[i - 1])
    strength = steps[i - 1] + share * (steps[i] - steps[i - 1])
    return np.concatenate([[strength], (1 - share) * curve[i - 1, 1:] + share * curve[i, 1:]])


def front(
    table: pd.DataFrame,
    *,
    fidelity: str,
    editability: str,
    higher: Sequence[bool] = (True, True),
) -> pd.DataFrame:
    """The table with `on_front`: whether no other row is at least as good in both columns and better in one.

    Args:
        table: one row a method (and space); rows with a missing value are never on the front.
        fidelity, editability: the two columns.
        higher: for each of the two, whether more is better.
    """
    signs = np.where(np.asarray(higher), 1.0, -1.0)
    points = table[[fidelity, editability]].to_numpy(float) * signs
    as_good = (points[None] >= points[:, None]).all(axis=2)
    better = (points[None] > points[:, None]).any(axis=2)
    dominated = (as_good & better).any(axis=1)
    return table.assign(on_front=~dominated & ~np.isnan(points).any(axis=1))
