"""The networks that judge portraits: the oracle of factors, the identity embedding, the perceptual distance.

They take the place of the pretrained networks of the paper's objective and measures (section 3.3: LPIPS
and the face network) and add what no photograph can offer, the truth about every factor. Each exists in
two copies that never swap: copy a gives losses and labels (role "train"), copy b measures.

All are one small residual trunk with different heads. A trunk takes 64x64 pixels; other sizes are
averaged or interpolated to it, so a judge applies to a render of any resolution.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.weights.checkpoints import build, load_weights
from clcae_lib.worlds.portraits.factors import FACTORS

SIDE = 64


def resize(images: Float[Tensor, "n c height width"]) -> Float[Tensor, "n c 64 64"]:
    """Images at the judges' 64x64, averaged down or interpolated up; unchanged where they have it."""
    side = images.shape[-1]
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    if side % SIDE == 0 and images.shape[-2] == side:
        return nnf.avg_pool2d(images, side // SIDE)
    return nnf.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)


class _Residual(nn.Module):
    """Two 3x3 convolutions around a skip, with batch normalisation."""

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
    """Halve the resolution."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Trunk(nn.Module):
    """Features of a 64x64 image at 32, 16, 8 and 4 pixels.

    Args:
        widths: channels of the four levels, each with a residual block.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 128)):
        super().__init__()
        stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(16), nn.ReLU())
        inputs = (16, *widths[:-1])
        self.levels = nn.ModuleList(
            nn.Sequential(_down(a, b), _Residual(b)) for a, b in zip(inputs, widths, strict=True)
        )

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> list[Float[Tensor, "n c h w"]]:
        """Activations at 32, 16, 8 and 4 pixels."""
        x, features = self.stem(resize(images).contiguous(memory_format=torch.channels_last)), []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class _Head(nn.Module):
    """The 4x4 features, place by place, to a vector: where something is counts as much as what it is."""

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
    """What the judges share: a trunk, their world's factors, and the arguments they can be rebuilt from."""

    kind: str

    def __init__(self, widths=(32, 64, 96, 128), hidden: int = 128, *, factors: Sequence = FACTORS):
        super().__init__()
        self.names = tuple(factor.name for factor in factors)
        self.config = {"widths": list(widths), "hidden": hidden}
        self.trunk = Trunk(tuple(widths))


class Oracle(Judge):
    """Images to factors: a regressor of all of them, in the order and units of `factors.FACTORS`."""

    kind = "oracle"

    def __init__(self, widths=(32, 64, 96, 128), hidden: int = 128, *, factors: Sequence = FACTORS):
        super().__init__(widths, hidden, factors=factors)
        self.head = _Head(widths[-1], hidden, len(factors))
        self.register_buffer("mean", torch.tensor([f.mean for f in factors]), persistent=False)
        self.register_buffer("std", torch.tensor([f.std for f in factors]), persistent=False)

    def standardised(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n k"]:
        """Factors in standard deviations from the mean of their distribution."""
        return self.head(self.trunk(images)[-1]).float()

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n k"]:
        """Factors in their own units (degrees, shares, ...)."""
        return self.standardised(images) * self.std + self.mean


class IdentityEmbedding(Judge):
    """Images to unit vectors whose inner product says whether two pictures show one person."""

    kind = "identity"
    name = "portraits identity"

    def __init__(
        self,
        widths=(32, 64, 96, 128),
        hidden: int = 128,
        outputs: int = 64,
        *,
        factors: Sequence = FACTORS,
    ):
        super().__init__(widths, hidden, factors=factors)
        self.config["outputs"] = outputs
        self.head = _Head(widths[-1], hidden, outputs)
        self.columns = [i for i, factor in enumerate(factors) if factor.group == "identity"]
        self.features = nn.Linear(outputs, len(self.columns))
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n d"]:
        """Unit vectors."""
        return nnf.normalize(self.head(self.trunk(images)[-1]).float(), dim=1)

    def similarity(
        self, x: Float[Tensor, "n 3 height width"], y: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, " n"]:
        """Cosine similarities of pairs of images, -1 to 1."""
        return (self(x) * self(y)).sum(1)

    def targets(self, standardised: Float[Tensor, "n k"]) -> Float[Tensor, "n i"]:
        """The identity's share of standardised factors, which `features` predicts in training."""
        return standardised[:, self.columns]


class Perceptual(Judge):
    """Distances of pairs of images, built as LPIPS is, on features learned from portraits.

    At each level the features of both images are brought to unit length at every position; squared
    differences are averaged over positions and then over levels. The trunk learned to regress the
    factors and to point at the landmarks.
    """

    kind = "perceptual"
    name = "portraits perceptual"

    def __init__(
        self,
        widths=(32, 64, 96, 128),
        hidden: int = 128,
        landmarks: int = 0,
        *,
        factors: Sequence = FACTORS,
    ):
        super().__init__(widths, hidden, factors=factors)
        self.config["landmarks"] = landmarks
        self.head = _Head(widths[-1], hidden, len(factors) + 2 * landmarks)

    def features(self, images: Float[Tensor, "n 3 height width"]) -> list[Float[Tensor, "n c h w"]]:
        """Activations at 32, 16, 8 and 4 pixels, not normalised."""
        return self.trunk(images)

    def pooled(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n f"]:
        """One vector an image, for Fréchet distances: the last level's mean over positions."""
        return self.trunk(images)[-1].float().mean((2, 3))

    def predictions(self, images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n k"]:
        """What the trunk learned from: standardised factors, then places of landmarks."""
        return self.head(self.trunk(images)[-1]).float()

    def forward(
        self, x: Float[Tensor, "n 3 height width"], y: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, " n"]:
        """Distances, 0 for equal images."""
        levels = zip(self.trunk(x), self.trunk(y), strict=True)
        return torch.stack([_level_distance(a.float(), b.float()) for a, b in levels]).mean(0)


def _level_distance(a: Float[Tensor, "n c h w"], b: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    difference = nnf.normalize(a, dim=1, eps=1e-4) - nnf.normalize(b, dim=1, eps=1e-4)
    return difference.square().sum(1).mean((1, 2))


JUDGES: dict[str, type[Judge]] = {net.kind: net for net in (Oracle, IdentityEmbedding, Perceptual)}


def build_judge(kind: str, *, factors: Sequence = FACTORS, **config) -> Judge:
    """A fresh judge, "oracle", "identity" or "perceptual", of a world with these factors.

    Raises:
        ValueError: there is no judge of that kind.
    """
    if kind not in JUDGES:
        raise ValueError(f"kind: there is no judge {kind!r}; choose one of {', '.join(JUDGES)}")
    return JUDGES[kind](**config, factors=factors)


def load_judge(path: Path, kind: str, *, device="cpu", factors: Sequence = FACTORS) -> Judge:
    """The judge in a weights file of a world with these factors, frozen and in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or does not fit.
    """
    tensors, metadata = load_weights(path, kind=kind)
    judge = build(lambda: build_judge(kind, factors=factors, **metadata["config"]), tensors, source=path)
    return judge.to(device)
