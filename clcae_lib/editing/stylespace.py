"""StyleSpace (arXiv 2011.12799): the channels of the generator's own styles as directions.

Every layer scales its input channels by a style, an affine map of its row of W+. Those styles, joined, are
StyleSpace; single channels of it are said to be less entangled than directions of W (sections 3 and 4). Which
channel does what is found here by the gradient, that is to first order, of a factor or of a region's pixels.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.editing.direction import Direction

SPREAD_CODES = 2000
"""Codes that the spread of each channel is measured on."""


def channel_spread(generator: nn.Module, *, count: int = SPREAD_CODES, seed: int = 0) -> Float[Tensor, " s"]:
    """The standard deviation of every style channel over sampled codes."""
    with torch.no_grad():
        w = generator.sample_w(count, generator=torch.Generator().manual_seed(seed))
        return generator.styles(w).std(dim=0)


def channel_effects(
    generator: nn.Module,
    reading: Callable[[Tensor], Tensor],
    w: Float[Tensor, "n d"],
    *,
    spread: Float[Tensor, " s"],
    batch_size: int = 16,
) -> Float[Tensor, "s k"]:
    """What one standard deviation of each style channel changes in each reading, to first order, on average.

    Args:
        generator: decodes the codes.
        reading: images `[N, 3, R, R]` to numbers `[N, K]`, with a gradient; one backward pass per column.
        w: codes.
        spread: of the channels, from `channel_spread`.
        batch_size: pictures at once.
    """
    total: Tensor | float = 0.0
    for part in w.split(batch_size):
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
    """How much one standard deviation of each style channel changes a region and the rest, to first order.

    The numbers are root mean squares over pixels, colours and codes, in units of the picture's [-1, 1]. Their
    squares are estimated with random signs: the squared gradient of a sum of pixels with random signs has
    the sum of all squared derivatives as its mean. So a few backward passes do for all channels.

    Args:
        generator: decodes the codes.
        mask: 1 inside the region and 0 outside, at the side of the pictures; both must occur.
        w: codes.
        spread: of the channels, from `channel_spread`.
        probes: random signs for each side of the mask; more make the estimate steadier.
        seed: of the signs.

    Raises:
        ValueError: the mask has another size than the pictures, or only one side.
    """
    side = generator.size
    if mask.shape != (side, side) or not 0 < mask.mean() < 1:
        raise ValueError(f"mask: expected zeros and ones, both, of shape [{side}, {side}]")
    source, mask = torch.Generator().manual_seed(seed), mask.to(w)
    offsets = torch.zeros(len(w), len(spread), device=w.device, requires_grad=True)
    with torch.enable_grad():
        pictures = generator.synthesis(w, style_offsets=offsets)
    columns = []
    for part in (mask, 1 - mask):
        squares = torch.zeros_like(spread)
        for _ in range(probes):
            signs = torch.randint(2, pictures.shape, generator=source).to(pictures) * 2 - 1
            slope = torch.autograd.grad((pictures * signs * part).sum(), offsets, retain_graph=True)[0]
            squares += slope.square().mean(dim=0) / probes
        columns.append((squares / (3 * part.sum())).sqrt() * spread)
    return torch.stack(columns, dim=1)


def rank_channels(effects: Float[Tensor, "s k"], column: int = 0) -> list[int]:
    """Channels by how far, and how selectively, they move one column, the strongest first.

    The score is the movement times its share of the channel's whole effect, as in `pick`.

    Args:
        effects: from `channel_effects` or `region_effects` (column 0 is then the region).
        column: the one that counts.
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
    """The channels that move a factor most, together: each in proportion to its effect.

    One channel (`channels=1`) is what the paper edits with. In a small network a factor is spread over many
    channels, and a single one cannot move it by a standard deviation.

    Args:
        effects: from `channel_effects`.
        spread: of the channels.
        rows: the row of W+ that each channel is made from: the generator's `style_rows`.
        column: of the factor, in `effects`.
        name: of the factor.
        channels: how many.
        layers: take channels of these rows alone.

    Raises:
        ValueError: there are fewer channels than asked for.
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
