"""CLCAE (arXiv 2211.11448, CVPR 2023): StyleGAN2 inversion and editing from the foundation latent space.

Importing the package is cheap: it imports neither torch nor Jupyter. A module that needs torchvision,
torchmetrics or lpips calls `vision_repair.ensure_torchvision()` before importing them.
"""

import os

from clcae_lib import vision_repair

# torch's threads wait for each other by spinning for milliseconds. On a machine with other busy processes
# this takes most of the time: two threads then draw 53 images per second, or 84 if they sleep sooner (means
# of three runs on two cores; 332 and 320 on idle ones). torch reads this at import, as do child processes.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__all__ = ["vision_repair"]
__version__ = "0.1.0"
