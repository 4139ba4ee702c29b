"""The generator in its plain form, what the benchmark measures against and tests compare with.

Each sample has a modulated kernel of its own and a group of one convolution, filters run channel by channel
over zero-spaced maps, nothing is done in place, every activation is recorded, and each image is decoded
from the start: what the published layout's reference arithmetic says, step by step.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae_lib.models import Codes, Generator
from tests.conformance.official import PublishedInversion


def invert(network: PublishedInversion, images: Tensor) -> tuple[Codes, dict[str, Tensor]]:
    """The codes and all three images, at the generator's side."""
    codes = network.encoder(images)
    w = codes.w[:, None].expand(-1, network.decoder.n_latent, -1)
    picture_f, _ = decode(network.decoder, codes.w_plus, feature=codes.feature)
    picture_plus, _ = decode(network.decoder, codes.w_plus)
    picture_w, _ = decode(network.decoder, w)
    return codes, {"f": picture_f, "w_plus": picture_plus, "w": picture_w}


def decode(
    generator: Generator, w_plus: Tensor, *, feature: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The image and every activation; the feature takes the place of activation 5."""
    x = generator.input.input.repeat(len(w_plus), 1, 1, 1)
    features = [x]
    x = _styled(generator, generator.conv1, x, w_plus[:, 0], 0)
    features.append(x)
    rgb = _to_rgb(generator.to_rgb1, x, w_plus[:, 1], None)
    for block, to_rgb in enumerate(generator.to_rgbs):
        row = 2 * block + 1
        for layer in range(2):
            if row + layer == 5 and feature is not None:
                x = feature
            x = _styled(generator, generator.convs[2 * block + layer], x, w_plus[:, row + layer], row + layer)
            features.append(x)
        rgb = _to_rgb(to_rgb, x, w_plus[:, row + 2], rgb)
    return rgb, features


def _styled(generator: Generator, layer: nn.Module, x: Tensor, w: Tensor, index: int) -> Tensor:
    x = _modulated(layer.conv, x, w)
    x = x + layer.noise.weight * getattr(generator.noises, f"noise_{index}")
    return F.leaky_relu(x + layer.activate.bias.view(1, -1, 1, 1), 0.2) * math.sqrt(2)


def _to_rgb(layer: nn.Module, x: Tensor, w: Tensor, rgb: Tensor | None) -> Tensor:
    x = _modulated(layer.conv, x, w) + layer.bias
    return x if rgb is None else x + _filter(rgb, layer.upsample.kernel, up=2, pad=(2, 1))


def _modulated(conv: nn.Module, x: Tensor, w: Tensor) -> Tensor:
    """Every sample by its own kernel."""
    n, inputs, height, width = x.shape
    style = conv.modulation(w).view(n, 1, inputs, 1, 1)
    kernel = conv.scale * conv.weight * style
    if conv.demodulate:
        kernel = kernel * torch.rsqrt(kernel.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    outputs, size = kernel.shape[1], kernel.shape[-1]
    flat = x.reshape(1, n * inputs, height, width)
    if not conv.upsampling:
        kernel = kernel.reshape(n * outputs, inputs, size, size)
        return F.conv2d(flat, kernel, padding=conv.padding, groups=n).view(n, outputs, height, width)
    kernel = kernel.transpose(1, 2).reshape(n * inputs, outputs, size, size)
    out = F.conv_transpose2d(flat, kernel, stride=2, groups=n)
    return _filter(out.view(n, outputs, *out.shape[2:]), conv.blur.kernel, up=1, pad=conv.pad)


def _filter(x: Tensor, kernel: Tensor, *, up: int, pad: tuple[int, int]) -> Tensor:
    """Zeros between the pixels, padding, and the flipped filter on each channel as a image of its own."""
    n, channels, height, width = x.shape
    x = x.reshape(n * channels, 1, height, 1, width, 1)
    x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).view(n * channels, 1, height * up, width * up)
    out = F.conv2d(F.pad(x, (*pad, *pad)), kernel.flip(0, 1)[None, None])
    return out.view(n, channels, *out.shape[2:])
