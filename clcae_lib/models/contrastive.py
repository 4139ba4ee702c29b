"""The two encoders of alignment, picture and code to one embedding (arXiv 2211.11448, section 3.1)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from clcae_lib.models.backbone import StyleBlock, make_body, to_encoder_side


class ProjectionHead(nn.Sequential):
    """Linear, GELU, Linear: the last step into the shared space, which keeps the encoder's own space free."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, inputs), nn.GELU(), nn.Linear(inputs, outputs))


class ImageEncoder(nn.Module):
    """Pictures to unit vectors: body, one style block on c3, projection.

    The body has the inversion encoder's layout, so that inversion can start from its weights.

    Args:
        resolution: side of the pictures; more than 256 is averaged down to 256.
        embedding: length of the vectors.
        width: of the style block.
        body: name of the body, see `make_body`.
        widths: channels of the body, if not its own.
    """

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
        self.config = {
            "resolution": resolution,
            "embedding": embedding,
            "width": width,
            "body": body,
            "widths": list(widths) if widths else None,
        }
        self.body = make_body(body, widths=widths)
        side = min(resolution, 256) // 16
        self.style = StyleBlock(self.body.channels[-1], width, side=side, gain=1.0)
        self.projection = ProjectionHead(width, embedding)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch embedding"]:
        """Unit vectors of images in [-1, 1]."""
        coarse = self.body(to_encoder_side(images))[-1]
        return normalize(self.projection(self.style(coarse)).float(), dim=1)


class LatentEncoder(nn.Module):
    """Codes of W to unit vectors: residual feed-forward blocks on `(w - w_avg) / w_std`, then projection.

    The paper's latent encoder is a transformer, but a code is one token, and attention over one token is a
    linear map (its softmax is 1 whatever the queries and keys are). What is left of a transformer layer is
    this: a pre-norm feed-forward layer beside a residual, and it is written as that.

    Args:
        style_dim: length of a code.
        embedding: length of the vectors.
        width: of the residual stream.
        depth: how many blocks.
    """

    w_avg: Tensor
    w_std: Tensor

    def __init__(self, style_dim: int, *, embedding: int = 128, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.config = {"style_dim": style_dim, "embedding": embedding, "width": width, "depth": depth}
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
        self.projection = ProjectionHead(width, embedding)

    def standardise_by(self, w: Float[Tensor, "samples style_dim"]) -> None:
        """Take mean and standard deviation from samples of W.

        A coordinate that hardly varies counts as varying a tenth as much as the average one, so that it is
        not blown up.
        """
        std = w.std(dim=0)
        self.w_avg.copy_(w.mean(dim=0))
        self.w_std.copy_(std.clamp_min(0.1 * std.square().mean().sqrt()))

    def forward(self, w: Float[Tensor, "batch style_dim"]) -> Float[Tensor, "batch embedding"]:
        """Unit vectors of codes."""
        x = self.enter((w - self.w_avg) / self.w_std)
        for block in self.blocks:
            x = x + block(x)
        return normalize(self.projection(self.norm(x)).float(), dim=1)
