"""Pictures to codes and back: CLCAE's encoder, and optimisation as the baseline."""

from clcae_lib.inversion.inversion import SPACES, Inversion
from clcae_lib.inversion.inverter import ClcaeInverter, Inverter
from clcae_lib.inversion.optimisation import OptimisationInverter

__all__ = ["SPACES", "ClcaeInverter", "Inversion", "Inverter", "OptimisationInverter"]
