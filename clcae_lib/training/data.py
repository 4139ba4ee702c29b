"""The inputs of a training step: random numbers by (seed, step), images, and codes of the generator.

Random numbers are functions of seed and step, so that a resumed run draws the same as an uninterrupted one.
"""

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clcae_lib.devices import to_device
from clcae_lib.images import from_uint8, to_uint8
from clcae_lib.models import Generator
from clcae_lib.models.backbone import to_encoder_side

_MASK = (1 << 64) - 1


def _mixed(*numbers: int) -> int:
    """Return a well-spread 63-bit number for a tuple of integers (the splitmix64 finaliser)."""
    state = 0
    for number in numbers:
        state = (state + (number & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def step_generator(*numbers: int) -> torch.Generator:
    """Return a CPU generator seeded by (seed, step, stream, ...), the same on every device and rank."""
    return torch.Generator().manual_seed(_mixed(*numbers))


def seed_step(*numbers: int, device: torch.device | str = "cpu") -> None:
    """Seed Python, NumPy and torch, on the CPU and on `device`, for one step."""
    value = _mixed(*numbers)
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.default_generator.manual_seed(value)
    if torch.device(device).type != "cpu":
        torch.get_device_module(device).manual_seed(value)


@contextmanager
def randomness_restored(device: torch.device | str = "cpu") -> Iterator[None]:
    """Restore, at the end of the block, the random states that `seed_step` changes."""
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
    """The endless sequence of items 0 to size - 1, shuffled again in each epoch, addressed by position.

    Raises:
        ValueError: `size` is below one.
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"size={size}: give 1 or more items to shuffle")
        self.size, self.seed = size, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    def take(self, start: int, count: int) -> Tensor:
        """Return the item numbers at positions `start` to `start + count`, int64 `[count]`."""
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self.size)
            if epoch != self._epoch:
                source = step_generator(self.seed, epoch, 0x5F)
                self._epoch, self._order = epoch, torch.randperm(self.size, generator=source)
            part = self._order[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return torch.cat(parts)


def from_bytes(images: UInt8[Tensor, "n 3 h w"], device: torch.device | str) -> Float[Tensor, "n 3 h w"]:
    """Return bytes 0 to 255 as images in [-1, 1] on a device, in channels-last order."""
    return from_uint8(to_device(images, device)).contiguous(memory_format=torch.channels_last)


class InMemory:
    """All images of a data set as bytes in memory; missing renders are rendered first."""

    def __init__(self, source: Any) -> None:
        if hasattr(source, "prepare"):
            source.prepare()
        read = getattr(source, "uint8", None) or (lambda rows: to_uint8(source.images(rows)))
        blocks = (range(start, min(start + 1024, len(source))) for start in range(0, len(source), 1024))
        self.bytes = torch.cat([read(block) for block in blocks])

    def __len__(self) -> int:
        return len(self.bytes)

    def read(self, rows: Tensor, following: Tensor | range = range(0)) -> UInt8[Tensor, "n 3 h w"]:
        """Return the images of these indices as bytes on the host; `following` is for `Ahead.read` only."""
        return self.bytes[rows]


class Ahead:
    """A data set on disk; four threads read the next step's images during a step.

    Decoding releases Python's lock, so threads are enough. Only the next step's images are kept.

    Args:
        source: data set with `images(rows)`, which several threads may call.
    """

    def __init__(self, source: Any) -> None:
        self.source, self._pool = source, ThreadPoolExecutor(4, thread_name_prefix="read ahead")
        self._waiting: dict[int, Future[Tensor]] = {}

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: Tensor | range, following: Tensor | range = range(0)) -> Float[Tensor, "n 3 h w"]:
        """Return the images of these indices, in [-1, 1], and start to read those of `following`."""
        now, later = (list(map(int, part)) for part in (rows, following))
        known, submit = self._waiting, self._pool.submit
        asked = dict.fromkeys([*now, *later])
        wanted = {row: known.get(row) or submit(self.source.images, [row]) for row in asked}
        self._waiting = {row: wanted[row] for row in later}
        return torch.cat([wanted[row].result() for row in now]) if now else self.source.images(now)


def as_images(rows: Tensor, device: torch.device | str) -> Float[Tensor, "n 3 h w"]:
    """Return the result of `InMemory.read` or `Ahead.read` as images in [-1, 1] on a device."""
    return from_bytes(rows, device) if rows.dtype == torch.uint8 else to_device(rows, device)


def ready_to_train(source: Any) -> InMemory | Ahead:
    """Return a data set in memory, or one that is read ahead if it declares `streamed`."""
    if isinstance(source, InMemory | Ahead):
        return source
    return Ahead(source) if getattr(source, "streamed", False) else InMemory(source)


def eval_batch_size(resolution: int) -> int:
    """Return how many images are decoded at a time outside of training: 64 of 128 pixels or less."""
    return max(1, 64 * 128**2 // max(resolution, 128) ** 2)


def synthesise(generator: Generator, w: Float[Tensor, "n d"], *, noise: str) -> Float[Tensor, "n 3 h w"]:
    """Return the images of codes, decoded in batches, at the side of encoders' input (at most 256)."""
    parts = w.split(eval_batch_size(generator.size))
    return torch.cat([to_encoder_side(generator.synthesis(part, noise=noise)) for part in parts])


def noise_mode(generator: Generator, *, training: bool) -> str:
    """Return "none" for a generator whose noise strengths are zero, else "random" (training) or "fixed"."""
    if not generator.uses_noise:
        return "none"
    return "random" if training else "fixed"


@torch.no_grad()
def sample_codes(generator: Generator, count: int, *numbers: int) -> Float[Tensor, "n d"]:
    """Return `count` codes for a seed of several numbers."""
    return generator.mapping(to_device(draw_z(generator, count, *numbers), generator.w_avg.device))


def draw_z(
    generator: Generator, count: int, *numbers: int, start: int = 0, total: int | None = None
) -> Float[Tensor, "n d"]:
    """Return the normal vectors `start` to `start + count` of the `total` for a seed, on the host.

    Ranks that share a batch use different parts of one draw.
    """
    source = step_generator(*numbers)
    return torch.randn(total or count, generator.style_dim, generator=source)[start : start + count]
