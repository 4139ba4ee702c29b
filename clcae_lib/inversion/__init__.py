"""Inversion: images to codes and back, by CLCAE and by the methods it is compared with."""

from clcae_lib.inversion.decoder import Plain, Restoring, Tuned
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.inversion.inverter import ClcaeInverter, Inverter
from clcae_lib.inversion.methods import METHODS, Method, make_inverter
from clcae_lib.inversion.nearest import MeanFaceInverter, NearestCodeInverter
from clcae_lib.inversion.optimisation import HybridInverter, OptimisationInverter, Settings
from clcae_lib.inversion.pti import PtiInverter
