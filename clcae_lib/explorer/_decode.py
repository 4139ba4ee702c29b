"""One pass of the generator for an edited picture (arXiv 2211.11448, section 3.4).

F follows the codes: `F_edit = F + G5(w_plus edited) - G5(w_plus)`. The pass that draws the edited picture
makes `G5(w_plus edited)` itself, so F is kept as what it adds to `G5(w_plus)`, the `feature_offset` of
`Generator.synthesis`.
"""

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from clcae_lib.images import to_array
from clcae_lib.inversion import Inversion
from clcae_lib.models import Generator


def feature_offset(generator: Generator, inversion: Inversion) -> Float[Tensor, "n c h w"] | None:
    """What F adds to the generator's own activation of the same codes; None where there is no F."""
    if inversion.feature is None:
        return None
    side = inversion.feature.shape[-1]
    own = generator.activation(inversion.w_plus, side=side, style_offsets=inversion.styles)
    return inversion.feature - own


def pixels(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of [-1, 1] as bytes."""
    return to_array(image)
