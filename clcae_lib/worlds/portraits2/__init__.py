"""The second version of the embedded world: a closer camera, and every factor visible at 64 pixels.

It stands beside `portraits` until its chain of weights is complete; then its factors and renderer replace
those of that world.
"""

from collections.abc import Sequence

from clcae_lib.worlds.portraits import Portraits, PortraitsWorld
from clcae_lib.worlds.portraits2 import renderer
from clcae_lib.worlds.portraits2.factors import FACTORS, sample_factors
from clcae_lib.worlds.portraits2.renderer import render
from clcae_lib.worlds.world import WORLDS


class Portraits2(Portraits):
    """A split of the `portraits2` world."""

    world = "portraits2"
    renderer = renderer
    sample_factors = staticmethod(sample_factors)


class Portraits2World(PortraitsWorld):
    """Portraits of 64x64 pixels with known factors, close to the camera."""

    name = "portraits2"
    widen = 0.87
    factors: Sequence = FACTORS
    data = Portraits2
    draw = staticmethod(render)


WORLDS["portraits2"] = Portraits2World

__all__ = ["Portraits2", "Portraits2World"]
