"""CLCAE (arXiv 2211.11448, CVPR 2023): StyleGAN2 inversion and editing from the foundation latent space.

Importing the package is cheap: it imports neither torch nor Jupyter. A module that needs torchvision,
torchmetrics or lpips calls `vision_repair.ensure_torchvision()` before importing them.
"""

from clcae_lib import vision_repair

__all__ = ["vision_repair"]
__version__ = "0.1.0"
