"""Randomness as a function of (seed, step): a resumed run draws what an unbroken one draws."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

__all__ = ["Shuffled", "randomness_restored", "seed_step", "step_generator"]

_MASK = (1 << 64) - 1


def mixed(*numbers: int) -> int:
    """A well-spread 63-bit number for a tuple of integers (the splitmix64 finaliser)."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def step_generator(*numbers: int) -> torch.Generator:
    """A CPU generator seeded by (seed, step, stream, ...), the same on every device and rank."""
    return torch.Generator().manual_seed(mixed(*numbers))


def seed_step(*numbers: int, device: torch.device | str = "cpu") -> None:
    """Seed Python, NumPy and torch, on the CPU and on `device`, for one step: no state needs saving."""
    value = mixed(*numbers)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.default_generator.manual_seed(value)
    if torch.device(device).type != "cpu":
        torch.get_device_module(device).manual_seed(value)


@contextmanager
def randomness_restored(device: torch.device | str = "cpu") -> Iterator[None]:
    """Give back, at the end, the random states that `seed_step` changes."""
    module = torch if torch.device(device).type == "cpu" else torch.get_device_module(device)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state(), module.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        module.set_rng_state(states[3])


class Shuffled:
    """The endless sequence 0..size-1 in a fresh order each epoch, addressed by position."""

    def __init__(self, size: int, *, seed: int = 0) -> None:
        """Shuffle `size` items.

        Raises:
            ValueError: `size` is below one.
        """
        if size < 1:
            raise ValueError(f"size={size}: there is nothing to shuffle")
        self.size, self.seed = size, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def take(self, start: int, count: int) -> Tensor:
        """The item numbers at positions `start` to `start + count`, int64 `[count]`."""
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self.size)
            part = self._epoch_order(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return torch.cat(parts)

    def _epoch_order(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            order = torch.randperm(self.size, generator=step_generator(self.seed, epoch, 0x5F))
            self._epoch, self._order = epoch, order
        return self._order
