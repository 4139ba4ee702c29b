"""pSp: a feature pyramid, and one style block per layer of W+ (arXiv 2008.00951, sections 3.1 and 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.inversion.peer import PeerInverter
from clcae_lib.models.backbone import Codes, Pyramid, StyleBlock, make_backbone, to_encoder_side
from clcae_lib.models.config import configured
from clcae_lib.models.foundation import level_of
from clcae_lib.spaces import num_layers


class PspEncoder(nn.Module):
    """Map images to W+: each layer has its own style block on the pyramid, added to the mean code.

    Args:
        resolution: side of the generator's images; the encoder sees at most 256 pixels.
        style_dim: length of a code, and width of the pyramid.
        body: name of the backbone, see `make_backbone`.
        widths: channels of the backbone, if not its own.
        pictures: number of images joined in the channels: 1, or 2 as in ReStyle's encoders.
        pyramid: whether layers read three levels; else all read the coarsest map, as in ReStyle's simpler
            encoder.
    """

    w_avg: Tensor

    @configured
    def __init__(
        self,
        resolution: int,
        *,
        style_dim: int = 512,
        body: str = "small",
        widths: Sequence[int] | None = None,
        pictures: int = 1,
        pyramid: bool = True,
    ) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(style_dim))
        self.n_latent = num_layers(resolution)
        self.body = make_backbone(body, widths=widths)
        self.pyramid = Pyramid(self.body.channels, style_dim)
        side, hidden = min(resolution, 256) // 16, 3 * style_dim // 8
        self.levels = [level_of(k) if pyramid else 0 for k in range(self.n_latent)]
        self.to_layers = nn.ModuleList(
            StyleBlock(style_dim, style_dim, side=side << level, hidden=hidden) for level in self.levels
        )
        if pictures > 1:
            self._widen(pictures)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Codes:
        """Return the W+ of images in [-1, 1]; `w`, which pSp does not have, is the mean over layers."""
        w_plus = self.w_avg + self.offsets(images)
        return Codes(w_plus.mean(dim=1), w_plus, None)

    def offsets(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n l d"]:
        """Return the output of each layer's block."""
        levels = self.pyramid(self.body(to_encoder_side(images)))
        blocks = zip(self.levels, self.to_layers, strict=True)
        return torch.stack([block(levels[level]) for level, block in blocks], dim=1)

    def start_from(self, body: dict[str, Tensor]) -> None:
        """Load a pretrained backbone; the first layer's weights for a second image start at zero."""
        own = dict(body)
        if self.config["pictures"] > 1:
            name, first = first_convolution(self.body)
            wide = torch.zeros_like(first.weight)
            wide[:, :3] = body[f"{name}.weight"]
            own[f"{name}.weight"] = wide
        self.body.load_state_dict(own)

    @torch.no_grad()
    def attach(self, generator: nn.Module) -> None:
        """Set the mean code to the generator's."""
        self.w_avg.copy_(generator.w_avg)

    def _widen(self, pictures: int) -> None:
        """Give the backbone's first convolution the channels of several images."""
        name, first = first_convolution(self.body)
        bias = first.bias is not None
        wide = nn.Conv2d(3 * pictures, first.out_channels, 3, first.stride, first.padding, bias=bias)
        self.body.set_submodule(name, wide)


def first_convolution(body: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the name of the first convolution, and the convolution."""
    return next((name, part) for name, part in body.named_modules() if isinstance(part, nn.Conv2d))


class PspInverter(PeerInverter):
    """pSp: one pass of its encoder."""

    encoders: ClassVar[dict[str, Callable[..., nn.Module]]] = {"psp": PspEncoder}
