"""A direction: a step in W, W+ or StyleSpace that changes one attribute (arXiv 2211.11448, section 4.3).

Directions are kept as safetensors with their metadata. The published ones are read too: InterFaceGAN's, an
array `[1, 512]` or `[1, 18, 512]` in a `.pt` or `.npy` file, and GANSpace's components, a dictionary in a
`.pt` file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib import checkpoints
from clcae_lib.errors import MissingFileError

Space = Literal["w", "w_plus", "s"]
Strength = float | int | Float[Tensor, " n"]
"""How far to go, in a direction's unit: one number, or one for each picture."""


@dataclass(frozen=True)
class Direction:
    """A named step in latent space; strength s moves a code by `s * unit * vector`.

    Attributes:
        vector: one step for every layer `[D]`, or one for each `[L, D]`; in StyleSpace `[S]`.
        name: what it changes; once calibrated, the name of the factor.
        space: "w" for one step that acts on every layer, "w_plus" for any other in W+, "s" for StyleSpace.
        unit: vector lengths in strength 1; once calibrated, they move the factor by one standard deviation.
        layers: the rows of W+ it acts on, in StyleSpace the rows whose styles it acts on; None for all.
        provenance: method, seed, file, calibration: how it came about, in JSON values.

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
        """Check that a direction in W is one vector that acts on every layer."""
        if self.space == "w" and (self.vector.ndim != 1 or self.layers is not None):
            shape = tuple(self.vector.shape)
            raise ValueError(
                f'{self.name}: a direction in "w" has shape [D] and layers=None, got {shape} and '
                f'layers={self.layers}; give space="w_plus"'
            )
        if self.space == "s" and self.vector.ndim != 1:
            raise ValueError(f'{self.name}: a direction in "s" is [S], got {tuple(self.vector.shape)}')

    def step(self, strength: Strength = 1.0) -> Tensor:
        """What is added to a code, in the vector's shape; N in front where strengths are a tensor `[N]`."""
        if isinstance(strength, Tensor):
            strength = strength.to(self.vector).reshape(-1, *[1] * self.vector.ndim)
        return strength * self.unit * self.vector

    def restricted(self, layers: Sequence[int]) -> "Direction":
        """The same direction on these rows of W+ alone, those of them that it acts on already."""
        kept = tuple(layer for layer in layers if self.layers is None or layer in self.layers)
        return replace(self, space="s" if self.space == "s" else "w_plus", layers=kept)

    def flipped(self) -> "Direction":
        """The opposite direction."""
        return replace(self, vector=-self.vector)

    def to(self, device: torch.device | str) -> "Direction":
        """The same direction on another device."""
        return replace(self, vector=self.vector.to(device))


def save_directions(path: Path | str, directions: dict[str, Direction]) -> Path:
    """Write directions in full precision to one safetensors file, and return its path."""
    tensors = {key: direction.vector for key, direction in directions.items()}
    return checkpoints.save_weights(path, tensors, metadata=directions_metadata(directions), half=False)


def directions_metadata(directions: dict[str, Direction]) -> dict[str, Any]:
    """What a file of directions says of them, in JSON values."""
    fields = ("name", "space", "unit", "layers", "provenance")
    details = {key: {f: getattr(d, f) for f in fields} for key, d in directions.items()}
    return {"kind": "directions", "directions": details}


def load_directions(path: Path | str) -> dict[str, Direction]:
    """The directions of a file that `save_directions` wrote.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged or holds something else.
    """
    tensors, metadata = checkpoints.load_weights(path, kind="directions")
    directions = {}
    for key, details in metadata["directions"].items():
        layers = details["layers"] if details["layers"] is None else tuple(details["layers"])
        directions[key] = Direction(tensors[key], **(details | {"layers": layers}))
    return directions


def load_interfacegan(path: Path | str, *, name: str | None = None) -> Direction:
    """A published InterFaceGAN direction.

    Equal rows become one vector in W; the published code reads row 0 alone, which is then the same.

    Args:
        path: a `.pt` file with a tensor `[1, D]` or `[1, L, D]`, or a `.npy` file with such an array.
        name: of the attribute; the file's own name if None.

    Raises:
        FileNotFoundError, ValueError: the file is missing or holds no such tensor.
    """
    vector = _read_array(path) if Path(path).suffix == ".npy" else checkpoints.read_plain(path)
    return interfacegan_direction(vector, path, name=name)


def interfacegan_direction(vector: Any, path: Path | str, *, name: str | None = None) -> Direction:
    """The direction of an array as InterFaceGAN publishes it, `[1, D]` or `[1, L, D]`.

    Args:
        vector: the array.
        path: the file that it was read from.
        name: of the attribute; the file's own name if None.

    Raises:
        ValueError: it has another shape.
    """
    if not isinstance(vector, Tensor) or vector.ndim not in (2, 3) or len(vector) != 1:
        raise checkpoints.WeightsError(
            f"{path}: expected an array [1, D] or [1, L, D], the layout InterFaceGAN publishes"
        )
    vector = vector[0].float()
    if vector.ndim == 2 and bool((vector == vector[0]).all()):
        vector = vector[0]
    source = {"method": "interfacegan", "file": Path(path).name}
    space: Space = "w" if vector.ndim == 1 else "w_plus"
    return Direction(vector, name or Path(path).stem, space, provenance=source)


def _read_array(path: Path | str) -> Tensor:
    """The numbers of a `.npy` file; one that holds a pickle is refused."""
    if not Path(path).is_file():
        raise MissingFileError(f"{path} does not exist; give the path of a published .npy file")
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
    except (ValueError, EOFError) as error:
        raise checkpoints.WeightsError(
            f"{path} is damaged or holds more than numbers; fetch it again"
        ) from error
