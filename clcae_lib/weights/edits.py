"""Published directions: InterFaceGAN's arrays and GANSpace's components, as tensors and plain values."""

from pathlib import Path
from typing import Any

from torch import Tensor

from clcae_lib.weights import checkpoints
from clcae_lib.weights._errors import WeightsError, naming
from clcae_lib.weights.read import Contents, read_weights


def load_direction(path: Path | str) -> tuple[Tensor, dict[str, Any]]:
    """Return InterFaceGAN's direction in a file, `[D]` or `[L, D]`, and the other fields of a `Direction`.

    Raises:
        FileNotFoundError, WeightsError: the file is missing, unsafe, damaged or holds something else.
    """
    contents = read_weights(path)
    with naming(path):
        vector = direction_of(contents)
    return vector, direction_details(path, vector)


def load_components(path: Path | str) -> dict[str, Tensor]:
    """Return GANSpace's `mean [1, D]`, `comp [K, 1, D]` and `std [K]`, of a published or converted file.

    Raises:
        FileNotFoundError, WeightsError: the file is missing, unsafe, damaged or holds something else.
    """
    contents = read_weights(path)
    with naming(path):
        return components_of(contents)


def direction_of(contents: Contents) -> Tensor:
    """Return the direction of an array `[1, D]` or `[1, L, D]`; equal rows become one vector.

    The published code reads row 0 only, which is then the same.
    """
    contents.verify()
    array = contents.tensors.get("")
    if array is None or array.ndim not in (2, 3) or len(array) != 1 or not array.numel():
        raise WeightsError("holds no array [1, D] or [1, L, D], the layout that InterFaceGAN publishes")
    vector = array[0].float().clone()
    checkpoints.require_finite({"the direction": vector}, source=contents.path)
    return vector[0] if vector.ndim == 2 and bool((vector == vector[0]).all()) else vector


def direction_details(path: Path | str, vector: Tensor) -> dict[str, Any]:
    """Return the fields of an `editing.Direction` but its vector, for one of InterFaceGAN's."""
    provenance = {"method": "interfacegan", "file": Path(path).name}
    space = "w" if vector.ndim == 1 else "w_plus"
    return {"name": Path(path).stem, "space": space, "unit": 1.0, "layers": None, "provenance": provenance}


def components_of(contents: Contents) -> dict[str, Tensor]:
    """Return GANSpace's components in a file's contents."""
    contents.verify()
    names = ("mean", "comp", "std")
    if not set(names) <= contents.tensors.keys() or contents.metadata.get("kind") not in (None, "components"):
        raise WeightsError('holds no "mean", "comp" and "std", as GANSpace publishes')
    tensors = {name: contents.tensors[name].float().clone() for name in names}
    checkpoints.require_finite(tensors, source=contents.path)
    if tensors["comp"].numel() != tensors["std"].numel() * tensors["mean"].numel():
        raise WeightsError("has components whose mean, directions and deviations differ in size")
    return tensors
