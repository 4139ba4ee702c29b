"""The latent spaces of StyleGAN2 and their shapes (arXiv 2211.11448, section 3; arXiv 1904.03189 for W+)."""

import math

from jaxtyping import Float
from torch import Tensor

SPACE_LABELS = {"w": "W", "w_plus": "W+", "f": "F"}
"""W, W+, and the feature map F (with W+ for the layers after it), as tables and figures name them."""
SPACES = tuple(SPACE_LABELS)


def num_layers(resolution: int) -> int:
    """Return L, the number of codes in W+: `2 * log2(resolution) - 2`."""
    return 2 * int(math.log2(resolution)) - 2


def feature_layer(side: int) -> int:
    """Return the number of the activation that F replaces, the second one at its side: 5 at 16 pixels."""
    return 2 * int(math.log2(side)) - 3


def broadcast_w(w: Float[Tensor, "n d"], layers: int) -> Float[Tensor, "n l d"]:
    """Return W+ codes with `w` at every layer (a view of `w`)."""
    return w[:, None].expand(-1, layers, -1)
