"""Snapshots of StyleGAN2's first code, for TensorFlow: their arrays under the names of the PyTorch code.

Such a file is a tuple (G, D, Gs) of networks, each with its arrays, its sub-networks and the source of its
class, which is dropped unread. Weights lie there with the output channels last; the kernels of upsampling
convolutions are turned by half a circle, and the 1 of a modulation's bias is added when it runs.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clcae_lib.formats._errors import FormatError, UnsafeFileError
from clcae_lib.formats._machine import Budget, Record
from clcae_lib.formats._nvidia import Module
from clcae_lib.formats._stored import Stored

NETWORK = "dnnlib.tflib.network.Network"
_DEEPEST = 8
_DTYPES = {"f4": torch.float32, "f8": torch.float64, "i4": torch.int32, "i8": torch.int64}
_LAYERS = {"conv0": "Conv0_up", "conv1": "Conv1", "torgb": "ToRGB"}
_RESTS = {
    "weight": "weight",
    "bias": "bias",
    "noise_strength": "noise_strength",
    "affine.weight": "mod_weight",
    "affine.bias": "mod_bias",
}


@dataclass(frozen=True, eq=False)
class StoredArray:
    """A numpy array in a pickle, in C order."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    data: bytes

    @property
    def nbytes(self) -> int:
        """Bytes its numbers take."""
        return len(self.data)

    def load(self) -> Tensor:
        """Its numbers, in memory of their own."""
        if not self.data:
            return torch.empty(self.shape, dtype=self.dtype)
        return torch.frombuffer(bytearray(self.data), dtype=self.dtype).reshape(self.shape)


def is_snapshot(tree: Any) -> bool:
    """Whether a pickle's contents are such a tuple."""
    return isinstance(tree, tuple) and any(isinstance(i, Record) and i.name == NETWORK for i in tree)


def networks(tree: tuple[Any, ...]) -> dict[str, Any]:
    """The networks of a snapshot by their usual names.

    Raises:
        FormatError: it is laid out in another way.
    """
    budget = Budget(0)  # a network may be part of many, and those of many more
    return {name: _network(item, budget) for name, item in zip(("G", "D", "Gs"), tree, strict=False)}


def _network(item: Any, budget: Budget, depth: int = 0) -> Module:
    state = item.state if isinstance(item, Record) and item.name == NETWORK else None
    if not isinstance(state, dict) or depth > _DEEPEST:
        raise FormatError("is a TensorFlow snapshot of an unknown layout; give one of StyleGAN2's")
    children: dict[str, Any] = {}
    variables, components = state.get("variables") or [], state.get("components") or {}
    budget.operate(1 + len(variables))
    for name, value in variables:
        children[str(name)] = _array(value)
    for name, inner in components.items():
        children[str(name)] = _network(inner, budget, depth + 1)
    return Module(str(state.get("build_func_name")), children, dict(state.get("static_kwargs") or {}))


def _array(value: Any) -> StoredArray:
    """The array of the record that numpy writes: version, shape, type, whether in Fortran's order, bytes.

    A single number is written as a scalar: its type and its bytes.
    """
    if isinstance(value, Record) and value.name == "numpy.scalar":
        (kind, data), shape, fortran = value.args, (), False
    elif isinstance(value, Record) and value.name == "numpy._reconstruct":
        _, shape, kind, fortran, data = value.state
    else:
        raise FormatError("has a variable that is no array; fetch it again")
    dtype = _DTYPES.get(str(kind.args[0]).lstrip("<=")) if isinstance(kind, Record) and kind.args else None
    sized = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
    if dtype is None or fortran or not sized or not isinstance(data, bytes):
        raise FormatError("has an array of an unknown layout; fetch it again")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise UnsafeFileError("an array lies about its size")
    return StoredArray(shape, dtype, data)


def as_pytorch(arrays: dict[str, Stored]) -> dict[str, Tensor]:
    """A generator's arrays as NVIDIA's PyTorch code has them; names with points as `walk` gives them.

    Raises:
        FormatError: an array is missing.
    """
    own = {name.replace(".", "/"): array for name, array in arrays.items()}
    sides = sorted({int(found[1]) for name in own if (found := re.match(r"synthesis/(\d+)x\1/", name))})
    try:
        tensors = {"mapping.w_avg": own["dlatent_avg"].load()}
        tensors["synthesis.b4.const"] = own["synthesis/4x4/Const/const"].load()[0]
        for name in own:
            if found := re.fullmatch(r"mapping/Dense(\d+)/(weight|bias)", name):
                array = own[name].load()
                tensors[f"mapping.fc{found[1]}.{found[2]}"] = (
                    array.T.contiguous() if array.ndim == 2 else array
                )
            elif name == "mapping/LabelConcat/weight":
                tensors["mapping.embed.weight"] = own[name].load()
        for side in sides:
            tensors |= _block(own, side)
    except KeyError as error:
        raise FormatError(f"has no array {error} and is no StyleGAN2 generator; give one that is") from error
    return tensors


def _block(own: dict[str, Stored], side: int) -> dict[str, Tensor]:
    tensors = {}
    first = 2 * side.bit_length() - 7  # the noise of conv0; 4 pixels have conv1 alone, with noise 0
    for layer, official in _LAYERS.items() if side > 4 else (("conv1", "Conv"), ("torgb", "ToRGB")):
        for rest, name in _RESTS.items():
            if rest != "noise_strength" or layer != "torgb":
                array = own[f"synthesis/{side}x{side}/{official}/{name}"].load()
                tensors[f"synthesis.b{side}.{layer}.{rest}"] = _turned(array, layer, rest)
        if layer != "torgb":
            noise = own[f"synthesis/noise{first + (layer == 'conv1')}"].load()
            tensors[f"synthesis.b{side}.{layer}.noise_const"] = noise[0, 0]
    return tensors


def _turned(array: Tensor, layer: str, rest: str) -> Tensor:
    if rest == "weight":
        array = array.flip(0, 1) if layer == "conv0" else array
        return array.permute(3, 2, 0, 1).contiguous()
    if rest == "affine.weight":
        return array.T.contiguous()
    return array + 1 if rest == "affine.bias" else array
