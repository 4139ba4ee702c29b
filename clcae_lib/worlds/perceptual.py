"""LPIPS with AlexNet: the perceptual distance of the paper's objective and of its tables (section 4.1).

Its AlexNet trunk must be downloaded. Worlds of photographs use LPIPS for losses and measures; the portraits
have their own perceptual network. Every table has the `name` of its distance.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import paths, vision_repair
from clcae_lib.files import sha256
from clcae_lib.weights import checkpoints, read_weights

#: torchvision's file; its name ends in the first digits of its SHA-256.
ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
_DIGEST_START = "7be5be79"


def find_alexnet() -> Path | None:
    """Return the file of AlexNet's weights from `clcae fetch lpips`; None if it does not exist."""
    path = paths.data_dir() / "networks" / ALEXNET_FILE
    return path if path.is_file() else None


def distance_name(distance: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Return the name of a perceptual distance in a table."""
    return getattr(distance, "name", type(distance).__name__)


class LpipsAlex(nn.Module):
    """LPIPS with AlexNet (version 0.1, with the linear heads of the lpips package), frozen.

    A file that is not torchvision's AlexNet raises a ValueError.
    """

    name = "LPIPS-Alex"

    def __init__(self, weights: Path):
        super().__init__()
        if not sha256(weights).startswith(_DIGEST_START):
            raise ValueError(
                f"{weights} is not torchvision's AlexNet: its SHA-256 should begin with "
                f"{_DIGEST_START}; delete the file or fetch it again"
            )
        self.lpips = empty_lpips()
        trunk = read_weights(weights).tensors
        own = self.lpips.net.state_dict()
        self.lpips.net.load_state_dict({name: trunk[f"features.{name.split('.', 1)[1]}"] for name in own})
        self.requires_grad_(False).eval()

    def forward(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the distances of pairs of images in [-1, 1]."""
        return self.lpips(x, y).flatten()


def empty_lpips() -> nn.Module:
    """Return the lpips package's network with its heads and an AlexNet of zeros, without a download."""
    vision_repair.ensure_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses old names of torchvision
        import lpips

        with checkpoints.Undrawn():
            return lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
