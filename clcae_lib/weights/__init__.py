"""Weights files: fetch, read without running code, recognise, build into networks, and convert them."""

from clcae_lib.weights.build import (
    ENCODERS,
    export_generator,
    load_alignment,
    load_arcface,
    load_contrastive,
    load_encoder,
    load_feature_editor,
    load_generator,
    load_inversion,
    load_moco,
    save_alignment,
    save_generator,
)
from clcae_lib.weights.checkpoints import UnsafeFileError, WeightsError
from clcae_lib.weights.convert import convert_file, inspect_file, read_as
from clcae_lib.weights.layouts import recognise
from clcae_lib.weights.read import Contents, read_weights
