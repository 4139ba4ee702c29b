"""Cross-attention between codes and image tokens (arXiv 2211.11448, section 3.2).

The published block has a single key, so its softmax is always 1. The keys of this block are the tokens of a
whole feature map, with positions.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class CrossAttention(nn.Module):
    """A pre-norm block: `h = q + attention(LN q, tokens)`, then `h + FFN(LN h)`.

    Args:
        dim: width of queries and tokens; a multiple of `heads`.

    Raises:
        ValueError: `dim` is not a multiple of `heads`.
    """

    def __init__(self, dim: int, *, heads: int = 4) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim={dim} is not a multiple of heads={heads}; change one of them")
        self.heads = heads
        self.query_norm = nn.LayerNorm(dim)
        self.to_query = nn.Linear(dim, dim)
        self.to_key_value = nn.Linear(dim, 2 * dim)
        self.to_out = nn.Linear(dim, dim)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )

    def forward(
        self,
        queries: Float[Tensor, "n q d"],
        tokens: Float[Tensor, "n t d"],
        *,
        need_weights: bool = False,
    ) -> Float[Tensor, "n q d"] | tuple[Float[Tensor, "n q d"], Float[Tensor, "n heads q t"]]:
        """Return the updated queries; with `need_weights` also the attention maps, whose rows sum to 1."""
        q = self._split(self.to_query(self.query_norm(queries)))
        k, v = (self._split(part) for part in self.to_key_value(tokens).chunk(2, dim=-1))
        if need_weights:
            weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
            seen = weights @ v
        else:
            seen = scaled_dot_product_attention(q, k, v)
        h = queries + self.to_out(seen.transpose(1, 2).flatten(2))
        out = h + self.feed_forward(h)
        return (out, weights) if need_weights else out

    def _split(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n heads t part"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


@lru_cache(maxsize=32)
def sine_positions(
    height: int, width: int, dim: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "t d"]:
    """Return fixed 2-D position codes of a map's pixels, row by row, in [-1, 1].

    Half the channels encode the row, half the column, relative to the map's size. They are cached for each
    device, because the host would have to wait for a copy in every step.
    """
    bands = math.ceil(dim / 4)
    frequencies = math.pi * 2.0 ** torch.linspace(-1, math.log2(max(height, width, 2)) - 1, bands)
    axes = []
    for size in (height, width):
        angles = ((torch.arange(size) + 0.5) / size)[:, None] * frequencies
        axes.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    rows, columns = (axis[:, : dim // 2 + dim % 2] for axis in axes)
    grid = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=-1)
    return grid[..., :dim].flatten(0, 1).to(device)
