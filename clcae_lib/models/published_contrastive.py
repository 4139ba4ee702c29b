"""The official code's contrastive encoders, with its arithmetic and parameter names.

The latent encoder is three transformer layers over one token: attention is a linear map there, and
`pos_embedding`, which the official code adds to queries and keys only, changes nothing. The layout has it.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from clcae_lib.models.irse import IrBody
from clcae_lib.models.published import PublishedStyleBlock, to_published_side


class PublishedHead(nn.Module):
    """Linear, BatchNorm, ReLU, Linear; no biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, dim, bias=False)
        self.bn = nn.BatchNorm1d(dim)
        self.lin2 = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The projected vectors."""
        return self.lin2(torch.relu(self.bn(self.lin1(x))))


class _PublishedBody(IrBody):
    """Body and first style block; the lateral convolutions exist in the layout and are unused."""

    def __init__(self, resolution: int, dim: int, widths: Sequence[int], units: Sequence[int]) -> None:
        super().__init__(widths=widths, units=units)
        side = min(resolution, 256) // 16
        self.styles = nn.ModuleList([PublishedStyleBlock(dim, dim, side=side)])
        self.latlayer1 = nn.Conv2d(widths[3], dim, 1)
        self.latlayer2 = nn.Conv2d(widths[2], dim, 1)

    def forward(self, images: Tensor) -> Float[Tensor, "batch dim"]:
        return self.styles[0](self.maps(images)[-1])


class PublishedImageEncoder(nn.Module):
    """Pictures, less the picture of the mean code, to unit vectors.

    Args:
        resolution: side of the pictures.
        dim: length of the vectors; the body must end in as many channels.
        widths: channels of the IR-SE body.
        units: of its stages.
    """

    def __init__(
        self,
        resolution: int = 256,
        *,
        dim: int = 512,
        widths: Sequence[int] = (64, 64, 128, 256, 512),
        units: Sequence[int] = (3, 4, 14, 3),
    ) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.encoder = _PublishedBody(resolution, dim, widths, units)
        self.image_projection = PublishedHead(dim)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], average: Float[Tensor, "#batch 3 height width"]
    ) -> Float[Tensor, "batch dim"]:
        """Unit vectors of images in [-1, 1]."""
        return normalize(self.image_projection(self.vectors(images, average)), dim=1)

    def vectors(
        self, images: Float[Tensor, "batch 3 height width"], average: Float[Tensor, "#batch 3 height width"]
    ) -> Float[Tensor, "batch dim"]:
        """What the head projects: the output of the style block."""
        return self.encoder(to_published_side(images) - average)


class PublishedLatentEncoder(nn.Module):
    """Codes, less the mean code, to unit vectors.

    Args:
        dim: length of code and vector.
        heads: of attention. It has no effect but on dropout.
    """

    def __init__(self, dim: int = 512, *, heads: int = 4) -> None:
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, 1, dim))
        self.coarse, self.medium, self.fine = (
            nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.1, batch_first=True) for _ in range(3)
        )
        self.latent_projection = PublishedHead(dim)

    def forward(
        self, w: Float[Tensor, "batch dim"], w_avg: Float[Tensor, "#batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """Unit vectors of codes."""
        return normalize(self.latent_projection(self.vectors(w, w_avg)), dim=1)

    def vectors(
        self, w: Float[Tensor, "batch dim"], w_avg: Float[Tensor, "#batch dim"]
    ) -> Float[Tensor, "batch dim"]:
        """What the head projects: the output of the last layer."""
        x = (w - w_avg)[:, None]
        for layer in (self.coarse, self.medium, self.fine):
            x = layer(x)
        return x[:, 0]


class OfficialImageEncoder(nn.Module):
    """The official image encoder with the interface of `ImageEncoder`: the mean code's image is its own.

    It was trained on squares of 256 pixels, of cars too; the inversion shows it cars of 192x256, as they are.
    """

    average: Tensor

    def __init__(self, encoder: PublishedImageEncoder, average: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("average", average, persistent=False)

    @property
    def body(self) -> nn.Module:
        """What an inversion encoder of the same layout can start from."""
        return self.encoder.encoder

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors of images in [-1, 1]."""
        return self.encoder(images, self.average)


class OfficialLatentEncoder(nn.Module):
    """The official latent encoder with the interface of `LatentEncoder`: the mean code is its own."""

    w_avg: Tensor

    def __init__(self, encoder: PublishedLatentEncoder, w_avg: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("w_avg", w_avg, persistent=False)

    def forward(self, w: Tensor) -> Tensor:
        """Unit vectors of codes."""
        return self.encoder(w, self.w_avg[None])
