"""Edits measured against the truth, where arXiv 2211.11448, section 4.3, can only show pictures.

A portrait is inverted, edited and decoded. The judges that measure then say whether the factor moved, what
moved with it, and whether it is still the same person; and since the renderer can draw the portrait with
exactly that factor changed, the edit is compared with what it should have been.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.editing import Direction, apply
from clcae_lib.evaluation.judges import Judges
from clcae_lib.evaluation.reconstruction import decode
from clcae_lib.evaluation.statistics import summarise
from clcae_lib.inversion import Inversion, Inverter
from clcae_lib.metrics import psnr

ENOUGH = 0.5
"""An edit of strength 1 counts as done from half a standard deviation on."""
MEASURES = ("moved", "reached", "leakage", "identity", "truth_distance", "truth_psnr")
EFFECT = "effect."

Side = Literal["room", "up", "down"]


@torch.no_grad()
def measure_edits(
    inverter: Inverter,
    directions: Mapping[str, Direction],
    images: Float[Tensor, "n 3 h w"],
    factors: Float[Tensor, "n k"],
    *,
    judges: Judges,
    strength: float | int = 1.0,
    side: Side = "room",
    space: str = "f",
    inversion: Inversion | None = None,
) -> pd.DataFrame:
    """One row for each image and edited factor.

    Factors are measured in standard deviations, by the oracle that measures, against the unedited
    reconstruction; signs are turned so that the way wanted is positive. Columns: `image`, `factor`, `space`,
    `strength` (signed), `wanted` (the true edit: less than the strength where the factor meets its end),
    `moved`, `moved_from_original` (against the portrait itself, so with the inversion's error), `reached`
    (moved by half a standard deviation), `leakage` (root mean square over the other state factors),
    `leakage_truth` (the same between the portrait and its true edit: what of it is the oracle's own),
    `identity` (similarity to the portrait), `identity_unedited` (that of the reconstruction),
    `truth_distance` and `truth_psnr` (to the true edit), `inversion_distance` (reconstruction to portrait),
    `perceptual_name`, and `effect.NAME`, the movement of every factor.

    Args:
        inverter: finds the codes, and has the generator that decodes them.
        directions: calibrated, by the factor they change.
        images: held-out renders in [-1, 1].
        factors: their true factors, in their units.
        judges: the copies that measure.
        strength: of every edit, in standard deviations of its factor; positive.
        side: "up" raises the factor, "down" lowers it, "room" takes the side with more room before the
            factor's end, portrait by portrait: nobody's glasses can be put on twice.
        space: what is decoded.
        inversion: the codes, where they have been found already.

    Raises:
        ValueError: `side` is not one of the three, or a factor is unknown.
    """
    inversion = inverter.invert(images) if inversion is None else inversion
    plain = decode(inverter, inversion, space)
    before = {"portrait": judges.factors(images), "plain": judges.factors(plain)}
    shared = {
        "image": range(len(images)),
        "space": space,
        "identity_unedited": judges.similarity(plain, images).tolist(),
        "inversion_distance": judges.distance(plain, images).tolist(),
        "perceptual_name": judges.perceptual_name,
    }
    frames = []
    for name, direction in directions.items():
        signs, truth = true_edit(judges, factors, name, strength=strength, side=side)
        edited = apply(inverter.generator, inversion, direction, (signs * strength).to(inversion.w))
        picture = decode(inverter, edited, space)
        columns = _measure(judges, name, signs, before, images, picture, truth, factors)
        frames.append(pd.DataFrame({**shared, "strength": (signs * strength).tolist(), **columns}))
    return pd.concat(frames, ignore_index=True)


def true_edit(
    judges: Judges,
    factors: Float[Tensor, "n k"],
    name: str,
    *,
    strength: float | int = 1.0,
    side: Side = "room",
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
    """The sign of each portrait's edit, and its factors with exactly that one changed, kept in its range.

    Args:
        judges: name the world and so the factors.
        factors: true factors, in their units.
        name: of the factor to change.
        strength: in standard deviations.
        side: "room", "up" or "down", as in `measure_edits`.

    Raises:
        ValueError: `side` or `name` is unknown.
    """
    world = judges.world
    if name not in world.factor_names or side not in ("room", "up", "down"):
        raise ValueError(
            f'factor {name!r}, side {side!r}: {", ".join(world.factor_names)}; "room", "up", "down"'
        )
    column = list(world.factor_names).index(name)
    low, high = world.factor_low[column].item(), world.factor_high[column].item()
    value = factors[:, column]
    up = {"room": value <= (low + high) / 2, "up": value == value, "down": value != value}[side]
    signs = torch.where(up, 1.0, -1.0)
    changed = factors.clone()
    changed[:, column] = (value + signs * strength * world.factor_std[column]).clamp(low, high)
    return signs, changed


def _measure(
    judges: Judges,
    name: str,
    signs: Tensor,
    before: Mapping[str, Tensor],
    images: Tensor,
    picture: Tensor,
    truth: Tensor,
    factors: Tensor,
) -> dict[str, object]:
    """The columns that belong to one edited factor."""
    column = list(judges.world.factor_names).index(name)
    others = [k for k in judges.state_columns if k != column]
    after, goal = judges.factors(picture), judges.world.render(truth)
    moved = signs[:, None] * (after - before["plain"])
    wanted = signs * (truth - factors)[:, column] / judges.world.factor_std[column]
    crosstalk = (judges.factors(goal) - before["portrait"])[:, others]
    return {
        "factor": name,
        "wanted": wanted.tolist(),
        "moved": moved[:, column].tolist(),
        "moved_from_original": (signs * (after - before["portrait"])[:, column]).tolist(),
        "reached": (moved[:, column] >= ENOUGH).tolist(),
        "leakage": moved[:, others].square().mean(dim=1).sqrt().tolist(),
        "leakage_truth": crosstalk.square().mean(dim=1).sqrt().tolist(),
        "identity": judges.similarity(picture, images).tolist(),
        "truth_distance": judges.distance(picture, goal).tolist(),
        "truth_psnr": psnr(picture, goal).tolist(),
        **{f"{EFFECT}{n}": moved[:, k].tolist() for k, n in enumerate(judges.world.factor_names)},
    }


def summarise_edits(frame: pd.DataFrame, *, by: Sequence[str] = ("factor",), seed: int = 0) -> pd.DataFrame:
    """The mean of each measure of `measure_edits` with its 95 % bootstrap interval, one row for each.

    Args:
        frame: from `measure_edits`, or several of them joined, with further columns such as a method's name.
        by: the columns that name a group.
        seed: of the bootstrap.
    """
    return summarise(frame, by=by, columns=MEASURES, seed=seed)


def effect_matrix(frame: pd.DataFrame, *, factors: Sequence[str] | None = None) -> pd.DataFrame:
    """Mean movement of every measured factor (columns) under every edit (rows), in standard deviations.

    Args:
        frame: from `measure_edits`.
        factors: the measured factors to keep; None for all.
    """
    names = [c.removeprefix(EFFECT) for c in frame.columns if c.startswith(EFFECT)]
    kept = names if factors is None else list(factors)
    table = frame.groupby("factor", sort=False)[[f"{EFFECT}{name}" for name in kept]].mean()
    return table.set_axis(kept, axis=1)
