"""HFGI: correct an activation to restore what a code lost of an image (arXiv 2109.06590, section 3).

The distortion map, the image minus the code's image, is aligned to the code's image (or to an edit of it);
the consultation then scales and shifts an activation of the generator by it. An edit aligns the map again.

The same inverter accepts the official networks, `clcae_lib.models.PublishedHfgi`. Those here are smaller.
They have GroupNorm instead of BatchNorm, average larger images down instead of sampling them, do not clamp
images, and correct the second activation at 16 pixels; the official ones correct the first at 64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate, leaky_relu

from clcae_lib.devices import to_device
from clcae_lib.inversion.e4e import E4eEncoder
from clcae_lib.inversion.inversion import Inversion, Restoring
from clcae_lib.inversion.psp import PeerInverter
from clcae_lib.models.backbone import ResidualBlock, to_encoder_side
from clcae_lib.models.published_hfgi import Hfgi
from clcae_lib.spaces import feature_layer


class Aligner(nn.Module):
    """Align a distortion map to another image: a small U-net.

    Args:
        width: channels at full side; twice and four times as many below.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv2d(6, width, 3, 1, 1)
        self.down = nn.ModuleList([ResidualBlock(width, 2 * width, stride=2)])
        self.down.append(ResidualBlock(2 * width, 4 * width, stride=2))
        self.middle = ResidualBlock(4 * width, 4 * width)
        self.up = nn.ModuleList([ResidualBlock(6 * width, 2 * width), ResidualBlock(3 * width, width)])
        self.leave = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(
        self, image: Float[Tensor, "n 3 h w"], distortion: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, "n 3 h w"]:
        """Return the distortion map aligned to `image`."""
        maps = [self.enter(torch.cat([image, distortion], dim=1))]
        for block in self.down:
            maps.append(block(maps[-1]))
        x = self.middle(maps.pop())
        for block in self.up:
            skip = maps.pop()
            x = block(torch.cat([interpolate(x, skip.shape[-2:]), skip], dim=1))
        return self.leave(x)


class Consultant(nn.Module):
    """Turn an aligned distortion map into a scale and a shift of the generator's activation (consultation).

    Args:
        side: side of the activation, in pixels.
    """

    def __init__(self, channels: int, *, side: int = 16, width: int = 32) -> None:
        super().__init__()
        self.side = side
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(3, width, 3, 1, 1),
                ResidualBlock(width, 2 * width),
                ResidualBlock(2 * width, channels),
            ]
        )
        self.scale, self.shift = (nn.Conv2d(channels, channels, 1) for _ in range(2))
        for last in (self.scale, self.shift):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self, distortion: Float[Tensor, "n 3 h w"], activation: Float[Tensor, "n c s s"]
    ) -> Float[Tensor, "n c s s"]:
        """Return the corrected activation; before training, the activation itself."""
        x = distortion
        for layer in self.layers:
            x = leaky_relu(layer(x), 0.2)
            if x.shape[-1] > self.side:
                x = interpolate(x.float(), scale_factor=0.5, mode="area").to(x)
        if x.shape[-1] != self.side:
            x = interpolate(x.float(), (self.side, self.side), mode="area").to(x)
        return activation * (1 + self.scale(x)) + self.shift(x)


class HfgiEncoder(Hfgi):
    """An e4e encoder with aligner and consultant.

    Args:
        feature_channels: channels of the activation that is corrected.
        feature_side: side of that activation, in pixels.
    """

    def __init__(
        self,
        resolution: int,
        *,
        style_dim: int = 512,
        feature_channels: int = 512,
        feature_side: int = 16,
        **options: Any,
    ) -> None:
        super().__init__()
        self.base = E4eEncoder(resolution, style_dim=style_dim, **options)
        own = {"feature_channels": feature_channels, "feature_side": feature_side}
        self.config = {**self.base.config, **own}
        self.aligner = Aligner()
        self.consultant = Consultant(feature_channels, side=feature_side)
        self.feature_index = feature_layer(feature_side)

    def attach(self, generator: nn.Module) -> None:
        """Set the mean code to that of the generator."""
        self.base.attach(generator)

    def see(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
        """Return images at the size of the aligner's input."""
        return to_encoder_side(images)

    def correct(
        self, activation: Float[Tensor, "n c s s"], distortion: Tensor, image: Tensor
    ) -> Float[Tensor, "n c s s"]:
        """Return the activation, corrected by the distortion map aligned to `image`."""
        return self.consultant(self.aligner(image, distortion), activation)


def moved(
    images: Float[Tensor, "n 3 h w"], random: torch.Generator, *, amount: float = 0.1
) -> Float[Tensor, "n 3 h w"]:
    """Return images rotated, scaled, sheared and shifted at random, by about `amount` of their side."""
    n = len(images)
    change = amount * (2 * torch.rand(n, 2, 3, generator=random) - 1)
    matrices = to_device(torch.eye(2, 3) + change, images.device)
    grid = affine_grid(matrices, list(images.shape), align_corners=False)
    return grid_sample(images.float(), grid, padding_mode="zeros", align_corners=False)


class HfgiInverter(PeerInverter):
    """HFGI: e4e's codes, with an F that restores what they lost; it is restored again after an edit."""

    encoders: ClassVar[dict[str, Callable[..., nn.Module]]] = {"hfgi": HfgiEncoder}

    def _encode(self, images: Float[Tensor, "n 3 h w"]) -> Inversion:
        codes = self.encoder(images)
        lost = self.encoder.see(images) - self.encoder.see(self.generator.synthesis(codes.w_plus))
        feature = self.encoder.feature(self.generator, lost, codes.w_plus)
        parts = [part.detach().float() for part in (codes.w, codes.w_plus, feature)]
        index = self.encoder.feature_index
        index = None if index == feature_layer(feature.shape[-1]) else index  # the second one at its side
        return Inversion(*parts, decoder=Restoring(self.encoder, lost.float(), index=index))
