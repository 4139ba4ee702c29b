"""Tensors that lie in a file: known by shape at once, read when asked for."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from clcae_lib.formats._errors import FormatError, UnsafeFileError
from clcae_lib.formats._machine import Budget, Maker

#: The storages torch writes, and what they hold.
DTYPES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MOST_DIMENSIONS = 16
DEEPEST = 64
LONGEST_NAME = 1000


@runtime_checkable
class Stored(Protocol):
    """A tensor in a file."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes its numbers take."""

    def load(self) -> Tensor:
        """Its numbers."""


@dataclass
class Storage:
    """Numbers of one type in a file; `read` gives their bytes."""

    dtype: torch.dtype
    count: int
    read: Callable[[], memoryview] | None = None


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A view of a storage, checked to lie inside it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        """The type of its numbers."""
        return self.storage.dtype

    @property
    def nbytes(self) -> int:
        """Bytes its numbers take."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def span(self) -> int:
        """How many numbers of the storage lie from its first to its last; 0 if it is empty."""
        steps = zip(self.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * stride for size, stride in steps) if 0 not in self.shape else 0

    def load(self) -> Tensor:
        """Its numbers, contiguous, in memory of their own."""
        if not self.span:
            return torch.empty(self.shape, dtype=self.dtype)
        assert self.storage.read is not None
        item = self.dtype.itemsize
        data = bytearray(self.storage.read()[self.offset * item : (self.offset + self.span) * item])
        if self.dtype == torch.bool:
            data = bytearray(map(bool, data))
        return torch.frombuffer(data, dtype=self.dtype).as_strided(self.shape, self.stride).contiguous()


def tensor_maker(budget: Budget) -> Maker:
    """What `torch._utils._rebuild_tensor_v2` stands for; hooks and gradients are dropped."""

    def make(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> StoredTensor:
        if not isinstance(storage, Storage):
            raise UnsafeFileError("it makes a tensor of something that is no storage")
        _require_sizes([offset], shape, stride)
        tensor = StoredTensor(storage, offset, tuple(shape), tuple(stride))
        if offset + tensor.span > storage.count or math.prod(tensor.shape) > storage.count:
            raise UnsafeFileError(f"a tensor of shape {list(shape)} claims more than its storage holds")
        budget.copy(tensor.span * tensor.dtype.itemsize)
        return tensor

    return make


def _require_sizes(*groups: Any) -> None:
    for group in groups:
        good = isinstance(group, (tuple, list)) and len(group) <= MOST_DIMENSIONS
        if not good or any(type(n) is not int or not 0 <= n < 1 << 48 for n in group):
            raise UnsafeFileError("a tensor has a shape that is no list of sizes")


def walk(tree: Any, name: str = "") -> Iterator[tuple[str, Stored]]:
    """Every tensor in nested containers with its dotted name; what is shared is met once.

    Raises:
        UnsafeFileError: they are nested too deeply.
    """
    yield from _walk(tree, name, set(), 0)


def _walk(tree: Any, name: str, seen: set[int], depth: int) -> Iterator[tuple[str, Stored]]:
    if isinstance(tree, (StoredTensor, Stored)):
        yield name, tree
        return
    if id(tree) in seen:
        return
    seen.add(id(tree))
    if len(name) > LONGEST_NAME:
        raise UnsafeFileError(f"a tensor in it has a name of more than {LONGEST_NAME} letters")
    if depth > DEEPEST:
        raise UnsafeFileError(f"its contents are nested more than {DEEPEST} deep")
    for key, value in _children(tree):
        yield from _walk(value, f"{name}.{key}" if name else str(key), seen, depth + 1)


def _children(tree: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(tree, dict):
        return tree.items()
    if isinstance(tree, (list, tuple)):
        return enumerate(tree)
    return getattr(tree, "children", {}).items()  # of a network in a pickle


def require_finite(tensors: dict[str, Tensor]) -> None:
    """Refuse weights with a number that is none.

    Raises:
        FormatError: naming the first tensor that has one.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise FormatError(f"has numbers that are not finite in {name}; take another file")
