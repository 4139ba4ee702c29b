"""Codes and pictures drawn from a generator, reproducibly and in batches."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def device_of(module: torch.nn.Module) -> torch.device:
    """The device that a network's parameters lie on."""
    return next(module.parameters()).device


@torch.no_grad()
def sample_codes(
    generator: torch.nn.Module, count: int, *, seed: int, chunk: int = 1024
) -> Float[Tensor, "n d"]:
    """`count` codes of W, untruncated; the first ones stay the same when more are asked for.

    Args:
        generator: its `mapping` turns noise into codes; the codes lie on its device.
        count: how many.
        seed: of the noise, which is drawn on the CPU so that every device gets the same.
        chunk: noise vectors mapped at once.
    """
    noise = torch.randn(count, generator.style_dim, generator=torch.Generator().manual_seed(seed))
    return in_batches(generator.mapping, noise.to(device_of(generator)), size=chunk)


def code_std(generator: torch.nn.Module, *, seed: int = 0, count: int = 4096) -> Float[Tensor, " d"]:
    """The standard deviation of each coordinate of W, measured on `count` codes."""
    return sample_codes(generator, count, seed=seed).std(dim=0)


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], values: Tensor, *, size: int = 64) -> Tensor:
    """`function` applied to `size` rows at a time, the results joined."""
    return torch.cat([function(part) for part in values.split(size)])
