"""The second version of the embedded world: a closer camera, and every factor visible at 64 pixels.

It lies beside `portraits` until its chain of weights is complete; then its factors and renderer take the
place of that world's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clcae_lib.worlds.portraits import Portraits, PortraitsWorld
from clcae_lib.worlds.portraits2 import renderer
from clcae_lib.worlds.portraits2.factors import FACTORS, MEAN, NAMES, STATE_NAMES, STD, sample_factors
from clcae_lib.worlds.portraits2.renderer import render
from clcae_lib.worlds.world import register_world


class Portraits2(Portraits):
    """A split of the `portraits2` world."""

    world = "portraits2"
    renderer = renderer
    sample_factors = staticmethod(sample_factors)


@register_world("portraits2")
class Portraits2World(PortraitsWorld):
    """Portraits of 64x64 pixels with known factors, close to the camera."""

    name = "portraits2"
    widen = 0.87
    factor_names: Sequence[str] = NAMES
    state_names: Sequence[str] = STATE_NAMES
    factor_mean: Tensor = MEAN
    factor_std: Tensor = STD
    factor_low: Tensor = torch.tensor([float(factor.low) for factor in FACTORS])
    factor_high: Tensor = torch.tensor([float(factor.high) for factor in FACTORS])
    factor_texts: Sequence[str] = tuple(factor.text for factor in FACTORS)
    factors: Sequence = FACTORS
    data = Portraits2
    draw = staticmethod(render)


__all__ = ["Portraits2", "Portraits2World"]
