"""The `clcae` command. Commands import torch and Jupyter only when they run, so that `--help` is fast."""

from clcae_lib.cli.main import app

__all__ = ["app"]
