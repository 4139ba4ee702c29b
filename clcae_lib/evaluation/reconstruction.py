"""How faithfully an inverter reproduces pictures, in each space (arXiv 2211.11448, section 4.2)."""

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.evaluation.judges import Judges
from clcae_lib.inversion import Inversion, Inverter
from clcae_lib.metrics import mse, psnr, r_squared, ssim


@torch.no_grad()
def evaluate_inversion(
    inverter: Inverter,
    images: Float[Tensor, "n 3 h w"],
    *,
    judges: Judges,
    factors: Float[Tensor, "n k"] | None = None,
    inversion: Inversion | None = None,
    batch_size: int = 32,
) -> pd.DataFrame:
    """One row for each image and space.

    Columns: `image` (its row), `space` ("w", "w_plus" or "f"), `mse` (on [-1, 1]), `psnr` (dB), `ssim`,
    `perceptual` (a distance, called by `perceptual_name`), `identity` (cosine similarity to the original),
    and, where the true factors are given, `factor_error`: the root mean square over the state factors of
    what the oracle reads off the reconstruction less the truth, in standard deviations;
    `factor_error_render` is the same for the original itself, the part that is the oracle's own.

    Args:
        inverter: finds the codes, and has the generator that decodes them.
        images: in [-1, 1].
        judges: the copies that measure.
        factors: true factors, in their units.
        inversion: the codes, where they have been found already.
        batch_size: pictures decoded at once.
    """
    inversion = inverter.invert(images) if inversion is None else inversion
    frames = []
    for space in inversion.spaces:
        pictures = decode(inverter, inversion, space, batch_size=batch_size)
        columns = _compare(pictures, images, judges) | _factor_errors(pictures, images, factors, judges)
        frames.append(pd.DataFrame({"image": range(len(images)), "space": space, **columns}))
    return pd.concat(frames, ignore_index=True).assign(perceptual_name=judges.perceptual_name)


@torch.no_grad()
def decode(
    inverter: Inverter, inversion: Inversion, space: str, *, batch_size: int = 32
) -> Float[Tensor, "n 3 h w"]:
    """The pictures of an inversion in one space, on the CPU, clipped to [-1, 1] as a saved picture is."""
    starts = range(0, len(inversion), batch_size)
    parts = [inversion[slice(i, i + batch_size)].decode(inverter.generator, space).cpu() for i in starts]
    return torch.cat(parts).clamp(-1, 1)


def oracle_check(
    pictures: Float[Tensor, "n 3 h w"],
    images: Float[Tensor, "n 3 h w"],
    factors: Float[Tensor, "n k"],
    *,
    judges: Judges,
) -> pd.DataFrame:
    """How well the oracle reads each state factor, off renders and off their reconstructions.

    A judge that is right on renders might still misread what a generator draws; then `r2_inversions` falls
    far below `r2_renders`, and measures of edits mean little. Columns: `factor`, `r2_renders`,
    `r2_inversions`.

    Args:
        pictures: reconstructions of `images`.
        images: renders.
        factors: their true factors, in their units.
        judges: the copies that measure.
    """
    truth = factors / judges.world.factor_std
    rows = {
        name: r_squared(judges.factors(x), truth)
        for name, x in (("renders", images), ("inversions", pictures))
    }
    return pd.DataFrame(
        {
            "factor": list(judges.world.state_names),
            **{f"r2_{name}": values[judges.state_columns].tolist() for name, values in rows.items()},
        }
    )


def _compare(pictures: Tensor, images: Tensor, judges: Judges) -> dict[str, list[float]]:
    return {
        "mse": mse(pictures, images).tolist(),
        "psnr": psnr(pictures, images).tolist(),
        "ssim": ssim(pictures, images).tolist(),
        "perceptual": judges.distance(pictures, images).tolist(),
        "identity": judges.similarity(pictures, images).tolist(),
    }


def _factor_errors(
    pictures: Tensor, images: Tensor, factors: Tensor | None, judges: Judges
) -> dict[str, list[float]]:
    if factors is None:
        return {}
    truth, columns = factors / judges.world.factor_std, judges.state_columns
    return {
        name: (judges.factors(x) - truth)[:, columns].square().mean(dim=1).sqrt().tolist()
        for name, x in (("factor_error", pictures), ("factor_error_render", images))
    }
