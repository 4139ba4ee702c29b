"""Training: one loop (`fit`) over tasks; each module has one task, its settings, and `train`."""

from clcae_lib.training.config import ConfigError, TrainConfig, load_config
from clcae_lib.training.loop import Task, fit, install
