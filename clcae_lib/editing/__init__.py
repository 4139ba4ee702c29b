"""Finding directions that change one attribute, and applying them to an inverted picture."""

from clcae_lib.editing.apply import activation, apply, apply_all, carry_feature, interpolate, traverse
from clcae_lib.editing.calibrate import calibrate
from clcae_lib.editing.direction import Direction, load_directions, load_interfacegan, save_directions
from clcae_lib.editing.find import cached_directions, effects, find_directions, pick
from clcae_lib.editing.ganspace import Components, ganspace, load_ganspace, set_coordinate
from clcae_lib.editing.interfacegan import condition, interfacegan
from clcae_lib.editing.response import Labelled, label_codes, response
from clcae_lib.editing.sampling import in_batches, sample_codes
from clcae_lib.editing.sefa import factorise, sefa

__all__ = [
    "Components",
    "Direction",
    "Labelled",
    "activation",
    "apply",
    "apply_all",
    "cached_directions",
    "calibrate",
    "carry_feature",
    "condition",
    "effects",
    "factorise",
    "find_directions",
    "ganspace",
    "in_batches",
    "interfacegan",
    "interpolate",
    "label_codes",
    "load_directions",
    "load_ganspace",
    "load_interfacegan",
    "pick",
    "response",
    "sample_codes",
    "save_directions",
    "sefa",
    "set_coordinate",
    "traverse",
]
