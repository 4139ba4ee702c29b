"""Training: one loop (`fit`) for all tasks; each module has a task, its settings, and `train`."""

from clcae_lib.training.config import ConfigError, TrainConfig, load_config
from clcae_lib.training.loop import Task, fit, install
