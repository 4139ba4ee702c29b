"""The convolutional backbone and feature pyramid of image encoders (arXiv 2211.11448, section 3.2).

A backbone maps an image of side E to three maps: c1 (E/4), c2 (E/8) and c3 (E/16). The inversion encoder
starts from the backbone that alignment has trained.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, leaky_relu

from clcae_lib.models.irse import WIDTHS, IrBackbone

Maps = tuple[Float[Tensor, "n c1 h1 w1"], Float[Tensor, "n c2 h2 w2"], Float[Tensor, "n c3 h3 w3"]]

ENCODER_SIDE = 256
SMALL = (24, 48, 96, 128, 160)


class Codes(NamedTuple):
    """The codes of a batch of images; `feature` is None if the network has no F."""

    w: Float[Tensor, "n d"]
    w_plus: Float[Tensor, "n l d"]
    feature: Float[Tensor, "n c h w"] | None


def to_encoder_side(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Return the images, averaged down so that their longer side is at most 256 pixels."""
    height, width = images.shape[-2:]
    factor = max(height, width) / ENCODER_SIDE
    if factor <= 1:
        return images
    return adaptive_avg_pool2d(images, (round(height / factor), round(width / factor)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after GroupNorm and SiLU, plus a shortcut; `stride` shrinks the map."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.GroupNorm(math.gcd(8, inputs), inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(math.gcd(8, outputs), outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride) if stride > 1 else nn.Identity(), nn.Conv2d(inputs, outputs, 1, bias=False)
        )

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """Return the map at `1/stride` of its side."""
        return self.shortcut(x) + self.residual(x)


class Backbone(nn.Module):
    """A small residual backbone without batch statistics, so training and inference compute the same.

    Args:
        widths: channels at full side, E/2, E/4 (c1), E/8 (c2) and E/16 (c3).
    """

    def __init__(self, widths: Sequence[int] = SMALL) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1)
        pairs = pairwise(widths)
        self.stages = nn.ModuleList(ResidualBlock(inputs, outputs, stride=2) for inputs, outputs in pairs)
        self.channels: tuple[int, ...] = tuple(widths[2:])

    def forward(self, images: Float[Tensor, "n c h w"]) -> Maps:
        """Return c1, c2 and c3 of images in [-1, 1]."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[-3:])


def make_backbone(kind: str = "small", *, widths: Sequence[int] | None = None) -> Backbone | IrBackbone:
    """Return a new backbone.

    Args:
        kind: `small` (GroupNorm, for 64 pixels), `irse_small` or `irse50` (the published one).

    Raises:
        ValueError: `kind` is unknown.
    """
    if kind == "small":
        return Backbone(widths or SMALL)
    if kind == "irse50":
        return IrBackbone(widths=widths or WIDTHS)
    if kind == "irse_small":
        return IrBackbone(widths=widths or (16, 24, 48, 80, 128), units=(1, 1, 2, 1))
    raise ValueError(f"body={kind!r} is not one of 'small', 'irse_small', 'irse50'")


class Pyramid(nn.Module):
    """T1 = c3, T2 = up(T1) + 1x1(c2), T3 = up(T2) + 1x1(c1), all of width `dim`.

    Args:
        channels: channels of c1, c2 and c3. A 1x1 convolution changes those of c3 to `dim` if necessary.
        dim: channels of every level.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        fine, medium, coarse = channels
        self.coarse = nn.Identity() if coarse == dim else nn.Conv2d(coarse, dim, 1)
        self.medium = nn.Conv2d(medium, dim, 1)
        self.fine = nn.Conv2d(fine, dim, 1)

    def forward(self, maps: Maps) -> list[Float[Tensor, "n d h w"]]:
        """Return T1 (E/16), T2 (E/8) and T3 (E/4)."""
        c1, c2, c3 = maps
        t1 = self.coarse(c3)
        t2 = upsample_add(t1, self.medium(c2))
        return [t1, t2, upsample_add(t2, self.fine(c1))]


def upsample_add(
    small: Float[Tensor, "n d h w"], large: Float[Tensor, "n d h2 w2"]
) -> Float[Tensor, "n d h2 w2"]:
    """Return `large` plus `small` resized to its side, bilinear with aligned corners."""
    return interpolate(small, large.shape[-2:], mode="bilinear", align_corners=True) + large


class StyleBlock(nn.Module):
    """Map a feature map to one vector: stride-2 convolutions down to a single pixel, then a linear layer.

    Args:
        side: longer side of the map, in pixels; its logarithm is the number of convolutions.
        hidden: channels in between, `outputs` if not given.
        gain: scale of the linear layer's initial weights; small ones start the vector near zero.
    """

    def __init__(
        self, inputs: int, outputs: int, *, side: int, hidden: int | None = None, gain: float = 0.1
    ) -> None:
        super().__init__()
        hidden = hidden or outputs
        count = max(1, math.ceil(math.log2(side)))
        sizes = [inputs] + [hidden] * count
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(sizes))
        self.linear = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.linear.bias)
        nn.init.normal_(self.linear.weight, std=gain / math.sqrt(hidden))

    def forward(self, level: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o"]:
        """Return one vector per map."""
        for conv in self.convs:
            level = leaky_relu(conv(level), 0.2)
        return self.linear(level.mean(dim=(2, 3)))
