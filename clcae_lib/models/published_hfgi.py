"""The official HFGI: e4e, alignment of the distortion map, and consultation (arXiv 2109.06590, section 3).

The distortion map is the image minus the codes' image, at 256 pixels. The alignment fits it to another image.
The consultation computes from it a scale and a shift of the generator's first activation at 64 pixels.
Parameter names, widths and arithmetic are the official code's.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from clcae_lib.models._ops import leaky
from clcae_lib.models.backbone import ENCODER_SIDE, Codes
from clcae_lib.models.irse import IrBlock
from clcae_lib.models.published_peers import PublishedPeer
from clcae_lib.models.stylegan2 import Generator
from clcae_lib.spaces import feature_layer


def _stem(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.PReLU(outputs))


def _units(*widths: int, stride: int = 1) -> nn.Sequential:
    """Return units without squeeze-and-excitation; the first one has the stride."""
    strides = [stride, *([1] * (len(widths) - 2))]
    pairs = zip(pairwise(widths), strides, strict=True)
    return nn.Sequential(*(IrBlock(*pair, stride=step, excite=False) for pair, step in pairs))


def _joined(small: Tensor, skip: Tensor) -> Tensor:
    """Return `small`, resized to the side of `skip`, with the channels of `skip` appended."""
    return torch.cat([interpolate(small, skip.shape[-2:], mode="bilinear"), skip], dim=1)


class PublishedAligner(nn.Module):
    """Align a distortion map to an image: a U-net of residual units down to an eighth of the side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_layer1 = _stem(6, 16)
        self.conv_layer2 = _units(16, 32, 32, 32, stride=2)
        self.conv_layer3 = _units(32, 48, 48, 48, stride=2)
        self.conv_layer4 = _units(48, 64, 64, 64, stride=2)
        self.dconv_layer1 = _units(112, 64, 32, 32)
        self.dconv_layer2 = _units(64, 32, 16, 16)
        self.dconv_layer3 = _units(32, 16, 3, 3)

    def forward(
        self, distortion: Float[Tensor, "n 3 h w"], image: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Return the distortion map aligned to `image`."""
        full = self.conv_layer1(torch.cat([distortion, image], dim=1))
        half = self.conv_layer2(full)
        quarter = self.conv_layer3(half)
        x = self.dconv_layer1(_joined(self.conv_layer4(quarter), quarter))
        x = self.dconv_layer2(_joined(x, half))
        return self.dconv_layer3(_joined(x, full))


class EqualConvolution(nn.Conv2d):
    """3x3 convolution with equalised learning rate and bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h w"]:
        """Return the convolution of `x` plus bias."""
        fan = self.weight[0].numel()
        return conv2d(x, self.weight / math.sqrt(fan), self.bias, padding=1)


class Condition(nn.ModuleDict):
    """Two convolutions, named 0 and 2, with a scaled leaky ReLU between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__({"0": EqualConvolution(inputs, outputs), "2": EqualConvolution(outputs, outputs)})

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h w"]:
        """Return one of the two conditions."""
        return self["2"](leaky(self["0"](x)))


class PublishedConsultant(nn.Module):
    """Map an aligned distortion map to a scale and a shift at a quarter of its side (consultation).

    Args:
        channels: channels of the generator's activation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_layer1 = _stem(3, 32)
        self.conv_layer2 = _units(32, 48, 48, 48, stride=2)
        self.conv_layer3 = _units(48, 64, 64, 64, stride=2)
        self.condition_scale3, self.condition_shift3 = (Condition(64, channels) for _ in range(2))

    def forward(
        self, distortion: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n c h2 w2"], Float[Tensor, "n c h2 w2"]]:
        """Return scale and shift."""
        x = self.conv_layer3(self.conv_layer2(self.conv_layer1(distortion)))
        return self.condition_scale3(x), self.condition_shift3(x)


class Hfgi(nn.Module):
    """Encoder `base`, and a branch with `see` (its view of images) and `correct` (of an activation)."""

    base: nn.Module
    feature_index: int
    """Number of the generator's activation that is corrected."""

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Codes:
        """Return the codes, e4e's."""
        return self.base(images)

    def feature(
        self,
        generator: Generator,
        distortion: Float[Tensor, "n 3 h w"],
        w_plus: Float[Tensor, "n l d"],
        *,
        styles: Float[Tensor, "n s"] | None = None,
    ) -> Float[Tensor, "n c s s"]:
        """Return F: the generator's activation, corrected by the map aligned to the codes' image."""
        image, activations = generator.run_with_activations(w_plus, style_offsets=styles)
        return self.correct(activations[self.feature_index], distortion, self.see(image))


class PublishedHfgi(Hfgi):
    """e4e's encoder `base`, with the consultation branch.

    Args:
        resolution: side of the generator's images. Encoder and branch see at most 256 pixels, and the
            activation that is corrected has a quarter of that side.
        feature_channels: channels of that activation.
        options: options of `PublishedPeer`.

    Attributes:
        feature_index: number of that activation in the generator: 8, the first one at 64 pixels.
    """

    def __init__(self, resolution: int, *, feature_channels: int = 512, **options: Any) -> None:
        super().__init__()
        self.base = PublishedPeer(resolution, **options)
        self.config = {**self.base.config, "feature_channels": feature_channels}
        self.side = min(resolution, ENCODER_SIDE)
        self.feature_index = feature_layer(self.side // 4) - 1
        self.grid_align, self.residue = PublishedAligner(), PublishedConsultant(feature_channels)

    def see(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        """Return images in [-1, 1] at the side of the branch; larger ones are subsampled, not averaged."""
        return interpolate(images.clamp(-1, 1), (self.side, self.side), mode="bilinear")

    def correct(
        self, activation: Float[Tensor, "n c s s"], distortion: Tensor, image: Tensor
    ) -> Float[Tensor, "n c s s"]:
        """Return the activation scaled and shifted by the distortion map aligned to `image`."""
        scale, shift = self.residue(self.grid_align(distortion, image))
        return activation * (1 + scale) + shift
