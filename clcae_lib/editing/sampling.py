"""Codes drawn from a generator, reproducibly, and functions applied batch by batch."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@torch.no_grad()
def sample_codes(generator: nn.Module, count: int, *, seed: int) -> Float[Tensor, "n d"]:
    """`count` codes of W, untruncated, on the generator's device; the same on every device.

    Args:
        generator: a StyleGAN2.
        count: how many.
        seed: of the latents.
    """
    return generator.sample_w(count, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], values: Tensor, *, size: int = 64) -> Tensor:
    """`function` applied to `size` rows at a time, the results joined."""
    return torch.cat([function(part) for part in values.split(size)])
