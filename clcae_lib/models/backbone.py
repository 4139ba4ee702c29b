"""The convolutional body and the feature pyramid that image encoders share (arXiv 2211.11448, section 3.2).

A body turns an image of side E into three maps: c1 (E/4), c2 (E/8) and c3 (E/16). Alignment trains one, and
the inversion encoder starts from it.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, leaky_relu

from clcae_lib.models.irse import IrBody

Maps = tuple[Float[Tensor, "n c1 h1 w1"], Float[Tensor, "n c2 h2 w2"], Float[Tensor, "n c3 h3 w3"]]

ENCODER_SIDE = 256


def to_encoder_side(
    images: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels h w"]:
    """The images, averaged down so that their longer side is at most 256 pixels."""
    height, width = images.shape[-2:]
    factor = max(height, width) / ENCODER_SIDE
    if factor <= 1:
        return images
    return adaptive_avg_pool2d(images, (round(height / factor), round(width / factor)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after GroupNorm and SiLU, beside a shortcut; `stride` shrinks the map."""

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

    def forward(self, x: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs h2 w2"]:
        """The map at `1/stride` of its side."""
        return self.shortcut(x) + self.residual(x)


class Backbone(nn.Module):
    """A small residual body without batch statistics, so that training and inference are one function.

    Args:
        widths: channels at full side, E/2, E/4 (c1), E/8 (c2) and E/16 (c3).
    """

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 128, 160)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, 1, 1)
        pairs = pairwise(widths)
        self.stages = nn.ModuleList(ResidualBlock(inputs, outputs, stride=2) for inputs, outputs in pairs)
        self.channels: tuple[int, ...] = tuple(widths[2:])

    def forward(self, images: Float[Tensor, "batch channels h w"]) -> Maps:
        """c1, c2 and c3 of images in [-1, 1]."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[-3:])


def make_body(kind: str = "small", *, widths: Sequence[int] | None = None) -> Backbone | IrBody:
    """A body by name: `small` (GroupNorm, for 64 pixels), `irse_small` or `irse50` (the published one).

    Args:
        kind: which.
        widths: channels of the five sides, if not the body's own.

    Raises:
        ValueError: no body has this name.
    """
    if kind == "small":
        return Backbone(**({"widths": widths} if widths else {}))
    if kind == "irse50":
        return IrBody(**({"widths": widths} if widths else {}))
    if kind == "irse_small":
        return IrBody(widths=widths or (16, 24, 48, 80, 128), units=(1, 1, 2, 1))
    raise ValueError(f"body={kind!r} is not one of 'small', 'irse_small', 'irse50'")


class Pyramid(nn.Module):
    """T1 = c3, T2 = up(T1) + 1x1(c2), T3 = up(T2) + 1x1(c1), all of width `dim`.

    Args:
        channels: of c1, c2 and c3. A 1x1 convolution brings c3 to `dim` where it has another width.
        dim: channels of every level.
    """

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        fine, medium, coarse = channels
        self.coarse = nn.Identity() if coarse == dim else nn.Conv2d(coarse, dim, 1)
        self.medium = nn.Conv2d(medium, dim, 1)
        self.fine = nn.Conv2d(fine, dim, 1)

    def forward(self, maps: Maps) -> list[Float[Tensor, "batch dim h w"]]:
        """T1 (E/16), T2 (E/8) and T3 (E/4)."""
        c1, c2, c3 = maps
        t1 = self.coarse(c3)
        t2 = upsample_add(t1, self.medium(c2))
        return [t1, t2, upsample_add(t2, self.fine(c1))]


def upsample_add(
    small: Float[Tensor, "batch dim h w"], large: Float[Tensor, "batch dim h2 w2"]
) -> Float[Tensor, "batch dim h2 w2"]:
    """`large` plus `small` brought to its side, bilinear with aligned corners."""
    return interpolate(small, large.shape[-2:], mode="bilinear", align_corners=True) + large


class StyleBlock(nn.Module):
    """A map to one vector: stride-2 convolutions down to a single pixel, then a linear layer.

    Args:
        inputs: channels of the map.
        outputs: length of the vector.
        side: the longer side of the map, in pixels; its logarithm is the number of convolutions.
        hidden: channels in between, `outputs` if not given.
        gain: scale of the linear layer's first weights; small ones start the vector near zero.
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

    def forward(self, level: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs"]:
        """One vector a map."""
        for conv in self.convs:
            level = leaky_relu(conv(level), 0.2)
        return self.linear(level.mean(dim=(2, 3)))
