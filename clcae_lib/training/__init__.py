"""Training: one loop (`fit`) over tasks; adversarial training of a generator is one of them."""

from clcae_lib.training._logging import tile
from clcae_lib.training._seeds import Shuffled, seed_step, step_generator
from clcae_lib.training.config import ConfigError, TrainConfig, load_config
from clcae_lib.training.loop import Task, fit, install

__all__ = [
    "ConfigError",
    "Shuffled",
    "Task",
    "TrainConfig",
    "fit",
    "install",
    "load_config",
    "seed_step",
    "step_generator",
    "tile",
]
