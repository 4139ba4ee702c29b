"""One pass of the generator for an edited picture (arXiv 2211.11448, section 3.4).

F follows the codes: `F_edit = F + G5(w_plus edited) - G5(w_plus)`. The pass that draws the edited picture
makes `G5(w_plus edited)` itself, so F is kept as what it adds to `G5(w_plus)`, and added on the way.
"""

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from clcae_lib.editing import activation
from clcae_lib.files import to_uint8
from clcae_lib.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.models.stylegan2 import second_activation


def feature_offset(generator: Generator, inversion: Inversion) -> Float[Tensor, "n c h w"] | None:
    """What F adds to the generator's own activation of the same codes; None where there is no F."""
    if inversion.feature is None:
        return None
    side = inversion.feature.shape[-1]
    return inversion.feature - activation(generator, inversion.w_plus, side=side, styles=inversion.styles)


def decode(
    generator: Generator,
    rows: Float[Tensor, "n l d"],
    offset: Float[Tensor, "1 c h w"] | None,
    *,
    styles: Float[Tensor, "#n s"] | None = None,
    stop_at: int | None = None,
) -> Float[Tensor, "n 3 side side"]:
    """Pictures of codes in W+, nominally in [-1, 1], with `offset` added to the activation that F replaces.

    Args:
        generator: of the codes.
        rows: one code a layer.
        offset: from `feature_offset`; None for none.
        styles: what edits add in StyleSpace; None for nothing.
        stop_at: return the picture at this lower resolution.
    """
    options = {"style_offsets": styles, "stop_at": stop_at}
    if offset is None:
        return generator.synthesis(rows, **options)
    index = second_activation(offset.shape[-1])
    reader = generator.convs[index - 1]  # the layer that reads the activation, after the picture has
    hook = reader.register_forward_pre_hook(lambda _, inputs: (inputs[0] + offset, *inputs[1:]))
    try:
        return generator.synthesis(rows, **options)
    finally:
        hook.remove()


def pixels(image: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of [-1, 1] as bytes."""
    return np.ascontiguousarray(to_uint8(image).permute(1, 2, 0).cpu().numpy())
