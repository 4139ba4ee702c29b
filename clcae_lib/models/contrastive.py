"""The two encoders of alignment, of images and of codes, to one embedding (arXiv 2211.11448, section 3.1)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from clcae_lib.models.backbone import StyleBlock, make_backbone, to_encoder_side
from clcae_lib.models.config import configured


def projection_head(inputs: int, outputs: int) -> nn.Sequential:
    """Return the head that projects an encoder's features into the embedding."""
    return nn.Sequential(nn.Linear(inputs, inputs), nn.GELU(), nn.Linear(inputs, outputs))


class ImageEncoder(nn.Module):
    """Map images to unit vectors: backbone, one style block on c3, projection.

    The backbone has the inversion encoder's layout, so that inversion can start from its weights.

    Args:
        resolution: side of the images; larger ones are averaged down to 256.
    """

    @configured
    def __init__(
        self,
        resolution: int,
        *,
        embedding: int = 128,
        width: int = 128,
        body: str = "small",
        widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.body = make_backbone(body, widths=widths)
        side = min(resolution, 256) // 16
        self.style = StyleBlock(self.body.channels[-1], width, side=side, gain=1.0)
        self.projection = projection_head(width, embedding)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return unit vectors of images in [-1, 1]."""
        coarse = self.body(to_encoder_side(images))[-1]
        return normalize(self.projection(self.style(coarse)).float(), dim=1)


class LatentEncoder(nn.Module):
    """Map codes of W to unit vectors: residual blocks on `(w - w_avg) / w_std`, then projection.

    The paper's latent encoder is a transformer. But a code is one token, and attention over one token is a
    linear map (its softmax is 1). The rest of a transformer layer is a residual pre-norm feed-forward layer,
    which is what this encoder has.
    """

    w_avg: Tensor
    w_std: Tensor

    @configured
    def __init__(self, style_dim: int, *, embedding: int = 128, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.register_buffer("w_avg", torch.zeros(style_dim))
        self.register_buffer("w_std", torch.ones(style_dim))
        self.enter = nn.Linear(style_dim, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = projection_head(width, embedding)

    def standardise_by(self, w: Float[Tensor, "n d"]) -> None:
        """Set mean and standard deviation from samples of W.

        The standard deviation of a coordinate is at least a tenth of the root mean square of all, so that a
        nearly constant coordinate is not amplified.
        """
        std = w.std(dim=0)
        self.w_avg.copy_(w.mean(dim=0))
        self.w_std.copy_(std.clamp_min(0.1 * std.square().mean().sqrt()))

    def forward(self, w: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Return unit vectors of codes."""
        x = self.enter((w - self.w_avg) / self.w_std)
        for block in self.blocks:
            x = x + block(x)
        return normalize(self.projection(self.norm(x)).float(), dim=1)
