"""Measure edits against the ground truth, where arXiv 2211.11448, section 4.3, can only show images.

A render is inverted, edited and decoded. The evaluation networks measure whether the factor moved, what moved
with it, and whether the identity is kept. The renderer draws the same person with exactly that factor
changed, so the edit is also compared with the image that it should have given.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import ConstantInputWarning, spearmanr
from torch import Tensor

from clcae_lib.editing import Direction, apply, factor_column
from clcae_lib.editing.direction import Strength
from clcae_lib.evaluation.judges import Judges
from clcae_lib.evaluation.reconstruction import decode
from clcae_lib.evaluation.statistics import summarise
from clcae_lib.inversion import Inversion, Inverter
from clcae_lib.metrics import psnr

ENOUGH = 0.5
"""Response, in standard deviations, from which an edit of strength 1 counts as reached."""
MEASURES = ("moved", "reached", "leakage", "identity", "truth_distance", "truth_psnr")
PATH_MEASURES = (*MEASURES, "monotone", "rank", "path_length", "jump")
EFFECT = "effect."

Side = Literal["room", "up", "down"]


@dataclass(frozen=True)
class EditBench:
    """Inverted renders on which edits are measured.

    Attributes:
        inverter: inverter of the images; its generator decodes the codes.
        images: held-out renders, in [-1, 1].
        factors: true factors of the renders, in their units.
        judges: evaluation networks.
        space: space that is decoded: "w", "w_plus" or "f".
        inversion: codes of the images; found by the inverter if None.
    """

    inverter: Inverter
    images: Float[Tensor, "n 3 h w"]
    factors: Float[Tensor, "n k"]
    judges: Judges
    space: str = "f"
    inversion: Inversion | None = None

    @cached_property
    @torch.no_grad()
    def codes(self) -> Inversion:
        """The codes of the images."""
        return self.inverter.invert(self.images) if self.inversion is None else self.inversion

    @cached_property
    def unedited(self) -> Float[Tensor, "n 3 h w"]:
        """The reconstructions of the images."""
        return decode(self.inverter, self.codes, self.space)

    @cached_property
    def readings(self) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """The factors read off the images and off their reconstructions, in standard deviations."""
        return self.judges.factors(self.images), self.judges.factors(self.unedited)

    def edited(self, direction: Direction, strength: Strength) -> Float[Tensor, "n 3 h w"]:
        """Return the images of an edit, one strength for all images or one for each."""
        return decode(
            self.inverter, apply(self.inverter.generator, self.codes, direction, strength), self.space
        )


def true_edit(
    judges: Judges,
    factors: Float[Tensor, "n k"],
    name: str,
    *,
    strength: float | int = 1.0,
    side: Side = "room",
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
    """Return the sign of each image's edit, and its factors with only that one changed, kept in its range.

    Args:
        judges: evaluation networks of the world that has the factors.
        factors: true factors, in their units.
        name: name of the factor that is changed.
        strength: change in standard deviations of the factor.
        side: "up" raises the factor, "down" lowers it, "room" takes for each image the side with more room
            before the end of the factor's range.

    Raises:
        ValueError: `side` or `name` is unknown.
    """
    world = judges.world
    if side not in ("room", "up", "down"):
        raise ValueError(f'side={side!r} is not one of "room", "up", "down"')
    column = factor_column(world, name)
    low, high = world.factor_low[column].item(), world.factor_high[column].item()
    value = factors[:, column]
    up = {"room": value <= (low + high) / 2, "up": value == value, "down": value != value}[side]
    signs = torch.where(up, 1.0, -1.0)
    changed = factors.clone()
    changed[:, column] = (value + signs * strength * world.factor_std[column]).clamp(low, high)
    return signs, changed


def measure_edits(
    bench: EditBench,
    directions: Mapping[str, Direction],
    *,
    strength: float | int = 1.0,
    side: Side = "room",
) -> pd.DataFrame:
    """Return one row for each image and edited factor.

    Factors are read by the attribute regressor, in standard deviations, and compared with the unedited
    reconstruction; signs are such that the wanted way is positive. Columns: `image`, `factor`, `space`,
    `strength` (signed), `wanted` (the true edit: less than the strength at the end of the factor's range),
    `moved`, `moved_from_original` (from the image itself, so with the inversion's error), `reached` (moved by
    half a standard deviation), `leakage` (root mean square over the other state factors), `leakage_truth`
    (the same between the image and its true edit, the regressor's own error), `identity` (similarity to the
    image), `identity_unedited` (that of the reconstruction), `truth_distance` and `truth_psnr` (to the true
    edit), `inversion_distance` (reconstruction to image), `perceptual_name`, and `effect.NAME`, the movement
    of every factor.

    Args:
        bench: inverted renders.
        directions: calibrated directions, by the factor that they change.
        strength: strength of every edit, in standard deviations of its factor; positive.
        side: side that each factor is moved to, as in `true_edit`.

    Raises:
        ValueError: `side` or a factor is unknown.
    """
    shared = {
        "image": range(len(bench.images)),
        "space": bench.space,
        "identity_unedited": bench.judges.similarity(bench.unedited, bench.images).tolist(),
        "inversion_distance": bench.judges.distance(bench.unedited, bench.images).tolist(),
        "perceptual_name": bench.judges.perceptual_name,
    }
    frames = []
    for name, direction in directions.items():
        signs, truth = true_edit(bench.judges, bench.factors, name, strength=strength, side=side)
        columns = _compare(bench, name, signs, bench.edited(direction, signs * strength), truth)
        frames.append(pd.DataFrame({**shared, "strength": (signs * strength).tolist(), **columns}))
    return pd.concat(frames, ignore_index=True)


def measure_curve(
    bench: EditBench,
    directions: Mapping[str, Direction],
    *,
    strengths: Sequence[float | int] = (0.5, 1.0, 1.5, 2.0, 3.0),
    side: Side = "room",
) -> pd.DataFrame:
    """Return the rows of `measure_edits` at every strength, with the column `step`: the unsigned strength.

    Args:
        bench, directions, side: as in `measure_edits`.
        strengths: positive, rising strengths, in standard deviations of the factor.

    Raises:
        ValueError: the strengths are not positive and rising.
    """
    if not strengths or min(strengths) <= 0 or sorted(set(strengths)) != list(strengths):
        raise ValueError(f"strengths={list(strengths)}: give positive values that rise")
    frames = [
        measure_edits(bench, directions, strength=strength, side=side).assign(step=float(strength))
        for strength in strengths
    ]
    return pd.concat(frames, ignore_index=True)


def measure_paths(
    bench: EditBench,
    directions: Mapping[str, Direction],
    *,
    strengths: Sequence[float | int] = (-1.0, -0.5, 0.0, 0.5, 1.0),
) -> pd.DataFrame:
    """Return one row for each image and edited factor, measured along a symmetric range of strengths.

    The columns of `measure_edits` that belong to an edit are for strength 1 toward the side with room. The
    others follow the path of images from the lowest strength to the highest:

    * `monotone`: whether the factor, as the attribute regressor reads it, rises at every step;
    * `rank`: Spearman's correlation, -1 to 1, of strengths and readings; nan if all readings are equal. For
      both, readings are rounded to 1e-4 standard deviations, so that rounding errors of the decoding are
      ties;
    * `path_length`: perceptual distance of neighbouring images divided by the squared step of strength,
      averaged over steps, after the perceptual path length of StyleGAN (arXiv 1812.04948, section 4.1). It
      does not depend on the size of small steps. Lower is smoother, but an edit without effect has 0;
    * `jump`: the largest root of those distances over their mean root. 1 is an even path (or an unchanged
      image), the number of steps is a path with one abrupt change.

    Args:
        bench, directions: as in `measure_edits`.
        strengths: strengths that rise by equal steps and include -1, 0 and 1.

    Raises:
        ValueError: the strengths are not such a range, or a factor is unknown.
    """
    strengths = [float(s) for s in strengths]
    steps = torch.tensor(strengths).diff()
    if not {-1.0, 0.0, 1.0} <= set(strengths) or steps.min() <= 0 or steps.max() - steps.min() > 1e-4:
        raise ValueError(f"strengths={strengths}: they must rise by equal steps, with -1, 0 and 1 among them")
    frames = []
    for name, direction in directions.items():
        signs, truth = true_edit(bench.judges, bench.factors, name)
        path = [bench.unedited if s == 0 else bench.edited(direction, s) for s in strengths]
        up, down = (path[strengths.index(end)] for end in (1.0, -1.0))
        edited = torch.where(signs.view(-1, 1, 1, 1) > 0, up, down)
        columns = _compare(bench, name, signs, edited, truth) | _follow(bench.judges, name, path)
        columns |= _smoothness(bench.judges, path, strengths[1] - strengths[0])
        frames.append(pd.DataFrame({"image": range(len(bench.images)), "space": bench.space, **columns}))
    return pd.concat(frames, ignore_index=True)


def _compare(
    bench: EditBench, name: str, signs: Tensor, edited: Tensor, truth: Tensor
) -> dict[str, str | list[float]]:
    """Return the columns that belong to one edited factor."""
    judges, (original, unedited) = bench.judges, bench.readings
    column = factor_column(judges.world, name)
    others = [k for k in judges.state_columns if k != column]
    after, goal = judges.factors(edited), judges.world.render(truth)
    moved = signs[:, None] * (after - unedited)
    wanted = signs * (truth - bench.factors)[:, column] / judges.world.factor_std[column]
    crosstalk = (judges.factors(goal) - original)[:, others]
    return {
        "factor": name,
        "wanted": wanted.tolist(),
        "moved": moved[:, column].tolist(),
        "moved_from_original": (signs * (after - original)[:, column]).tolist(),
        "reached": (moved[:, column] >= ENOUGH).tolist(),
        "leakage": moved[:, others].square().mean(dim=1).sqrt().tolist(),
        "leakage_truth": crosstalk.square().mean(dim=1).sqrt().tolist(),
        "identity": judges.similarity(edited, bench.images).tolist(),
        "truth_distance": judges.distance(edited, goal).tolist(),
        "truth_psnr": psnr(edited, goal).tolist(),
        **{f"{EFFECT}{n}": moved[:, k].tolist() for k, n in enumerate(judges.world.factor_names)},
    }


def _follow(judges: Judges, name: str, path: Sequence[Tensor]) -> dict[str, list]:
    """Return whether the factor follows the strength."""
    column = factor_column(judges.world, name)
    readings = torch.stack([judges.factors(images)[:, column] for images in path], dim=1).double()
    readings = readings.round(decimals=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)  # its correlation is nan
        correlation = [float(spearmanr(range(len(path)), row).statistic) for row in readings.numpy()]
    return {"monotone": (readings.diff(dim=1) > 0).all(dim=1).tolist(), "rank": correlation}


def _smoothness(judges: Judges, path: Sequence[Tensor], step: float) -> dict[str, list[float]]:
    """Return how far and how evenly the images change along the path."""
    distances = torch.stack([judges.distance(a, b) for a, b in pairwise(path)], dim=1).clamp(min=0)
    roots = distances.sqrt()
    jump = roots.amax(dim=1) / roots.mean(dim=1).clamp(min=1e-9)
    still = roots.amax(dim=1) < 1e-9
    return {
        "path_length": (distances.mean(dim=1) / step**2).tolist(),
        "jump": torch.where(still, 1.0, jump).tolist(),
    }


def summarise_edits(frame: pd.DataFrame, *, by: Sequence[str] = ("factor",), seed: int = 0) -> pd.DataFrame:
    """Return the mean of each measure of `measure_edits` with its 95 % bootstrap interval."""
    return summarise(frame, by=by, columns=MEASURES, seed=seed)


def summarise_paths(frame: pd.DataFrame, *, by: Sequence[str] = ("factor",), seed: int = 0) -> pd.DataFrame:
    """Return the mean of each measure of `measure_paths` with its 95 % bootstrap interval."""
    return summarise(frame, by=by, columns=PATH_MEASURES, n=500, seed=seed)


def effect_matrix(frame: pd.DataFrame, *, factors: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the mean movement of factors (columns) under the edits (rows) of `measure_edits`, in sd."""
    names = [c.removeprefix(EFFECT) for c in frame.columns if c.startswith(EFFECT)]
    kept = names if factors is None else list(factors)
    table = frame.groupby("factor", sort=False)[[f"{EFFECT}{name}" for name in kept]].mean()
    return table.set_axis(kept, axis=1)
