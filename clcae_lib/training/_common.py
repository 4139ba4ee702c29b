"""What the trainings share: images at hand, rates, gradients over several ranks, and cards."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clcae_lib import files
from clcae_lib.images import from_uint8, to_uint8
from clcae_lib.models import Generator
from clcae_lib.models.backbone import to_encoder_side
from clcae_lib.training._logging import environment
from clcae_lib.training._seeds import step_generator
from clcae_lib.training.loop import Task


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its 4-D weights in the memory order that convolutions run fastest in."""
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


def placed(network: nn.Module, device: torch.device | str) -> nn.Module:
    """Return a copy of the network on a device, in `channels_last` order; the one given stays as it is."""
    return channels_last(copy.deepcopy(network).to(device))


def from_bytes(images: UInt8[Tensor, "n 3 h w"], device: torch.device | str) -> Float[Tensor, "n 3 h w"]:
    """Images of 0..255 as float32 in [-1, 1] on a device, in channels-last order."""
    return from_uint8(images.to(device)).contiguous(memory_format=torch.channels_last)


class InMemory:
    """All images of a source as bytes, so that a batch is one gather."""

    def __init__(self, source: Any) -> None:
        """Read the images, rendering what is not in the cache."""
        if hasattr(source, "prepare"):
            source.prepare()
        blocks = [range(at, min(at + 1024, len(source))) for at in range(0, len(source), 1024)]
        read = getattr(source, "uint8", None) or (lambda block: to_uint8(source.images(block)))
        self.bytes = torch.cat([read(block) for block in blocks])

    def __len__(self) -> int:
        """How many images."""
        return len(self.bytes)

    def images(self, indices: Tensor, device: torch.device | str = "cpu") -> Float[Tensor, "n 3 h w"]:
        """Images of these indices, float32 in [-1, 1]."""
        return from_bytes(self.bytes[indices], device)


def at_hand(source: Any) -> Any:
    """The images of a source for random access: in memory, unless it is read as it goes (`streamed`)."""
    return source if getattr(source, "streamed", False) else InMemory(source)


def at_once(side: int) -> int:
    """How many pictures of this side are decoded at once outside of training: 64 of 128 pixels or less."""
    return max(1, 64 * 128**2 // max(side, 128) ** 2)


def draw(generator: Generator, w: Float[Tensor, "n d"], *, noise: str) -> Float[Tensor, "n 3 h w"]:
    """The generator's pictures of codes, a few at a time, at the side that encoders see (at most 256)."""
    parts = w.split(at_once(generator.size))
    return torch.cat([to_encoder_side(generator.synthesis(part, noise=noise)) for part in parts])


def noise_of(generator: Generator, *, training: bool) -> str:
    """How to treat a generator's noise: not at all where its strengths are zero, else fresh in training."""
    if not generator.uses_noise:
        return "none"
    return "random" if training else "fixed"


@torch.no_grad()
def sample_codes(
    generator: Generator, count: int, *numbers: int, start: int = 0, total: int | None = None
) -> Float[Tensor, "n d"]:
    """Codes `start` to `start + count` of the `total` that a seed of several numbers gives.

    Ranks that share a batch ask for different parts of one draw.
    """
    source = step_generator(*numbers)
    z = torch.randn(total or count, generator.style_dim, generator=source)[start : start + count]
    return generator.mapping(z.to(generator.w_avg.device))


def cosine(step: int, steps: int, *, warmup: int, floor: float = 0.0) -> float:
    """The learning rate's factor at a step: a linear rise, then a cosine down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def make_ranger(parameters: Iterable[nn.Parameter], *, lr: float) -> torch.optim.Optimizer:
    """The published optimizer: rectified Adam with centred gradients and look-ahead.

    `degenerated_to_sgd` asks for the published first five steps, momentum without normalisation; without it
    this package's Ranger takes them uphill.
    """
    from pytorch_optimizer import Ranger

    return Ranger(parameters, lr=lr, betas=(0.95, 0.999), eps=1e-5, k=6, alpha=0.5, degenerated_to_sgd=True)


def set_rate(optimizer: Any, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def share(fabric: Fabric, batch_size: int) -> tuple[int, int]:
    """Where this rank's part of a batch starts, and its size."""
    local = batch_size // fabric.world_size
    return fabric.global_rank * local, local


@torch.no_grad()
def average_gradients(fabric: Fabric, *networks: nn.Module) -> None:
    """Replace gradients, and the statistics of batch normalisation, by their mean over the ranks.

    Without the latter, ranks would validate with statistics of their own, of which a state keeps only one's.
    """
    shared = [p.grad for network in networks for p in network.parameters() if p.grad is not None]
    if fabric.world_size == 1 or not shared:
        return
    norms = [part for network in networks for part in network.modules() if isinstance(part, _BatchNorm)]
    shared += [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
    flat = fabric.all_reduce(torch.cat([value.reshape(-1) for value in shared]), reduce_op="mean")
    for value, part in zip(shared, flat.split([value.numel() for value in shared]), strict=True):
        value.copy_(part.view(value.shape))


def gather(fabric: Fabric, rows: Float[Tensor, "local ..."]) -> Float[Tensor, "all ..."]:
    """The rows of every rank, with gradient."""
    return rows if fabric.world_size == 1 else fabric.all_gather(rows, sync_grads=True).flatten(0, 1)


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Networks in evaluation mode for the time being."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)


def digests(*weights: Path) -> dict[str, str]:
    """The digest of each weights file, under its file name; for the card's `trained_on`."""
    return {path.name: files.sha256(path) for path in weights}


def card(
    name: str,
    task: Task,
    fabric: Fabric,
    *,
    trained_on: dict[str, str],
    measures: dict[str, Any],
    **extra: Any,
) -> dict[str, Any]:
    """What a weights file's card says: what made it, from what, and how it measures."""
    made = environment(fabric.device)
    return {
        "name": name,
        "world": task.config.world,
        **{fact: made[fact] for fact in ("command", "commit", "device", "threads")},
        "seed": task.config.seed,
        **task.progress,
        "config": task.config.model_dump(mode="json"),
        "trained_on": trained_on,
        "measures": measures,
        **extra,
    }
