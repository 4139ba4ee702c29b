"""Find directions that change one attribute, and apply them to inverted images."""

from clcae_lib.editing.apply import apply, apply_all, interpolate, mix, traverse
from clcae_lib.editing.direction import Direction, load_directions, save_directions
from clcae_lib.editing.find import cached_directions, find_directions
from clcae_lib.editing.ganspace import Components, ganspace, load_ganspace
from clcae_lib.editing.interfacegan import condition, interfacegan
from clcae_lib.editing.named import install_directions, named_directions
from clcae_lib.editing.probe import LinearProbe, alignment_probe, fit_probe, held_out_r_squared
from clcae_lib.editing.response import (
    Labelled,
    calibrate,
    effects,
    factor_column,
    in_batches,
    label_codes,
    pick,
    response,
    sample_codes,
)
from clcae_lib.editing.sefa import factorise, sefa
from clcae_lib.editing.stylespace import (
    channel_effects,
    channel_spread,
    rank_channels,
    region_effects,
    stylespace,
)
