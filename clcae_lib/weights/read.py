"""Opening any weights file: what it holds by name, shape and type; nothing in it is run, no number read."""

import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from clcae_lib.errors import MissingFileError
from clcae_lib.weights import checkpoints
from clcae_lib.weights._archive import read_archive
from clcae_lib.weights._errors import UnsafeFileError, WeightsError, naming
from clcae_lib.weights._inert import Network
from clcae_lib.weights._pickle import MAGIC_START, Reader, walk

_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)


@dataclass(frozen=True)
class Contents:
    """What a weights file holds.

    Attributes:
        path: the file.
        container: how it is written: "safetensors", "torch archive", "torch stream", "pickle" or "npy".
        tree: the containers as they are nested in the file.
        tensors: every tensor by its dotted name; its numbers are read from the file when they are used.
        metadata: what a safetensors file of this project says of itself.
        verify: compares the file with its own checksums, where its container has some.
    """

    path: Path
    container: str
    tree: Any
    tensors: dict[str, Tensor] = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)
    verify: Callable[[], None] = field(default=lambda: None, repr=False)


def read_weights(path: Path | str) -> Contents:
    """Return what a safetensors, torch (`.pt`, `.pth`), NVIDIA (`.pkl`) or `.npy` file of any name holds.

    Raises:
        FileNotFoundError: there is no such file.
        UnsafeFileError: it asks for more than data, or more memory than its size justifies.
        WeightsError: it is damaged, or not a weights file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; give the path of a weights file")
    with naming(path), path.open("rb") as file:
        size = path.stat().st_size
        if not size:
            raise WeightsError("is empty; fetch it again")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        container, verify = _container(path, mapped[:4096]), lambda: None
        if container == "safetensors":
            return _read_safetensors(path)
        if container == "npy":
            tensor = _read_array(path)
            return Contents(path, container, tensor, {"": tensor})
        view = memoryview(mapped)
        if container == "torch archive":
            tree, verify = read_archive(view, mapped)
        elif container == "torch stream":
            tree = Reader(size).load_stream(view, mapped)
        else:
            tree = _read_pickle(mapped, size)
        views = dict(walk(tree))
        if sum(found.nbytes for found in views.values()) > 4 * size + (1 << 26):
            raise UnsafeFileError("its tensors together claim far more bytes than the file has")
        return Contents(path, container, tree, {name: v.tensor() for name, v in views.items()}, {}, verify)


def _container(path: Path, head: bytes) -> str:
    """Return how a file is written, by its first bytes."""
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError("is a pointer of Git LFS and not the weights: run `git lfs pull` where it is from")
    if _PAGE.match(head):
        raise WeightsError(
            "is a web page and no weights: the server answered with a page (Google Drive's question or "
            "quota) in place of the file; fetch it again, or with a browser"
        )
    if head.startswith(b"PK\x03\x04"):
        return "torch archive"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head[8:9] == b"{" or path.suffix == ".safetensors":
        return "safetensors"
    if re.match(rb"\x80[\x02-\x05]", head):
        return "torch stream" if MAGIC_START in head[:32] else "pickle"
    if path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth", ".tar", ".ckpt"):
        return "pickle"
    raise WeightsError("is no weights file; give a .safetensors, .pt, .pth, .pkl or .npy file")


def _read_safetensors(path: Path) -> Contents:
    metadata = checkpoints.read_metadata(path)
    file = safetensors.safe_open(path, framework="pt")
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    return Contents(path, "safetensors", tensors, tensors, metadata)


def _read_array(path: Path) -> Tensor:
    array = np.load(path, mmap_mode="c", allow_pickle=False)
    if array.dtype.kind not in "fiu":
        raise WeightsError("holds no numbers; give an array of numbers")
    return torch.from_numpy(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def _read_pickle(mapped: mmap.mmap, size: int) -> Any:
    try:
        tree = Reader(size).load(mapped)
    except UnsafeFileError:
        raise
    except Exception as error:
        if mapped[:1] != b"\x80":  # the oldest pickles are text, and so are many files that are no pickle
            raise WeightsError("is text and no weights; fetch it again") from error
        raise
    if isinstance(tree, tuple) and any(isinstance(item, Network) for item in tree):
        return dict(zip(("G", "D", "Gs"), tree, strict=False))
    return tree
