"""Pictures to codes and back: CLCAE's encoder, the methods it is compared with, and all of them by name."""

from clcae_lib.inversion.decoder import Plain, Restoring, Tuned
from clcae_lib.inversion.hybrid import HybridInverter
from clcae_lib.inversion.inversion import SPACES, Inversion
from clcae_lib.inversion.inverter import ClcaeInverter, Inverter
from clcae_lib.inversion.methods import METHODS, Method, make_inverter
from clcae_lib.inversion.nearest import MeanFaceInverter, NearestCodeInverter
from clcae_lib.inversion.optimisation import OptimisationInverter
from clcae_lib.inversion.pti import PtiInverter

__all__ = [
    "METHODS",
    "SPACES",
    "ClcaeInverter",
    "HybridInverter",
    "Inversion",
    "Inverter",
    "MeanFaceInverter",
    "Method",
    "NearestCodeInverter",
    "OptimisationInverter",
    "Plain",
    "PtiInverter",
    "Restoring",
    "Tuned",
    "make_inverter",
]
