"""e4e: a pSp encoder whose codes stay near W (arXiv 2102.02766, sections 4.1 to 4.3).

Its W+ is one code and an offset from it for each layer. Training frees the offsets one layer after another;
their lengths and a discriminator of codes are terms of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import to_device
from clcae_lib.inversion.psp import PeerInverter, PspEncoder
from clcae_lib.models.backbone import Codes


class E4eEncoder(PspEncoder):
    """Map images to a code and to offsets from it for later layers; arguments are those of `PspEncoder`.

    The number of freed layers is stored with the weights, so that inference frees as many as training.
    """

    freed: Tensor

    def __init__(self, resolution: int, **options: Any) -> None:
        super().__init__(resolution, **options)
        self.register_buffer("freed", torch.tensor(self.n_latent - 1))

    @property
    def stage(self) -> int:
        """The index of the last layer that has its own offset."""
        return int(self.freed)

    @stage.setter
    def stage(self, layer: int) -> None:
        self.freed.fill_(layer)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Codes:
        """Return the W+ of images in [-1, 1]; `w` is the code to which the offsets are added."""
        base, deltas = self.split(images)
        w = base + self.w_avg
        return Codes(w, w[:, None] + deltas, None)

    def split(self, images: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n l d"]]:
        """Return the first layer's offset from the mean code, and each layer's offset from the first."""
        raw = self.offsets(images)
        free = torch.arange(self.n_latent, device=raw.device) <= self.freed
        free[0] = False
        return raw[:, 0], raw * free[:, None]


class E4eInverter(PeerInverter):
    """e4e: one pass of its encoder."""

    encoders: ClassVar[dict[str, Callable[..., nn.Module]]] = {"e4e": E4eEncoder}


class LatentDiscriminator(nn.Module):
    """Map codes, standardised by W's spread, to logits of being codes of W: four layers."""

    w_avg: Tensor
    w_scale: Tensor

    def __init__(self, style_dim: int, *, width: int | None = None) -> None:
        super().__init__()
        width = width or style_dim
        self.register_buffer("w_avg", torch.zeros(style_dim))
        self.register_buffer("w_scale", torch.ones(()))
        hidden: list[nn.Module] = []
        for inputs, outputs in pairwise([style_dim, width, width, width]):
            hidden += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 1))

    @torch.no_grad()
    def attach(self, generator: nn.Module) -> None:
        """Set the mean and the spread of W to those of the generator."""
        self.w_avg.copy_(generator.w_avg)
        self.w_scale.copy_(generator.w_std.square().mean().sqrt())

    def forward(self, w: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """Return logits, high for codes that look like W's."""
        return self.layers((w - self.w_avg) / self.w_scale).squeeze(-1)


class CodePool:
    """Codes of earlier batches, mixed with new ones for the discriminator (arXiv 1612.07828, section 2.3).

    Args:
        size: number of images whose codes are kept.
    """

    def __init__(self, size: int = 50) -> None:
        self.size, self.codes = size, torch.empty(0)

    def exchange(self, fresh: Float[Tensor, "n l d"]) -> Float[Tensor, "n l d"]:
        """Return the codes, each exchanged for an older one with probability 1/2 once the pool is full.

        It draws from torch's global generator, which the training loop seeds at every step.
        """
        fresh, room = fresh.detach(), self.size - len(self.codes)
        if room > 0:
            self.codes = torch.cat([self.codes.to(fresh), fresh[:room]]) if len(self.codes) else fresh[:room]
        rows = torch.randperm(self.size)[: max(0, len(fresh) - max(0, room))]
        tossed = torch.rand(len(rows)) < 0.5
        places = torch.arange(len(rows)) + max(0, room)
        places, rows = to_device(torch.stack([places[tossed], rows[tossed]]), fresh.device)
        given, self.codes = fresh.clone(), self.codes.clone()
        given[places], self.codes[rows] = self.codes[rows], fresh[places]
        return given


def stage_at(step: int, steps: int, layers: int) -> int:
    """Return the last layer with an offset at a step: 0 up to a tenth of the steps, all from half of them."""
    done = (step / max(1, steps) - 0.1) / (0.5 - 0.1)
    return max(0, min(layers - 1, int(done * (layers - 1)) + (done >= 0)))
