"""Pictures to codes and back: CLCAE's encoder, the methods it is compared with, and all of them by name."""

from clcae_lib.inversion.inversion import SPACES, Inversion
from clcae_lib.inversion.inverter import ClcaeInverter, Inverter
from clcae_lib.inversion.methods import METHODS, Method, make_inverter
from clcae_lib.inversion.nearest import MeanFaceInverter, NearestCodeInverter
from clcae_lib.inversion.optimisation import OptimisationInverter

__all__ = [
    "METHODS",
    "SPACES",
    "ClcaeInverter",
    "Inversion",
    "Inverter",
    "MeanFaceInverter",
    "Method",
    "NearestCodeInverter",
    "OptimisationInverter",
    "make_inverter",
]
