"""The running average of a generator's weights, whose pictures are the ones that ship."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["half_life", "update_average"]


def half_life(seen: int, *, target: float, ramp: float) -> float:
    """The average's half life in images after `seen` images: a share `ramp` of them, at most `target`."""
    return max(min(target, ramp * seen), 1e-8)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, *, images: int, half_life: float) -> None:
    """Move `average` toward `model` by what `images` images count for at this half life."""
    weight = 1 - 0.5 ** (images / half_life)
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)
    for old, new in zip(average.buffers(), model.buffers(), strict=True):
        old.copy_(new)
