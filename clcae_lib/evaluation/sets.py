"""Measure distances between sets of images, with all conditions that influence such a number.

Fréchet distances of the same images depend on the number of images, the resizing and the precision (Parmar et
al., arXiv 2104.11222).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from clcae_lib.editing import in_batches
from clcae_lib.evaluation.judges import Judges
from clcae_lib.metrics import frechet_distance, kernel_distance


@torch.no_grad()
def set_distances(
    images: Float[Tensor, "n 3 h w"],
    references: Float[Tensor, "m 3 h2 w2"],
    *,
    judges: Judges,
    count: int,
    seed: int = 0,
) -> dict[str, object]:
    """Return the Fréchet and kernel distances of two sets, with the conditions of the measurement.

    Features are pooled from the world's perceptual network in float32; distances are computed in float64. A
    Fréchet distance is biased upward for few images, so compare only rows with the same `count`; the kernel
    distance is unbiased.

    Args:
        references: images such as renders of the true edits; resized to the side of `images`.
        count: number of images drawn from each set, without replacement.

    Returns:
        `frechet`, `kernel`, and `count`, `seed`, `side`, `resize`, `dtype`, `features`, `dimensions`.

    Raises:
        ValueError: a set has fewer than `count` images, or `count` is below two.
    """
    if count < 2 or min(len(images), len(references)) < count:
        sizes = f"{len(images)} images and {len(references)} references"
        raise ValueError(f"count={count}: give 2 or more, and at most the size of each set ({sizes})")
    side = images.shape[-1]
    source = torch.Generator().manual_seed(seed)

    def pooled(part: Tensor) -> Tensor:
        if part.shape[-2:] != (side, side):
            options = {"mode": "bilinear", "antialias": True, "align_corners": False}
            part = interpolate(part, size=(side, side), **options)
        return judges.perceptual.pooled(part.to(judges.device).clamp(-1, 1)).cpu()

    drawn = [each[torch.randperm(len(each), generator=source)[:count]] for each in (images, references)]
    features = [in_batches(pooled, each) for each in drawn]
    resized = {each.shape[-1] for each in drawn} != {side}
    return {
        "frechet": frechet_distance(*features),
        "kernel": kernel_distance(*features),
        "count": count,
        "seed": seed,
        "side": side,
        "resize": "bilinear, antialiased" if resized else "none",
        "dtype": f"features {str(features[0].dtype).removeprefix('torch.')}, distances float64",
        "features": judges.perceptual_name,
        "dimensions": features[0].shape[1],
    }
