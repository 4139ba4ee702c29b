"""The networks that measure portraits: attribute regressor (oracle), identity and perceptual network.

They replace the pretrained networks of the paper's objective and measures (section 3.3: LPIPS and the face
network), and the regressor estimates every factor. Each exists in two copies with fixed roles: copy a, the
loss network, gives losses and labels (role "train"), copy b, the evaluation network, measures.

All have the same small residual trunk and different heads. The trunk's input has 64x64 pixels; other sizes
are averaged or interpolated to it.
"""

from pathlib import Path

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.models import configured
from clcae_lib.models.identity import Embedding
from clcae_lib.weights import checkpoints
from clcae_lib.worlds.portraits.factors import FACTORS

SIDE = 64
WIDTHS = (32, 64, 96, 128)


def resize(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 64 64"]:
    """Return images at 64x64 pixels, averaged or interpolated."""
    side = images.shape[-1]
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    if side % SIDE == 0 and images.shape[-2] == side:
        return nnf.avg_pool2d(images, side // SIDE)
    return nnf.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)


class _Residual(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a skip connection."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def _down(inputs: int, outputs: int) -> nn.Sequential:
    """Return a layer that halves the resolution."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Trunk(nn.Module):
    """Features of an image at 32, 16, 8 and 4 pixels.

    Args:
        widths: channels of the four levels, each with a residual block.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(16), nn.ReLU())
        inputs = (16, *widths[:-1])
        self.levels = nn.ModuleList(
            nn.Sequential(_down(a, b), _Residual(b)) for a, b in zip(inputs, widths, strict=True)
        )

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> list[Float[Tensor, "n c h w"]]:
        """Return the activations at 32, 16, 8 and 4 pixels."""
        x, features = self.stem(resize(images).contiguous(memory_format=torch.channels_last)), []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class _Head(nn.Module):
    """Maps the 4x4 features to a vector."""

    def __init__(self, width: int, hidden: int, outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, 32, 1),
            nn.Flatten(),
            nn.ReLU(),
            nn.Linear(32 * 16, hidden),
            nn.ReLU(),
            nn.Linear(hidden, outputs),
        )

    def forward(self, x: Float[Tensor, "n c 4 4"]) -> Float[Tensor, "n k"]:
        return self.layers(x)


class Judge(nn.Module):
    """Base class of the networks: a trunk, and a head on its last level."""

    kind: str

    def __init__(self, widths, hidden: int, outputs: int):
        super().__init__()
        self.trunk = Trunk(tuple(widths))
        self.head = _Head(widths[-1], hidden, outputs)

    def predictions(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Return the head's output: standardised factors, for the perceptual network then landmarks."""
        return self.head(self.trunk(images)[-1]).float()


class Oracle(Judge):
    """Attribute regressor: images to all factors, in the order and units of `factors.FACTORS`."""

    kind = "oracle"

    @configured
    def __init__(self, widths=WIDTHS, hidden: int = 128):
        super().__init__(widths, hidden, len(FACTORS))
        self.register_buffer("mean", torch.tensor([f.mean for f in FACTORS]), persistent=False)
        self.register_buffer("std", torch.tensor([f.std for f in FACTORS]), persistent=False)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Return factors in their own units (degrees, shares, ...)."""
        return self.predictions(images) * self.std + self.mean


class IdentityEmbedding(Judge, Embedding):
    """Identity network: images to unit vectors, whose inner product is high for images of one person."""

    kind = "identity"
    name = "portraits identity"

    @configured
    def __init__(self, widths=WIDTHS, hidden: int = 128, outputs: int = 64):
        super().__init__(widths, hidden, outputs)
        self.columns = [i for i, factor in enumerate(FACTORS) if factor.group == "identity"]
        self.features = nn.Linear(outputs, len(self.columns))
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return unit vectors."""
        return nnf.normalize(self.predictions(images), dim=1)

    def targets(self, standardised: Float[Tensor, "n k"]) -> Float[Tensor, "n i"]:
        """Return the identity's columns of standardised factors, which `features` predicts in training."""
        return standardised[:, self.columns]


class Perceptual(Judge):
    """Perceptual network: distances of pairs of images, as LPIPS, on features learned from portraits.

    At each level the features of both images are normalised at every position; squared differences are
    averaged over positions and then over levels. The trunk was trained to predict factors and landmarks.
    """

    kind = "perceptual"
    name = "portraits perceptual"
    repeats_targets = True

    @configured
    def __init__(self, widths=WIDTHS, hidden: int = 128, landmarks: int = 0):
        super().__init__(widths, hidden, len(FACTORS) + 2 * landmarks)

    def pooled(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n f"]:
        """Return one vector per image, for Fréchet distances: the last level's mean over positions."""
        return self.trunk(images)[-1].float().mean((2, 3))

    def described(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Return `predictions`, then `pooled`, of one pass."""
        last = self.trunk(images)[-1]
        return torch.cat([self.head(last).float(), last.float().mean((2, 3))], dim=1)

    def forward(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "m 3 h w"]) -> Float[Tensor, " n"]:
        """Return distances, 0 for equal images; `y` is repeated to the length of `x`, its features too."""
        levels, repeats = zip(self.trunk(x), self.trunk(y), strict=True), len(x) // len(y)
        distances = []
        for a, b in levels:
            b = b if repeats == 1 else b.repeat(repeats, 1, 1, 1)
            distances.append(_level_distance(a.float(), b.float()))
        return torch.stack(distances).mean(0)


def _level_distance(a: Float[Tensor, "n c h w"], b: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    difference = nnf.normalize(a, dim=1, eps=1e-4) - nnf.normalize(b, dim=1, eps=1e-4)
    return difference.square().sum(1).mean((1, 2))


JUDGES: dict[str, type[Judge]] = {net.kind: net for net in (Oracle, IdentityEmbedding, Perceptual)}


def load_judge(path: Path, kind: str, *, device="cpu") -> Judge:
    """Return the network in a weights file, frozen, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or does not fit.
    """
    tensors, metadata = checkpoints.load_weights(path, kind=kind)
    network = checkpoints.build(lambda: JUDGES[kind](**metadata["config"]), tensors, source=path)
    return network.to(device)
