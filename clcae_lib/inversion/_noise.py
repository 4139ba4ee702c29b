"""Noise maps of a picture's own (arXiv 1912.04958, appendix D): where to begin, and what keeps them noise.

A map that is optimised freely takes up the picture itself. So it is kept from agreeing with itself shifted by
a pixel, at every size it has when halved again and again.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from clcae_lib.models import Generator

SMALLEST = 8
"""Side of the smallest halved map."""


def starting(generator: Generator, count: int) -> dict[str, Float[Tensor, "count 1 1 side side"]]:
    """The generator's own maps, once for each picture, by their names."""
    return {
        f"noises.{name}": buffer.detach().expand(count, *buffer.shape).clone()
        for name, buffer in generator.noises.named_buffers()
    }


def noise_regularization(maps: Iterable[Float[Tensor, "count 1 1 side side"]]) -> Float[Tensor, ""]:
    """How much maps agree with themselves shifted by a pixel each way, summed; near zero for noise."""
    return sum((_agreement(value.flatten(0, 1)) for value in maps), start=torch.zeros(()))


def _agreement(value: Float[Tensor, "count 1 side side"]) -> Tensor:
    total = value.new_zeros(())
    while True:
        for axis in (2, 3):
            shifted = value.roll(1, dims=axis)
            total = total + (value * shifted).mean(dim=(1, 2, 3)).square().sum()
        if value.shape[-1] <= SMALLEST:
            return total
        value = 2 * F.avg_pool2d(value, 2)  # the mean of four has half the deviation


@torch.no_grad()
def standardise_(value: Float[Tensor, "count 1 1 side side"]) -> None:
    """Bring each map to mean 0 and standard deviation 1, in place."""
    axes = (1, 2, 3, 4)
    value.sub_(value.mean(dim=axes, keepdim=True))
    value.div_(value.square().mean(dim=axes, keepdim=True).sqrt().clamp(min=1e-8))
