"""The official code's contrastive encoders, with its arithmetic and parameter names.

The latent encoder has three transformer layers over one token. So attention is a linear map, and the
`pos_embedding`, which the official code adds only to queries and keys, has no effect; it is part of the
layout.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from clcae_lib.models.irse import UNITS, WIDTHS, IrBackbone
from clcae_lib.models.published import PublishedStyleBlock, to_published_side


class PublishedHead(nn.Module):
    """Linear, BatchNorm, ReLU, Linear; no biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, dim, bias=False)
        self.bn = nn.BatchNorm1d(dim)
        self.lin2 = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the projected vectors."""
        return self.lin2(torch.relu(self.bn(self.lin1(x))))


class _PublishedBackbone(IrBackbone):
    """Backbone and first style block; the lateral convolutions are part of the layout but unused."""

    def __init__(self, resolution: int, dim: int, widths: Sequence[int], units: Sequence[int]) -> None:
        super().__init__(widths=widths, units=units)
        side = min(resolution, 256) // 16
        self.styles = nn.ModuleList([PublishedStyleBlock(dim, dim, side=side)])
        self.latlayer1 = nn.Conv2d(widths[3], dim, 1)
        self.latlayer2 = nn.Conv2d(widths[2], dim, 1)

    def forward(self, images: Tensor) -> Float[Tensor, "n d"]:
        return self.styles[0](self.maps(images)[-1])


class PublishedImageEncoder(nn.Module):
    """Map images, minus the image of the mean code, to unit vectors.

    It was trained on squares of 256 pixels, even for cars; the inversion passes it cars of 192x256 pixels.

    Args:
        dim: length of the vectors, and channels of c3.

    Attributes:
        average: image of the mean code, to be set; not in the state_dict.
    """

    average: Tensor

    def __init__(
        self,
        resolution: int = 256,
        *,
        dim: int = 512,
        widths: Sequence[int] = WIDTHS,
        units: Sequence[int] = UNITS,
    ) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.encoder = _PublishedBackbone(resolution, dim, widths, units)
        self.image_projection = PublishedHead(dim)
        self.register_buffer("average", torch.zeros(1, 3, 1, 1), persistent=False)

    @property
    def body(self) -> nn.Module:
        """The backbone, from which an inversion encoder of the same layout can start."""
        return self.encoder

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return unit vectors of images in [-1, 1]."""
        return normalize(self.image_projection(self.vectors(images)), dim=1)

    def vectors(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return the output of the style block, which the head projects."""
        return self.encoder(to_published_side(images) - self.average)


class PublishedLatentEncoder(nn.Module):
    """Map codes, minus the mean code, to unit vectors.

    Args:
        dim: length of code and vector.
        heads: number of attention heads; it affects only dropout.

    Attributes:
        w_avg: mean code, to be set; not in the state_dict.
    """

    w_avg: Tensor

    def __init__(self, dim: int = 512, *, heads: int = 4) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1, dim))
        self.coarse, self.medium, self.fine = (
            nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.1, batch_first=True) for _ in range(3)
        )
        self.latent_projection = PublishedHead(dim)
        self.register_buffer("w_avg", torch.zeros(dim), persistent=False)

    def forward(self, w: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return unit vectors of codes."""
        return normalize(self.latent_projection(self.vectors(w)), dim=1)

    def vectors(self, w: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the output of the last layer, which the head projects."""
        x = (w - self.w_avg)[:, None]
        for layer in (self.coarse, self.medium, self.fine):
            x = layer(x)
        return x[:, 0]
