"""GANSpace (arXiv 2004.02546): the principal components of W as directions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.editing.direction import Direction
from clcae_lib.weights import load_components


@dataclass(frozen=True)
class Components:
    """Principal components of W, the widest first; the vectors have length 1."""

    mean: Float[Tensor, " d"]
    vectors: Float[Tensor, "k d"]
    std: Float[Tensor, " k"]

    def direction(self, index: int, *, layers: Sequence[int] | None = None) -> Direction:
        """Component `index` as a direction: strength 1 is one standard deviation of the codes along it.

        Args:
            index: which component.
            layers: the rows of W+ it acts on; None for all.
        """
        space = "w" if layers is None else "w_plus"
        kept = None if layers is None else tuple(layers)
        facts = {"method": "ganspace", "component": index}
        return Direction(
            self.vectors[index], f"component {index}", space, float(self.std[index]), kept, facts
        )

    def coordinates(self, w: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Where codes lie along each component, in its standard deviations."""
        return (w - self.mean.to(w)) @ self.vectors.to(w).T / self.std.to(w)


def ganspace(w: Float[Tensor, "n d"], *, components: int = 20) -> Components:
    """The principal components of sampled codes.

    The sign of each is fixed: its largest coordinate is positive.

    Args:
        w: sampled codes, more than there are components.
        components: how many to keep.

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
    """Vectors turned so that the largest coordinate of each is positive, for results that repeat."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * largest.sign()


def set_coordinate(
    w_plus: Float[Tensor, "n l d"], components: Components, index: int, value: float, *, layers: Sequence[int]
) -> Float[Tensor, "n l d"]:
    """Codes moved until their coordinate along a component is `value`, the published code's way of editing.

    It *sets* a coordinate where a `Direction` adds to it, so every portrait ends up the same along it.

    Args:
        w_plus: codes to edit.
        components: from `ganspace` or a published file.
        index: which component.
        value: the wanted coordinate, in standard deviations; it is read off row 0 and set in `layers`.
        layers: the rows of W+ that move, all by the same step.
    """
    vector, std = components.vectors[index].to(w_plus), components.std[index].to(w_plus)
    now = (w_plus[:, 0] - components.mean.to(w_plus)) @ vector / std
    edited = w_plus.clone()
    edited[:, list(layers)] += ((value - now) * std)[:, None, None] * vector
    return edited


def load_ganspace(path: Path | str) -> Components:
    """Return the components of a published `.pt` file, or of the safetensors file of `clcae convert`.

    Raises:
        FileNotFoundError, ValueError: the file is missing, unsafe, damaged or holds something else.
    """
    tensors = load_components(path)
    std = tensors["std"].flatten()
    return Components(tensors["mean"].flatten(), tensors["comp"].reshape(len(std), -1), std)
