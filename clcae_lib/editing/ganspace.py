"""GANSpace (arXiv 2004.02546): the principal components of W as directions."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.editing.direction import Direction
from clcae_lib.weights import read_as


@dataclass(frozen=True)
class Components:
    """The mean of W, its principal components (unit vectors, widest first), and their standard deviations."""

    mean: Float[Tensor, " d"]
    vectors: Float[Tensor, "k d"]
    std: Float[Tensor, " k"]

    def direction(self, index: int) -> Direction:
        """Return a component as a direction; strength 1 is its standard deviation."""
        facts, unit = {"method": "ganspace", "component": index}, float(self.std[index])
        return Direction(self.vectors[index], f"component {index}", unit=unit, provenance=facts)


def ganspace(w: Float[Tensor, "n d"], *, components: int = 20) -> Components:
    """Return the principal components of sampled codes; the largest coordinate of each is positive.

    Args:
        w: sampled codes, more than there are components.
        components: number of components.

    Raises:
        ValueError: there are fewer codes or coordinates than components.
    """
    if not 0 < components <= min(len(w) - 1, w.shape[1]):
        raise ValueError(f"components={components}: at most {min(len(w) - 1, w.shape[1])} can be found")
    mean = w.double().mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(w.double().T))
    kept = signed(vectors.T.flip(0)[:components])
    std = values.flip(0)[:components].clamp(min=0).sqrt()
    return Components(mean.to(w), kept.to(w), std.to(w))


def signed(vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Return vectors with signs such that the largest coordinate of each is positive."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * largest.sign()


def load_ganspace(path: Path | str) -> Components:
    """Return the components of a published `.pt` file, of GANSpace's own `.npz`, or of a converted file.

    Raises:
        FileNotFoundError, ValueError: the file is missing, unsafe, damaged or of another kind.
    """
    tensors = read_as(path, "components")[0]
    std = tensors["std"].flatten()
    return Components(tensors["mean"].flatten(), tensors["comp"].reshape(len(std), -1), std)
