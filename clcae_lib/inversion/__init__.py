"""Invert images into codes, with CLCAE and with the methods it is compared with, and decode them."""

from clcae_lib.inversion.inversion import Inversion, Plain, Restoring, Tuned
from clcae_lib.inversion.inverter import ClcaeInverter, Inverter
from clcae_lib.inversion.methods import METHODS, Method, images_seen, make_inverter
from clcae_lib.inversion.nearest import MeanFaceInverter, NearestCodeInverter
from clcae_lib.inversion.optimisation import HybridInverter, OptimisationInverter, Settings
from clcae_lib.inversion.pti import PtiInverter
