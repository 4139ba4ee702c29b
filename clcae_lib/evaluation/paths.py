"""A whole range of an edit measured, where `measure_edits` looks at one strength: does the factor follow?

The path of an edit is the row of pictures from the lowest strength to the highest. Path length follows the
perceptual path length of StyleGAN (arXiv 1812.04948, section 4.1), taken along the edit instead of at random.
"""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import ConstantInputWarning, spearmanr
from torch import Tensor

from clcae_lib.editing import Direction, apply
from clcae_lib.evaluation.editability import MEASURES, _measure, true_edit
from clcae_lib.evaluation.judges import Judges
from clcae_lib.evaluation.reconstruction import decode
from clcae_lib.evaluation.statistics import summarise
from clcae_lib.inversion import Inversion, Inverter

PATH_MEASURES = (*MEASURES, "monotone", "rank", "path_length", "jump")


@torch.no_grad()
def measure_paths(
    inverter: Inverter,
    directions: Mapping[str, Direction],
    images: Float[Tensor, "n 3 h w"],
    factors: Float[Tensor, "n k"],
    *,
    judges: Judges,
    strengths: Sequence[float | int] = (-1.0, -0.5, 0.0, 0.5, 1.0),
    space: str = "f",
    inversion: Inversion | None = None,
) -> pd.DataFrame:
    """One row for each image and edited factor, measured along a symmetric range of strengths.

    The columns of `measure_edits` that belong to an edit are there too, for strength 1 toward the side with
    room. The others:

    * `monotone`: whether the factor, as the oracle reads it, rises at every step of the range;
    * `rank`: Spearman's correlation, -1 to 1, of the strengths with what the oracle reads; nan where it reads
      the same at every strength. A factor that meets its end stops rising, so `monotone` is the harder of
      the two. For both, readings are rounded to 1e-4 standard deviations: what rounding errors of the
      decoding change is a tie;
    * `path_length`: the perceptual distance of neighbouring pictures of the path divided by the squared step
      of strength, averaged over steps. Such distances are squared lengths to first order, so this does not
      depend on how fine the steps are, if they are small. Lower is smoother, but a dead edit has 0: read it
      beside `moved`;
    * `jump`: the largest root of those distances, over their mean root. 1 is an even path; the number of
      steps, one where everything happens at once. A path that does not change at all counts as 1.

    Args:
        inverter: finds the codes, and has the generator that decodes them.
        directions: calibrated, by the factor they change.
        images: held-out renders in [-1, 1].
        factors: their true factors, in their units.
        judges: the copies that measure.
        strengths: the range, rising by equal steps, with -1, 0 and 1 in it.
        space: what is decoded: "w", "w_plus" or "f".
        inversion: the codes, where they have been found already.

    Raises:
        ValueError: the strengths are no such range, or a factor is unknown.
    """
    strengths = _checked(strengths)
    inversion = inverter.invert(images) if inversion is None else inversion
    plain = decode(inverter, inversion, space)
    before = {"portrait": judges.factors(images), "plain": judges.factors(plain)}
    frames = []
    for name, direction in directions.items():
        signs, truth = true_edit(judges, factors, name)
        path = [
            plain if s == 0 else decode(inverter, apply(inverter.generator, inversion, direction, s), space)
            for s in strengths
        ]
        up, down = (path[strengths.index(end)] for end in (1.0, -1.0))
        picture = torch.where(signs.view(-1, 1, 1, 1) > 0, up, down)
        columns = _measure(judges, name, signs, before, images, picture, truth, factors)
        columns |= _response(judges, name, path) | _smoothness(judges, path, strengths[1] - strengths[0])
        frames.append(pd.DataFrame({"image": range(len(images)), "space": space, **columns}))
    return pd.concat(frames, ignore_index=True)


def _checked(strengths: Sequence[float | int]) -> list[float]:
    values = [float(s) for s in strengths]
    steps = torch.tensor(values).diff()
    if not {-1.0, 0.0, 1.0} <= set(values) or steps.min() <= 0 or steps.max() - steps.min() > 1e-4:
        raise ValueError(f"strengths={values}: they must rise by equal steps, with -1, 0 and 1 among them")
    return values


def _response(judges: Judges, name: str, path: Sequence[Tensor]) -> dict[str, list]:
    """Whether, and how faithfully, the factor follows the strength."""
    column = list(judges.world.factor_names).index(name)
    readings = torch.stack([judges.factors(images)[:, column] for images in path], dim=1).double()
    readings = readings.round(decimals=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)  # its correlation is nan
        correlation = [float(spearmanr(range(len(path)), row).statistic) for row in readings.numpy()]
    return {"monotone": (readings.diff(dim=1) > 0).all(dim=1).tolist(), "rank": correlation}


def _smoothness(judges: Judges, path: Sequence[Tensor], step: float) -> dict[str, list[float]]:
    """How much pictures change along the path, and how unevenly."""
    pairs = pairwise(path)
    distances = torch.stack([judges.distance(a, b) for a, b in pairs], dim=1).clamp(min=0)
    roots = distances.sqrt()
    jump = roots.amax(dim=1) / roots.mean(dim=1).clamp(min=1e-9)
    still = roots.amax(dim=1) < 1e-9
    return {
        "path_length": (distances.mean(dim=1) / step**2).tolist(),
        "jump": torch.where(still, 1.0, jump).tolist(),
    }


def summarise_paths(
    frame: pd.DataFrame, *, by: Sequence[str] = ("factor",), resamples: int = 500, seed: int = 0
) -> pd.DataFrame:
    """The mean of each measure of `measure_paths` with its 95 % bootstrap interval, one row for each.

    Args:
        frame: from `measure_paths`, or several of them joined, with further columns such as a method's name.
        by: the columns that name a group.
        resamples: of each interval.
        seed: of the bootstrap.
    """
    return summarise(frame, by=by, columns=PATH_MEASURES, n=resamples, seed=seed)
