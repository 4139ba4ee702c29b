"""A direction: a step in W, W+ or StyleSpace that changes one attribute (arXiv 2211.11448, section 4.3).

Directions are stored as safetensors with metadata. Files of InterFaceGAN and SeFa are read too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, Field, NonNegativeInt
from torch import Tensor

from clcae_lib.settings import validated
from clcae_lib.weights import WeightsError, checkpoints, read_as

Space = Literal["w", "w_plus", "s"]
Strength = float | int | Float[Tensor, " n"]
"""Strength in a direction's unit: one number, or one for each image."""


@dataclass(frozen=True)
class Direction:
    """A named step in latent space; strength alpha moves a code by `alpha * unit * vector`.

    Attributes:
        vector: step for every layer `[D]`, or one for each `[L, D]`; in StyleSpace `[S]`.
        name: attribute that it changes; once calibrated, the name of the factor.
        space: "w" for one step that acts on every layer, "w_plus" for any other in W+, "s" for StyleSpace.
        unit: number of vector lengths in strength 1; once calibrated, one standard deviation of the factor.
        layers: rows of W+ (in StyleSpace, their styles) that it acts on; None for all.
        provenance: method, seed, file and calibration, as JSON values.

    Raises:
        ValueError: the shape does not fit the space.
    """

    vector: Float[Tensor, " d"] | Float[Tensor, "l d"] | Float[Tensor, " s"]
    name: str
    space: Space = "w"
    unit: float = 1.0
    layers: tuple[int, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the vector fits the space."""
        shape = tuple(self.vector.shape)
        if self.space == "w" and (self.vector.ndim != 1 or self.layers is not None):
            raise ValueError(
                f'{self.name}: a direction in "w" has shape [D] and layers=None, got {shape} and '
                f'layers={self.layers}; give space="w_plus"'
            )
        if self.space == "s" and self.vector.ndim != 1:
            raise ValueError(f'{self.name}: a direction in "s" is [S], got {shape}')

    def step(self, strength: Strength = 1.0) -> Tensor:
        """Return what is added to a code: of the vector's shape, or `[N, ...]` for strengths `[N]`."""
        if isinstance(strength, Tensor):
            strength = strength.to(self.vector).reshape(-1, *[1] * self.vector.ndim)
        return strength * self.unit * self.vector

    def restricted(self, layers: Sequence[int]) -> "Direction":
        """Return the direction limited to those of these rows of W+ that it acts on."""
        kept = tuple(layer for layer in layers if self.layers is None or layer in self.layers)
        return replace(self, space="s" if self.space == "s" else "w_plus", layers=kept)

    def flipped(self) -> "Direction":
        """Return the opposite direction."""
        return replace(self, vector=-self.vector)

    def to(self, device: torch.device | str) -> "Direction":
        """Return the direction on another device."""
        return replace(self, vector=self.vector.to(device))


class _Details(BaseModel, extra="forbid"):
    """The fields of a direction that a file stores besides the vector."""

    name: str = Field(max_length=200)
    space: Space
    unit: float = Field(allow_inf_nan=False)
    layers: tuple[NonNegativeInt, ...] | None
    provenance: dict[str, Any]


class _Header(BaseModel):
    directions: dict[str, _Details]


def save_directions(path: Path | str, directions: dict[str, Direction]) -> Path:
    """Write directions in full precision to one safetensors file, and return its path."""
    tensors = {key: direction.vector for key, direction in directions.items()}
    fields = ("name", "space", "unit", "layers", "provenance")
    details = {key: {f: getattr(d, f) for f in fields} for key, d in directions.items()}
    metadata = {"kind": "directions", "directions": details}
    return checkpoints.save_weights(path, tensors, metadata=metadata, half=False)


def load_directions(path: Path | str) -> dict[str, Direction]:
    """Return the directions of a file that `save_directions` wrote, or of published ones.

    These are arrays `[D]`, `[1, D]`, `[L, D]` or `[1, L, D]` of numpy, torch or safetensors,
    one or several by name (InterFaceGAN), and SeFa's `factor.pt`.

    Raises:
        FileNotFoundError, ValueError: the file is missing, unsafe, damaged or of another kind.
    """
    tensors, metadata = read_as(path, "directions")
    header = validated(_Header, metadata, source=str(path), error=WeightsError)
    try:
        return {
            key: Direction(tensors[key], **about.model_dump()) for key, about in header.directions.items()
        }
    except (LookupError, ValueError) as error:
        message = f"{path} is damaged ({error!r}); write it again with save_directions"
        raise WeightsError(message) from error
