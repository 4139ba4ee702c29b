"""The residual discriminator of StyleGAN2 (arXiv 1912.04958, section 4.1 and figure 7)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.models._ops import GAIN, SLOPE, EqualConv2d, EqualLinear, Filter, blur

Widths = dict[int, int] | dict[str, int]


class Blur(Filter):
    """Low-pass filter in front of a stride-2 convolution of side `size`."""

    def __init__(self, taps: Sequence[float], *, size: int) -> None:
        super().__init__(taps)
        spare = len(taps) - 2 + size - 1
        self.pad = ((spare + 1) // 2, spare // 2)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
        """Return the filtered activations."""
        return blur(x, self.kernel, pad=self.pad)


class ConvLayer(nn.Sequential):
    """Convolution with bias and activation; with `taps`, the input is first filtered, and its size halved."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        taps: Sequence[float] | None = None,
        activate: bool = True,
    ) -> None:
        first = [] if taps is None else [Blur(taps, size=size)]
        stride, padding = (1, size // 2) if taps is None else (2, 0)
        conv = EqualConv2d(inputs, outputs, size, stride=stride, padding=padding)
        bias = nn.ParameterDict({"bias": torch.zeros(outputs)})
        super().__init__(*first, conv, *([bias] if activate else []))
        self.activate = activate

    def forward(self, x: Float[Tensor, "n i h w"], gain: float = 1.0) -> Float[Tensor, "n o h2 w2"]:
        """Return `gain` times the layer's output.

        Leaky ReLU commutes with positive factors, so they are applied to the weights, which is faster.
        """
        layers = list(self)
        if isinstance(layers[0], Blur):
            x = layers.pop(0)(x)
        if not self.activate:
            return layers[0](x, gain=gain)
        return F.leaky_relu(layers[0](x, layers[1].bias, gain=gain * GAIN), SLOPE)


class ResBlock(nn.Module):
    """Two convolutions and a linear skip; halves the size."""

    def __init__(self, inputs: int, outputs: int, taps: Sequence[float]) -> None:
        super().__init__()
        self.conv1 = ConvLayer(inputs, inputs, 3)
        self.conv2 = ConvLayer(inputs, outputs, 3, taps=taps)
        self.skip = ConvLayer(inputs, outputs, 1, taps=taps, activate=False)

    def forward(self, x: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o h2 w2"]:
        """Return the sum of both paths over the square root of two, which keeps the variance."""
        half = math.sqrt(0.5)
        return self.conv2(self.conv1(x), half) + self.skip(x, half)


def minibatch_deviation(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """Return a map of the mean standard deviation inside groups of the batch (arXiv 1710.10196, section 3).

    A group has 4 images, or the largest smaller number that divides the batch.
    """
    n, c, h, w = x.shape
    group = next(g for g in range(min(4, n), 0, -1) if n % g == 0)
    y = x.float().reshape(group, n // group, 1, c, h, w)
    deviation = torch.sqrt(y.var(0, unbiased=False) + 1e-8).mean(dim=(2, 3, 4))
    return deviation.to(x.dtype)[:, :, None, None].repeat(group, 1, h, w)


class Discriminator(nn.Module):
    """Map images `[N, 3, S, S]` in [-1, 1] to one score each, `[N, 1]`; higher means more real.

    Args:
        size: side of the images, a power of two of at least 8.
        channels: width at each resolution from 4 to `size`; default, the published widths. The resolutions
            may be strings, as in JSON.

    Raises:
        ValueError: `size` is not a power of two of at least 8, or a width is missing.
    """

    def __init__(self, size: int, *, channels: Widths | None = None) -> None:
        super().__init__()
        self.size, self.channels = size, resolve_channels(size, channels)
        widths = self.channels
        sides = [size >> i for i in range(int(math.log2(size)) - 2)]
        blocks = [ResBlock(widths[side], widths[side // 2], (1, 3, 3, 1)) for side in sides]
        self.convs = nn.Sequential(ConvLayer(3, widths[size], 1), *blocks)
        self.final_conv = ConvLayer(widths[4] + 1, widths[4], 3)
        hidden = EqualLinear(widths[4] * 16, widths[4], activate=True)
        self.final_linear = nn.Sequential(hidden, EqualLinear(widths[4], 1))

    def forward(self, image: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 1"]:
        """Return the score of each image."""
        x = self.convs(image.contiguous(memory_format=torch.channels_last))
        x = self.final_conv(torch.cat((x, minibatch_deviation(x)), dim=1))
        return self.final_linear(x.flatten(1))

    def load_lower(self, lower: "Discriminator") -> None:
        """Copy the weights of a discriminator of smaller images, except its fromRGB layer.

        Blocks of higher resolution keep their weights. So training at 32 pixels can continue at 64.

        Raises:
            ValueError: `lower` is not smaller, or has other widths at the shared resolutions.
        """
        if lower.size >= self.size:
            raise ValueError(f"load_lower: a discriminator of size {lower.size} is not below {self.size}")
        here = {side: width for side, width in self.channels.items() if side <= lower.size}
        if here != lower.channels:
            raise ValueError(f"load_lower: widths differ; expected channels {here}, found {lower.channels}")
        shift = int(math.log2(self.size // lower.size))
        for index in range(1, len(lower.convs)):
            self.convs[index + shift].load_state_dict(lower.convs[index].state_dict())
        self.final_conv.load_state_dict(lower.final_conv.state_dict())
        self.final_linear.load_state_dict(lower.final_linear.state_dict())


def resolve_channels(size: int, channels: Widths | None) -> dict[int, int]:
    """Return the width of every resolution from 4 to `size`: the given ones, or the published ones.

    Raises:
        ValueError: `size` is not a power of two of at least 8, or a width is missing.
    """
    if size < 8 or size & (size - 1):
        raise ValueError(f"size must be a power of two of at least 8, not {size}")
    sides = [1 << i for i in range(2, int(math.log2(size)) + 1)]
    if channels is None:
        return {side: min(512, 2 * 16384 // side) for side in sides}
    given = {int(side): int(width) for side, width in channels.items()}
    missing = [side for side in sides if side not in given]
    if missing:
        raise ValueError(f"channels has no width for resolution {missing}; give one for each of {sides}")
    return {side: given[side] for side in sides}
