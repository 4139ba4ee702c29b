"""Measure how faithfully an inverter reproduces images, in each space (arXiv 2211.11448, section 4.2)."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.evaluation.judges import Judges, PairMeasure
from clcae_lib.inversion import Inversion, Inverter
from clcae_lib.metrics import ms_ssim, ms_ssim_scales, mse, psnr, r_squared, ssim
from clcae_lib.provenance import commit, device_text, versions
from clcae_lib.worlds.perceptual import LpipsAlex, find_alexnet

MEASURED = ("mse", "psnr", "ssim", "ms_ssim", "lpips", "perceptual", "identity")
ORIGIN = ("image", "method", "space", "seed", "world", "device", "versions", "commit")
NAMED = ("perceptual_name", "objective", "ms_ssim_scales")

DECODED = 32
"""Number of images decoded together."""


@torch.no_grad()
def decode(inverter: Inverter, inversion: Inversion, space: str) -> Float[Tensor, "n 3 h w"]:
    """Return the images of an inversion in one space, on the CPU, clipped to [-1, 1] as a saved image is."""
    parts = (inversion[i : i + DECODED] for i in range(0, len(inversion), DECODED))
    return torch.cat([part.decode(inverter.generator, space).cpu() for part in parts]).clamp(-1, 1)


@torch.no_grad()
def evaluate_inversion(
    inverter: Inverter,
    images: Float[Tensor, "n 3 h w"],
    *,
    judges: Judges,
    factors: Float[Tensor, "n k"] | None = None,
    inversion: Inversion | None = None,
    others: Mapping[str, PairMeasure] | None = None,
) -> pd.DataFrame:
    """Return one row for each image and space.

    Columns: `image` (its row), `space` ("w", "w_plus" or "f"), `mse` (on [-1, 1]), `psnr` (dB), `ssim`,
    `perceptual` (a distance, named by `perceptual_name`), `identity` (cosine similarity to the original),
    and, with true factors, `factor_error`: the root mean square error over the state factors that the
    attribute regressor reads off the reconstruction, in standard deviations; `factor_error_render` is the
    same for the original: the regressor's own error.

    Args:
        factors: true factors, in their units.
        inversion: codes of the images; found by the inverter if None.
        others: further measures of pairs of images, by the names of their columns.
    """
    inversion = inverter.invert(images) if inversion is None else inversion
    frames = []
    for space in inversion.spaces:
        decoded = decode(inverter, inversion, space)
        found = {
            "mse": mse(decoded, images),
            "psnr": psnr(decoded, images),
            "ssim": judges.measure_pairs(ssim, decoded, images),
            "perceptual": judges.distance(decoded, images),
            "identity": judges.similarity(decoded, images),
        }
        if factors is not None:
            truth, columns = factors / judges.world.factor_std, judges.state_columns
            for name, shown in (("factor_error", decoded), ("factor_error_render", images)):
                found[name] = (judges.factors(shown) - truth)[:, columns].square().mean(dim=1).sqrt()
        found |= {name: measure(decoded, images) for name, measure in (others or {}).items()}
        values = {name: column.tolist() for name, column in found.items()}
        frames.append(pd.DataFrame({"image": range(len(images)), "space": space, **values}))
    return pd.concat(frames, ignore_index=True).assign(perceptual_name=judges.perceptual_name)


@torch.no_grad()
def reconstruction_records(
    inverter: Inverter,
    images: Float[Tensor, "n 3 h w"],
    *,
    method: str,
    seed: int,
    judges: Judges,
    image_ids: Sequence[str] | None = None,
    inversion: Inversion | None = None,
) -> pd.DataFrame:
    """Return one row for each image and space with the columns `ORIGIN`, `MEASURED` and `NAMED`.

    Errors are on [-1, 1], PSNR is in dB, identity is a cosine. `perceptual` is the world's own distance,
    named by `perceptual_name`; `lpips` is nan without AlexNet's weights. `objective` names the perceptual
    distance that a method minimised for each image; it is empty for an encoder.

    Args:
        image_ids: permanent name of each image, such as "test/17"; its row if None.

    Raises:
        ValueError: there are not as many names as images, or a name occurs twice.
    """
    names = list(map(str, range(len(images)))) if image_ids is None else list(image_ids)
    if len(names) != len(images) or len(set(names)) != len(names):
        raise ValueError(
            f"image_ids: {len(names)} names for {len(images)} images; give one different name for each image"
        )
    scales = partial(judges.measure_pairs, ms_ssim)
    others: dict[str, PairMeasure] = {"ms_ssim": scales, "lpips": lambda a, b: torch.full([len(a)], math.nan)}
    if weights := find_alexnet():
        others["lpips"] = partial(judges.measure_pairs, LpipsAlex(weights).to(judges.device))
    frame = evaluate_inversion(inverter, images, judges=judges, inversion=inversion, others=others)
    facts = {"method": method, "seed": seed, "world": judges.world.name}
    facts |= {"device": device_text(str(judges.device)), "versions": versions(), "commit": commit()}
    facts |= {"objective": getattr(inverter, "objective", "")}
    facts |= {"ms_ssim_scales": ms_ssim_scales(images.shape[-1])}
    frame = frame.assign(image=[names[row] for row in frame["image"]], **facts)
    return frame[[*ORIGIN, *MEASURED, *NAMED]]


def oracle_check(
    decoded: Float[Tensor, "n 3 h w"],
    images: Float[Tensor, "n 3 h w"],
    factors: Float[Tensor, "n k"],
    *,
    judges: Judges,
) -> pd.DataFrame:
    """Return how well the attribute regressor reads each state factor off renders and their reconstructions.

    Columns: `factor`, `r2_renders`, `r2_inversions`. If `r2_inversions` is far below `r2_renders`, the
    regressor misreads what the generator draws, and measures of edits mean little.

    Args:
        factors: true factors of the renders, in their units.
    """
    truth, columns = factors / judges.world.factor_std, judges.state_columns
    table = {"factor": list(judges.world.state_names)}
    for name, shown in (("renders", images), ("inversions", decoded)):
        table[f"r2_{name}"] = r_squared(judges.factors(shown), truth)[columns].tolist()
    return pd.DataFrame(table)
