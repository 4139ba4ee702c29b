"""LPIPS with AlexNet: the perceptual distance of the paper's objective and of its tables (section 4.1).

Its AlexNet trunk is a download. Worlds of photographs use it for losses and for measures; the portraits have
a perceptual distance of their own. Both carry a `name`, which every table prints, so that one is never read
as the other.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import paths, vision_repair
from clcae_lib.files import sha256
from clcae_lib.weights import checkpoints, read_weights

#: The file as torchvision publishes it; the name ends in the first digits of its SHA-256.
ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
_DIGEST_START = "7be5be79"


def find_alexnet() -> Path | None:
    """Return the file of AlexNet's weights, where `clcae fetch lpips` places it; None if it is not there."""
    path = paths.data_dir() / "networks" / ALEXNET_FILE
    return path if path.is_file() else None


def distance_name(distance: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Return what a perceptual distance is called in a table."""
    return getattr(distance, "name", type(distance).__name__)


class LpipsAlex(nn.Module):
    """LPIPS with AlexNet (version 0.1, its linear heads come with the package), frozen.

    Raises:
        ValueError: the file is not torchvision's AlexNet.
    """

    name = "LPIPS-Alex"

    def __init__(self, weights: Path):
        super().__init__()
        if not sha256(weights).startswith(_DIGEST_START):
            raise ValueError(
                f"{weights} is not torchvision's AlexNet: its SHA-256 should begin with "
                f"{_DIGEST_START}; delete the file or fetch it again"
            )
        self.lpips = _lpips_with_trunk(read_weights(weights).tensors)
        self.requires_grad_(False).eval()

    def forward(
        self, x: Float[Tensor, "n 3 height width"], y: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, " n"]:
        """Distances of pairs of images in [-1, 1]."""
        return self.lpips(x, y).flatten()


def _lpips_with_trunk(trunk: dict[str, Tensor]) -> nn.Module:
    """The lpips package's network with this AlexNet as its trunk; nothing is downloaded."""
    model = _empty_lpips()
    own = model.net.state_dict()
    renamed = {name: trunk["features." + name.split(".", 1)[1]] for name in own}
    model.net.load_state_dict(renamed)
    return model


def _empty_lpips() -> nn.Module:
    vision_repair.ensure_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision by its former names
        import lpips

        with checkpoints.Undrawn():
            return lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)


def lpips_from_published(tensors: dict[str, Tensor]) -> nn.Module:
    """LPIPS from weights under the official code's names: `net.layers.N.*`, `lin.I.1.weight`.

    Raises:
        ValueError: names are missing or left over.
    """
    names = {"net.mean": "scaling_layer.shift", "net.std": "scaling_layer.scale"}
    slices = {"0": 1, "3": 2, "6": 3, "8": 4, "10": 5}
    for name in tensors:
        parts = name.split(".")
        if parts[:2] == ["net", "layers"] and parts[2] in slices:
            names[name] = f"net.slice{slices[parts[2]]}.{parts[2]}.{parts[3]}"
        elif parts[0] == "lin":
            names[name] = f"lin{parts[1]}.model.1.weight"
    model = _empty_lpips()
    # The package holds its heads twice, as attributes and in a list.
    renamed = {names.get(name, name): value for name, value in tensors.items()}
    renamed |= {
        f"lins.{name[3]}{name[4:]}": value for name, value in renamed.items() if name.startswith("lin")
    }
    checkpoints.load_into(model, renamed, source="the published LPIPS weights")
    return model.requires_grad_(False).eval()
