"""StyleSpace (arXiv 2011.12799): the channels of the generator's own styles as directions.

Every layer scales its input channels by a style, an affine map of its row of W+. All styles together are
StyleSpace, whose channels are less entangled than directions of W (sections 3 and 4). Here a channel's effect
on a factor or on a region's pixels is its gradient, that is, its effect to first order.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.editing.direction import Direction
from clcae_lib.editing.response import sample_codes


def channel_spread(generator: nn.Module, *, count: int = 2000, seed: int = 0) -> Float[Tensor, " s"]:
    """Return the standard deviation of every style channel over `count` sampled codes."""
    with torch.no_grad():
        return generator.styles(sample_codes(generator, count, seed=seed)).std(dim=0)


def channel_effects(
    generator: nn.Module,
    reading: Callable[[Tensor], Tensor],
    w: Float[Tensor, "n d"],
    *,
    spread: Float[Tensor, " s"],
) -> Float[Tensor, "s k"]:
    """Return the mean first-order effect of one standard deviation of each style channel on each reading.

    Args:
        reading: differentiable map of images `[N, 3, R, R]` to numbers `[N, K]`; one backward pass per
            column.
        spread: standard deviations of the channels, from `channel_spread`.
    """
    total: Tensor | float = 0.0
    for part in w.split(16):
        offsets = torch.zeros(len(part), len(spread), device=w.device, requires_grad=True)
        with torch.enable_grad():
            sums = reading(generator.synthesis(part, style_offsets=offsets)).sum(dim=0)
        slopes = [torch.autograd.grad(one, offsets, retain_graph=True)[0].sum(dim=0) for one in sums]
        total = total + torch.stack(slopes, dim=1)
    return total / len(w) * spread[:, None]


def region_effects(
    generator: nn.Module,
    mask: Float[Tensor, "h w"],
    w: Float[Tensor, "n d"],
    *,
    spread: Float[Tensor, " s"],
    probes: int = 8,
    seed: int = 0,
) -> Float[Tensor, "s 2"]:
    """Return the first-order effects of one standard deviation of each channel inside and outside a region.

    Effects are root mean squares over pixels, colours and codes, in units of the range [-1, 1]. They are
    estimated with random signs: if a sum of pixels has random signs, the mean of its squared gradient is the
    sum of all squared derivatives. So a few backward passes give the effects of all channels.

    Args:
        mask: 1 inside the region and 0 outside, of the images' size; both must occur.
        probes: number of draws of signs for each side of the mask.

    Raises:
        ValueError: the mask has another size than the images, or has only one side.
    """
    side = generator.size
    if mask.shape != (side, side) or not 0 < mask.mean() < 1:
        raise ValueError(f"mask: expected zeros and ones, both, of shape [{side}, {side}]")
    source, mask = torch.Generator().manual_seed(seed), mask.to(w)
    offsets = torch.zeros(len(w), len(spread), device=w.device, requires_grad=True)
    with torch.enable_grad():
        images = generator.synthesis(w, style_offsets=offsets)
    columns = []
    for part in (mask, 1 - mask):
        squares = torch.zeros_like(spread)
        for _ in range(probes):
            signs = torch.randint(2, images.shape, generator=source).to(images) * 2 - 1
            slope = torch.autograd.grad((images * signs * part).sum(), offsets, retain_graph=True)[0]
            squares += slope.square().mean(dim=0) / probes
        columns.append((squares / (3 * part.sum())).sqrt() * spread)
    return torch.stack(columns, dim=1)


def rank_channels(effects: Float[Tensor, "s k"], column: int = 0) -> list[int]:
    """Return the channels, sorted by how far and how selectively they move one column.

    The score is the effect times its share of the channel's total, as in `pick`. In the result of
    `region_effects`, column 0 is the region.
    """
    share = effects.square() / effects.square().sum(dim=1, keepdim=True).clamp(min=1e-20)
    return (effects.abs() * share)[:, column].argsort(descending=True).tolist()


def stylespace(
    effects: Float[Tensor, "s k"],
    spread: Float[Tensor, " s"],
    rows: Sequence[int],
    column: int,
    *,
    name: str,
    channels: int = 32,
    layers: Sequence[int] | None = None,
) -> Direction:
    """Return one direction of the channels that move a factor most, each in proportion to its effect.

    The paper edits with one channel (`channels=1`). In a small network a factor is spread over many channels,
    and one of them cannot move it by a standard deviation.

    Args:
        rows: row of W+ that each channel is computed from: the generator's `style_rows`.
        column: column of the factor in `effects`.
        layers: rows of W+ whose channels may be chosen; None for all.

    Raises:
        ValueError: `channels` is greater than the number of channels that may be chosen.
    """
    allowed = torch.tensor([layers is None or row in layers for row in rows], device=effects.device)
    if not 0 < channels <= int(allowed.sum()):
        raise ValueError(f"channels={channels}: the layers chosen have {int(allowed.sum())} of them")
    chosen = (effects[:, column].abs() * allowed).topk(channels).indices
    vector = torch.zeros_like(spread)
    vector[chosen] = effects[chosen, column] * spread[chosen]
    facts = {"method": "stylespace", "channels": chosen[:64].tolist(), "channel_count": channels}
    kept = None if layers is None else tuple(layers)
    return Direction(nn.functional.normalize(vector, dim=0), name, "s", layers=kept, provenance=facts)
