"""Opening any weights file: what is in it, by name, shape and type; nothing in the file is ever run."""

import mmap
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from clcae_lib import checkpoints
from clcae_lib.errors import MissingFileError
from clcae_lib.formats._errors import FormatError, UnsafeFileError, reading
from clcae_lib.formats._machine import Budget
from clcae_lib.formats._nvidia import read_pickle
from clcae_lib.formats._stored import Stored, walk
from clcae_lib.formats._tensorflow import is_snapshot, networks
from clcae_lib.formats._torch import MAGIC_START, read_stream, read_zip

_SAFETENSORS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".tar", ".ckpt")


@dataclass(frozen=True)
class Contents:
    """A file's contents.

    Attributes:
        path: the file.
        container: how it is written: "safetensors", "torch archive", "torch stream", "pickle" or "npy".
        tree: containers as they are nested in the file, with tensors that are read when asked for.
        tensors: every tensor by its dotted name.
        metadata: what a safetensors file of this project says of itself.
    """

    path: Path
    container: str
    tree: Any
    tensors: dict[str, Stored] = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Loaded:
    """A tensor of a file that others read: by name from safetensors, or the array of a `.npy`."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    source: Any
    name: str = ""

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def load(self) -> Tensor:
        if self.name:
            return self.source.get_tensor(self.name)
        return torch.from_numpy(np.array(self.source, dtype=self.source.dtype.newbyteorder("=")))


def read_contents(path: Path | str) -> Contents:
    """What a weights file holds.

    Safetensors, torch's `.pt` (archive or stream), NVIDIA's `.pkl` and `.npy` are read.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeFileError: it asks for more than data; it had no effect.
        FormatError: it is damaged, or no weights file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; give the path of a weights file")
    if not path.stat().st_size:
        raise FormatError(f"{path} is empty; fetch it again")
    with reading(path), path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        container = _container(path, mapped[:4096])
        if container == "safetensors":
            return _open_safetensors(path)
        tree = _READERS[container](path, mapped)
        return Contents(path, container, tree, dict(walk(tree)))


def _container(path: Path, head: bytes) -> str:
    """How a file is written, by its first bytes.

    Raises:
        FormatError: it is no weights file.
    """
    if head.startswith(b"PK\x03\x04"):
        return "torch archive"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return "safetensors"
    if re.match(rb"\x80[\x02-\x05]", head):
        return "torch stream" if MAGIC_START in head[:32] else "pickle"
    if re.match(rb"\s*<(!doctype|html|\?xml|head|body)", head, re.IGNORECASE):
        raise FormatError(
            "is a web page and no weights: the server answered with a page (Google Drive's question or "
            "quota) in place of the file; fetch it again, or with a browser"
        )
    if path.suffix in _PICKLES:
        return "pickle"
    raise FormatError("is no weights file; give a .safetensors, .pt, .pth, .pkl or .npy file")


def _open_safetensors(path: Path) -> Contents:
    try:
        metadata = checkpoints.read_metadata(path)
    except ValueError as error:
        raise FormatError(str(error).removeprefix(f"{path} ")) from error
    file = safetensors.safe_open(path, framework="pt")
    tensors: dict[str, Stored] = {}
    for name in file.keys():  # noqa: SIM118 (it is no dictionary)
        part = file.get_slice(name)
        if part.get_dtype() not in _SAFETENSORS:
            raise FormatError(
                f"has {name} of type {part.get_dtype()}; save it as one of {list(_SAFETENSORS)}"
            )
        tensors[name] = _Loaded(tuple(part.get_shape()), _SAFETENSORS[part.get_dtype()], file, name)
    return Contents(path, "safetensors", dict(tensors), tensors, metadata)


def _open_array(path: Path, mapped: mmap.mmap) -> Stored:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.kind not in "fiu":
        raise FormatError("holds no numbers; give an array of numbers")
    dtype = torch.from_numpy(np.empty(0, array.dtype.newbyteorder("="))).dtype
    return _Loaded(array.shape, dtype, array)


def _open_pickle(path: Path, mapped: mmap.mmap) -> Any:
    try:
        tree = read_pickle(memoryview(mapped), mapped)
        return networks(tree) if is_snapshot(tree) else tree
    except UnsafeFileError:
        raise
    except Exception as error:
        if mapped[:1] != b"\x80":  # the oldest pickles are text, and so are many files that are no pickle
            raise FormatError("is text and no weights; fetch it again") from error
        raise


_READERS = {
    "torch archive": lambda path, mapped: read_zip(memoryview(mapped), mapped),
    "torch stream": lambda path, mapped: read_stream(memoryview(mapped), mapped, Budget(len(mapped))),
    "pickle": _open_pickle,
    "npy": _open_array,
}
