"""The official encoders of pSp, e4e and ReStyle, with their arithmetic and parameter names.

pSp (arXiv 2008.00951) has one style block per layer on a feature pyramid. In e4e (arXiv 2102.02766) the first
layer's block gives a code and the others give offsets from it. ReStyle (arXiv 2104.02699) joins an image and
its reconstruction in the channels, and all of its blocks read the coarsest map. For images other than faces
its backbone is a ResNet34 (arXiv 1512.03385) without the pooling after the stem. Sizes are arguments.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.models.backbone import ENCODER_SIDE, Codes, upsample_add
from clcae_lib.models.config import configured
from clcae_lib.models.foundation import level_of
from clcae_lib.models.irse import UNITS, WIDTHS, IrBackbone
from clcae_lib.models.published import PublishedStyleBlock
from clcae_lib.spaces import num_layers


class ResnetBlock(nn.Module):
    """The basic block of a ResNet, with torchvision's parameter names."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """Return the map at `1/stride` of its side."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.downsample(x))


def _resnet_body(widths: Sequence[int], units: Sequence[int]) -> nn.ModuleList:
    """Return four stages of basic blocks; the first unit of the last three stages halves the side."""
    blocks = nn.ModuleList()
    for stage, ((inputs, outputs), count) in enumerate(zip(pairwise(widths), units, strict=True)):
        blocks.append(ResnetBlock(inputs, outputs, stride=2 if stage else 1))
        blocks.extend(ResnetBlock(outputs, outputs, stride=1) for _ in range(count - 1))
    return blocks


class PublishedPeer(IrBackbone):
    """Map images to W+ as the official pSp, e4e and ReStyle do; the mean code is added.

    Args:
        resolution: side of the generator's images; the encoder sees at most 256 pixels.
        widths: channels of the backbone; the last is `style_dim`.
        style_hidden: channels inside the style blocks, `style_dim` if not given.
        joined: number of images joined in the channels: 1, or 2 in ReStyle.
        pyramid: whether layers read three levels; if not, all read the coarsest map.
        residual: whether the layers above the first are offsets from it, as in e4e.
        resnet: whether the backbone is a ResNet of basic blocks, whose stem halves the side, instead of
            IR-SE.
    """

    w_avg: Tensor

    @configured
    def __init__(
        self,
        resolution: int,
        *,
        style_dim: int = 512,
        widths: Sequence[int] = WIDTHS,
        units: Sequence[int] = UNITS,
        style_hidden: int | None = None,
        joined: int = 1,
        pyramid: bool = True,
        residual: bool = False,
        resnet: bool = False,
    ) -> None:
        super().__init__(widths=widths, units=units)
        self.n_latent, self.pyramid, self.residual = num_layers(resolution), pyramid, residual
        shape = (7, 2, 3) if resnet else (3, 1, 1)
        self.input_layer[0] = nn.Conv2d(3 * joined, widths[0], *shape, bias=False)
        if resnet:
            self.body = _resnet_body(widths, units)
        self.levels = [level_of(k) if pyramid else 0 for k in range(self.n_latent)]
        side = min(resolution, ENCODER_SIDE) // 16
        self.styles = nn.ModuleList(
            PublishedStyleBlock(style_dim, style_dim, side=side << level, hidden=style_hidden)
            for level in self.levels
        )
        if pyramid:
            self.latlayer1 = nn.Conv2d(widths[3], style_dim, 1)
            self.latlayer2 = nn.Conv2d(widths[2], style_dim, 1)
        self.register_buffer("w_avg", torch.zeros(style_dim))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Codes:
        """Return the W+ of images in [-1, 1] of at most 256 pixels; `w` is its first row or its mean."""
        maps = self._levels(images)
        blocks = zip(self.styles, self.levels, strict=True)
        w_plus = self.w_avg + torch.stack([block(maps[level]) for block, level in blocks], dim=1)
        if not self.residual:
            return Codes(w_plus.mean(dim=1), w_plus, None)
        first = w_plus[:, :1]
        return Codes(first[:, 0], torch.cat([first, first + w_plus[:, 1:] - self.w_avg], dim=1), None)

    def _levels(self, images: Tensor) -> list[Tensor]:
        c1, c2, c3 = self.maps(images)
        if not self.pyramid:
            return [c3]
        p2 = upsample_add(c3, self.latlayer1(c2))
        return [c3, p2, upsample_add(p2, self.latlayer2(c1))]
