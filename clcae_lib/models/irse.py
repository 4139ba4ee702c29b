"""The IR-SE residual backbone of the published encoders, under its published parameter names.

IR-SE50 is the face-recognition network (ArcFace, arXiv 1801.07698, with squeeze-and-excitation) that pSp and
CLCAE use in their encoders. Depth and widths are arguments, so that small worlds can use it.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

WIDTHS, UNITS = (64, 64, 128, 256, 512), (3, 4, 14, 3)
"""IR-SE50's."""


class SqueezeExcitation(nn.Module):
    """Scale each channel by a number in (0, 1) that is computed from the means of all channels."""

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        inner = max(1, channels // reduction)
        self.fc1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.fc2 = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Return the rescaled map."""
        means = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


class IrBlock(nn.Module):
    """One unit: BN, conv, PReLU, conv, BN, squeeze-and-excitation (if `excite`), plus a shortcut."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, excite: bool = True) -> None:
        super().__init__()
        if inputs == outputs:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            *([SqueezeExcitation(outputs)] if excite else []),
        )

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """Return the map at `1/stride` of its side."""
        return self.shortcut_layer(x) + self.res_layer(x)


class IrBackbone(nn.Module):
    """Stem and four stages of units; the first unit of each stage halves the side.

    Args:
        widths: channels of the stem and of the stages, at E, E/2, E/4 (c1), E/8 (c2) and E/16 (c3).
    """

    def __init__(self, *, widths: Sequence[int] = WIDTHS, units: Sequence[int] = UNITS) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        blocks, ends = [], []
        for inputs, outputs, count in zip(widths[:-1], widths[1:], units, strict=True):
            blocks.append(IrBlock(inputs, outputs, stride=2))
            blocks.extend(IrBlock(outputs, outputs) for _ in range(count - 1))
            ends.append(len(blocks) - 1)
        self.body = nn.ModuleList(blocks)
        self.taps: tuple[int, ...] = tuple(ends[1:])
        self.channels: tuple[int, ...] = tuple(widths[2:])

    def maps(self, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return c1 (1/4 of the side), c2 (1/8) and c3 (1/16): the maps after the last unit of each stage."""
        x, taps = self.input_layer(images), []
        for index, block in enumerate(self.body):
            x = block(x)
            if index in self.taps:
                taps.append(x)
        return tuple(taps)

    def forward(self, images: Float[Tensor, "n c h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the `maps`; subclasses that add heads to this backbone override this method."""
        return self.maps(images)
