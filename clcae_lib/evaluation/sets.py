"""Distances between sets of pictures, with everything that changes such a number stated beside it.

Fréchet distances of the same pictures differ with the number of pictures, the way they were resized and the
precision (Parmar et al., arXiv 2104.11222), so none of these is left to chance here.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from clcae_lib.evaluation.judges import Judges
from clcae_lib.metrics import frechet_distance, kernel_distance


@torch.no_grad()
def set_distances(
    pictures: Float[Tensor, "n 3 h w"],
    references: Float[Tensor, "m 3 h2 w2"],
    *,
    judges: Judges,
    count: int,
    seed: int = 0,
    side: int | None = None,
    batch_size: int = 64,
) -> dict[str, object]:
    """Fréchet and kernel distance of two sets, with the conditions they were measured under.

    Features are pooled from the world's perceptual judge, copy that measures, in float32; the distances are
    computed in float64. A Fréchet distance is biased upward for few pictures, so compare only rows of one
    `count`; the kernel distance is not.

    Args:
        pictures: such as edited ones, in [-1, 1].
        references: such as renders of the true edits.
        judges: the copies that measure.
        count: how many of each set are drawn, without replacement.
        seed: of the draw.
        side: pixels both are resized to, bilinear with antialiasing; the pictures' own if None.
        batch_size: pictures at once.

    Returns:
        `frechet`, `kernel`, and `count`, `seed`, `side`, `resize`, `dtype`, `features`, `dimensions`.

    Raises:
        ValueError: a set has fewer than `count` pictures, or `count` is below two.
    """
    if count < 2 or min(len(pictures), len(references)) < count:
        sizes = f"{len(pictures)} pictures and {len(references)} references"
        raise ValueError(f"count={count}: needs two or more of each set, there are {sizes}")
    side = pictures.shape[-1] if side is None else side
    source = torch.Generator().manual_seed(seed)
    perceptual = judges.world.perceptual("measure", judges.device)
    features = []
    for images in (pictures, references):
        drawn = images[torch.randperm(len(images), generator=source)[:count]]
        parts = [_resize(part, side).to(judges.device) for part in drawn.split(batch_size)]
        features.append(torch.cat([perceptual.pooled(part.clamp(-1, 1)).cpu() for part in parts]))
    resized = {x.shape[-1] for x in (pictures, references)} != {side}
    return {
        "frechet": frechet_distance(*features),
        "kernel": kernel_distance(*features),
        "count": count,
        "seed": seed,
        "side": side,
        "resize": "bilinear, antialiased" if resized else "none",
        "dtype": f"features {str(features[0].dtype).removeprefix('torch.')}, distances float64",
        "features": getattr(perceptual, "name", type(perceptual).__name__),
        "dimensions": features[0].shape[1],
    }


def _resize(images: Tensor, side: int) -> Tensor:
    if images.shape[-2:] == (side, side):
        return images
    return interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
