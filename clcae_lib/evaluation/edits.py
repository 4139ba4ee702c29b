"""Measure edits against the ground truth, which arXiv 2211.11448, section 4.3, does not have.

A render is inverted, edited and decoded. The evaluation networks measure whether the factor moved, which
other factors moved, and whether the identity is kept. The renderer draws the same person with only that
factor changed: the true edit, with which the edited image is compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.editing import Direction, apply, factor_column
from clcae_lib.editing.direction import Strength
from clcae_lib.evaluation.judges import Judges
from clcae_lib.evaluation.reconstruction import decode
from clcae_lib.inversion import Inversion, Inverter
from clcae_lib.metrics import psnr

ENOUGH = 0.5
"""Minimum movement of the factor, in standard deviations, for `reached`."""
EFFECT = "effect."


@dataclass(frozen=True)
class EditBench:
    """Inverted renders on which edits are measured.

    Attributes:
        inverter: inverter of the images; its generator decodes the codes.
        images: held-out renders, in [-1, 1].
        factors: true factors of the renders, in their units.
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

    @cached_property
    def identities(self) -> Float[Tensor, "n e"]:
        """The identity embeddings of the images."""
        return self.judges.embed(self.images)

    def identity(self, shown: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the identity similarity of each of these images to the bench's image."""
        return (self.judges.embed(shown) * self.identities).sum(dim=1)

    def edited(self, direction: Direction, strength: Strength) -> Float[Tensor, "n 3 h w"]:
        """Return the images of an edit, one strength for all images or one for each."""
        codes = apply(self.inverter.generator, self.codes, direction, strength)
        return decode(self.inverter, codes, self.space)


def true_edit(
    judges: Judges, factors: Float[Tensor, "n k"], name: str, *, strength: float | int = 1.0
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
    """Return the sign of each image's edit, and its factors with only that one changed, within its range.

    The sign points to the farther end of the factor's range.

    Args:
        factors: true factors, in their units.
        strength: change in standard deviations of the factor; a negative one goes the opposite way.

    Raises:
        ValueError: `name` is unknown.
    """
    world = judges.world
    column = factor_column(world, name)
    low, high = world.factor_low[column].item(), world.factor_high[column].item()
    value = factors[:, column]
    signs = torch.where(value <= (low + high) / 2, 1.0, -1.0)
    changed = factors.clone()
    changed[:, column] = (value + signs * strength * world.factor_std[column]).clamp(low, high)
    return signs, changed


def measure_edits(
    bench: EditBench, directions: Mapping[str, Direction], *, strength: float | int = 1.0
) -> pd.DataFrame:
    """Return one row for each image and edited factor.

    Factors are read by the attribute regressor, in standard deviations, and compared with the unedited
    reconstruction; movement in the wanted direction is positive. Columns: `image`, `factor`, `space`,
    `strength` (signed), `moved`, `moved_from_original` (from the image itself, so with the inversion's
    error), `wanted` (movement of the true edit: the mean of `moved`, or less at the end of the factor's
    range), `reached` (moved by half a standard deviation), `leakage` (root mean square over the other state
    factors), `leakage_truth` (the same between the image and its true edit, the regressor's own error),
    `identity` (similarity to the image), `identity_unedited` (that of the reconstruction), `identity_truth`
    (that of the true edit), `truth_distance` and `truth_psnr` (to the true edit), `inversion_distance`
    (reconstruction to image), `perceptual_name`, and `effect.NAME`, the movement of every factor.

    The true edit has the edit's response, not its strength.

    Args:
        directions: calibrated directions, by the factor that they change.
        strength: strength of every edit, in standard deviations of its factor; positive.

    Raises:
        ValueError: a factor is unknown.
    """
    shared = {
        "image": range(len(bench.images)),
        "space": bench.space,
        "identity_unedited": bench.identity(bench.unedited).tolist(),
        "inversion_distance": bench.judges.distance(bench.unedited, bench.images).tolist(),
        "perceptual_name": bench.judges.perceptual_name,
    }
    frames = []
    for name, direction in directions.items():
        signs, _ = true_edit(bench.judges, bench.factors, name)
        columns = _compare(bench, name, signs, bench.edited(direction, signs * strength))
        frames.append(pd.DataFrame({**shared, "strength": (signs * strength).tolist(), **columns}))
    return pd.concat(frames, ignore_index=True)


def measure_curve(
    bench: EditBench,
    directions: Mapping[str, Direction],
    *,
    strengths: Sequence[float | int] = (0.5, 1.0, 1.5, 2.0, 3.0),
) -> pd.DataFrame:
    """Return the rows of `measure_edits` at every strength, with the unsigned strength in column `step`.

    Args:
        strengths: positive, rising strengths, in standard deviations of the factor.

    Raises:
        ValueError: the strengths are not positive and rising.
    """
    if not strengths or min(strengths) <= 0 or sorted(set(strengths)) != list(strengths):
        raise ValueError(f"strengths={list(strengths)}: give positive values in rising order")
    frames = [
        measure_edits(bench, directions, strength=strength).assign(step=float(strength))
        for strength in strengths
    ]
    return pd.concat(frames, ignore_index=True)


def _compare(bench: EditBench, name: str, signs: Tensor, edited: Tensor) -> dict[str, str | list[float]]:
    """Return the columns of `measure_edits` for one edited factor."""
    judges, (original, unedited) = bench.judges, bench.readings
    column = factor_column(judges.world, name)
    others = [k for k in judges.state_columns if k != column]
    after = judges.factors(edited)
    moved = signs[:, None] * (after - unedited)
    _, truth = true_edit(judges, bench.factors, name, strength=moved[:, column].mean().item())
    goal = judges.world.render(truth)
    wanted = signs * (truth - bench.factors)[:, column] / judges.world.factor_std[column]
    crosstalk = (judges.factors(goal) - original)[:, others]
    return {
        "factor": name,
        "moved": moved[:, column].tolist(),
        "moved_from_original": (signs * (after - original)[:, column]).tolist(),
        "wanted": wanted.tolist(),
        "reached": (moved[:, column] >= ENOUGH).tolist(),
        "leakage": moved[:, others].square().mean(dim=1).sqrt().tolist(),
        "leakage_truth": crosstalk.square().mean(dim=1).sqrt().tolist(),
        "identity": bench.identity(edited).tolist(),
        "identity_truth": bench.identity(goal).tolist(),
        "truth_distance": judges.distance(edited, goal).tolist(),
        "truth_psnr": psnr(edited, goal).tolist(),
        **{f"{EFFECT}{n}": moved[:, k].tolist() for k, n in enumerate(judges.world.factor_names)},
    }


def effect_matrix(frame: pd.DataFrame, *, factors: Sequence[str] | None = None) -> pd.DataFrame:
    """Return the mean movement of factors (columns) under the edits (rows) of `measure_edits`, in sd."""
    names = [c.removeprefix(EFFECT) for c in frame.columns if c.startswith(EFFECT)]
    kept = names if factors is None else list(factors)
    table = frame.groupby("factor", sort=False)[[f"{EFFECT}{name}" for name in kept]].mean()
    return table.set_axis(kept, axis=1)
