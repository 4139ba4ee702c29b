"""Layers that the two StyleGAN2 networks share (arXiv 1912.04958, sections 2 and 4, and arXiv 1812.04948).

Parameter names, shapes and arithmetic follow the widely used PyTorch layout of StyleGAN2, so that its
checkpoints load. Weights are stored unscaled ("equalised learning rate"): a layer multiplies its weight by a
constant when it runs. That layout gives each sample its own kernel. These layers scale the
activations instead: the same sum in another order, without a grouped convolution. Only without gradients, and
for a single image whose kernel is smaller than its activations, the kernel is scaled.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SLOPE = 0.2
GAIN = math.sqrt(2.0)


def make_kernel(taps: Sequence[float], *, gain: float = 1.0) -> Float[Tensor, "k k"]:
    """Return the separable low-pass filter of `taps`, summing to `gain`."""
    line = torch.tensor(taps, dtype=torch.float32)
    kernel = line[:, None] * line[None, :]
    return kernel / kernel.sum() * gain


def leaky(x: Tensor) -> Tensor:
    """Return leaky ReLU of slope 0.2 scaled by the square root of two, which keeps the variance."""
    return F.leaky_relu(x, SLOPE) * GAIN


def _depthwise(kernel: Float[Tensor, "k k"], x: Tensor) -> Tensor:
    return kernel.to(x.dtype).expand(x.shape[1], 1, *kernel.shape)


class _Blur(torch.autograd.Function):
    """Depthwise convolution with a constant kernel.

    Its derivative is again such a filter. Autograd's second derivative also computes a gradient of the
    kernel, channel by channel, which is not needed: without it, gradient penalties take half as long.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, pad: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.pad = pad
        if pad[0] == pad[1]:
            return F.conv2d(x, _depthwise(kernel, x), padding=pad[0], groups=x.shape[1])
        return F.conv2d(F.pad(x, (*pad, *pad)), _depthwise(kernel, x), groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (kernel,) = ctx.saved_tensors
        before, after = (kernel.shape[0] - 1 - side for side in ctx.pad)
        return _Blur.apply(grad, kernel.flip(0, 1), (before, after)), None, None


def blur(
    x: Float[Tensor, "n c h w"], kernel: Float[Tensor, "k k"], *, pad: tuple[int, int]
) -> Float[Tensor, "n c h2 w2"]:
    """Return `x`, zero-padded by `pad` (before, after) on both axes, filtered.

    This is one depthwise convolution. Two one-dimensional passes, sums of shifted copies, a filter folded
    into the next convolution, and strides inside the filter were slower on a CPU, including the backward
    pass.
    """
    return _Blur.apply(x, kernel.flip(0, 1), pad)


def upsample(x: Float[Tensor, "n c h w"], kernel: Float[Tensor, "k k"]) -> Float[Tensor, "n c h2 w2"]:
    """Return `x` at twice its size: a zero after each pixel, then the filter (which sums to 4)."""
    n, c, h, w = x.shape
    spread = F.pad(x[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1)).reshape(n, c, 2 * h, 2 * w)
    spare = kernel.shape[0] - 2
    return blur(spread, kernel, pad=((spare + 1) // 2 + 1, spare // 2))


class _Convolution(torch.autograd.Function):
    """Convolution whose gradient can be differentiated without large kernels.

    Autograd's own second derivative convolves with kernels as large as the activations, which is slow on a
    GPU. Where a graph is made of the gradient (`create_graph=True`), that of the input is a transposed
    convolution here, differentiated as any other. That of the weight is then left out: penalties need none.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.sizes = stride, padding, None if bias is None else list(bias.shape)
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = (saved.to(grad.dtype) for saved in ctx.saved_tensors)  # autocast is over
        stride, padding = ctx.stride, ctx.padding
        if torch.is_grad_enabled():
            spare = x.shape[2] + 2 * padding - weight.shape[2] - stride * (grad.shape[2] - 1)
            return F.conv_transpose2d(grad, weight, None, stride, padding, spare), None, None, None, None
        where = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)
        found = torch.ops.aten.convolution_backward(
            grad, x, weight, ctx.sizes, *where, ctx.needs_input_grad[:3]
        )
        return *found, None, None


class PixelNorm(nn.Module):
    """Scale each code to unit mean square."""

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return `x` divided by its root mean square."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    """Fully connected layer with equalised learning rate, optionally followed by the scaled leaky ReLU."""

    def __init__(
        self, inputs: int, outputs: int, *, bias: float = 0.0, lr_mul: float = 1.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)))
        self.scale, self.lr_mul, self.activate = lr_mul / math.sqrt(inputs), lr_mul, activate

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n o"]:
        """Return the layer's output."""
        out = F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)
        return leaky(out) if self.activate else out


class EqualConv2d(nn.Module):
    """Convolution with equalised learning rate; its bias, if any, belongs to the activation after it."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.scale = 1.0 / math.sqrt(inputs * size * size)
        self.stride, self.padding = stride, padding

    def forward(
        self, x: Float[Tensor, "n i h w"], bias: Float[Tensor, " o"] | None = None, *, gain: float = 1.0
    ) -> Float[Tensor, "n o h2 w2"]:
        """Return `gain` times the convolution of `x` plus bias."""
        weight = self.weight * (self.scale * gain)
        bias = None if bias is None else bias * gain
        return _Convolution.apply(x, weight, bias, self.stride, self.padding)


class Filter(nn.Module):
    """Stores a low-pass filter as the buffer `kernel`, as in the published layout."""

    def __init__(self, taps: Sequence[float], *, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("kernel", make_kernel(taps, gain=gain))


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style, and whose output is normalised again.

    `demodulate` divides each output channel by the norm of its styled kernel (section 2.2). `taps` makes it
    an upsampling layer: a transposed convolution of stride 2, then the low-pass filter.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        style_dim: int,
        *,
        demodulate: bool = True,
        taps: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, size, size))
        self.upsampling = taps is not None
        if taps is not None:
            self.blur = Filter(taps, gain=4.0)
            spare = len(taps) - 2 - (size - 1)
            self.pad = ((spare + 1) // 2 + 1, spare // 2 + 1)
        self.modulation = EqualLinear(style_dim, inputs, bias=1.0)
        self.scale = 1.0 / math.sqrt(inputs * size * size)
        self.padding, self.demodulate = size // 2, demodulate

    def style(
        self, w: Float[Tensor, "n d"], offset: Float[Tensor, "#n i"] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the factors of the input channels and of the output channels (or None), in float32."""
        with torch.autocast(w.device.type, enabled=False):
            style = self.modulation(w.float())
            if offset is not None:
                style = style + offset
            if not self.demodulate:
                return style, None
            power = self.weight[0].square().sum(dim=(2, 3)) * self.scale**2
            return style, torch.rsqrt(style.square() @ power.t() + 1e-8)

    def convolve(
        self, x: Float[Tensor, "n i h w"], weight: Float[Tensor, "o i k k"] | None = None
    ) -> Float[Tensor, "n o h2 w2"]:
        """Return the plain convolution of scaled activations, upsampled in an upsampling layer."""
        weight = self.weight[0] * self.scale if weight is None else weight
        if not self.upsampling:
            return F.conv2d(x, weight, padding=self.padding)
        out = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return blur(out, self.blur.kernel, pad=self.pad)

    def infer(
        self,
        x: Float[Tensor, "n i h w"],
        w: Float[Tensor, "n d"],
        offset: Float[Tensor, "#n i"] | None = None,
        *,
        gain: float = 1.0,
    ) -> Float[Tensor, "n o h2 w2"]:
        """Return `gain` times the whole layer's output, in new memory; without gradients.

        For a single image the factors scale the kernel if it is smaller than the activations (in fine
        layers); otherwise they scale the activations.
        """
        style, factor = self.style(w, offset)
        factor = torch.full_like(style[:, :1], gain) if factor is None else factor * gain
        style = style * self.scale
        if len(x) == 1 and self.weight.numel() < 2 * x.numel():
            kernel = self.weight[0] * style[0, :, None, None]
            return self.convolve(x, kernel.mul_(factor[0, :, None, None, None]).to(x.dtype))
        out = self.convolve(x * style.to(x.dtype)[:, :, None, None], self.weight[0])
        return out.mul_(factor.to(out.dtype)[:, :, None, None])

    def forward(
        self,
        x: Float[Tensor, "n i h w"],
        w: Float[Tensor, "n d"],
        offset: Float[Tensor, "#n i"] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the convolution of `x` with the style of `w`, and the factors that must still be applied.

        `offset` is added to the style, before the output is normalised.
        """
        style, factor = self.style(w, offset)
        return self.convolve(x * style.to(x.dtype)[:, :, None, None]), factor
