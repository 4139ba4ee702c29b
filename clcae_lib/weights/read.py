"""Open any weights file: names, shapes and types of its content, without running code or reading numbers."""

import io
import mmap
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clcae_lib.errors import MissingFileError
from clcae_lib.weights._inert import Network
from clcae_lib.weights._pickle import MAGIC_START, Reader, require_few_members, walk
from clcae_lib.weights.checkpoints import DAMAGE, UnsafeFileError, WeightsError, read_safetensors

_PAGE = re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.IGNORECASE)


@dataclass(frozen=True)
class Contents:
    """The content of a weights file.

    Attributes:
        container: format: "safetensors", "torch archive", "torch stream", "pickle", "npy" or "npz".
        tree: the nested containers of the file.
        tensors: tensors by dotted name; their numbers are read from the file when they are used.
        metadata: metadata of a safetensors file of this project.
        verify: function that verifies the file's checksums, if its container has any.
    """

    path: Path
    container: str
    tree: Any
    tensors: dict[str, Tensor] = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict)
    verify: Callable[[], None] = field(default=lambda: None, repr=False)


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Add the file and a remedy to every error that is raised inside the block."""
    try:
        yield
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"{path} is refused: {error}. Nothing in it was run; take the file from its official source"
        ) from error
    except WeightsError as error:
        raise WeightsError(f"{path} {str(error).removeprefix(f'{path} ')}") from error
    except DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path} is damaged ({reason[:200]}); fetch it again") from error


def read_weights(path: Path | str) -> Contents:
    """Return the content of a safetensors, torch (`.pt`, `.pth`), NVIDIA (`.pkl`) or numpy file of any name.

    Raises:
        FileNotFoundError: the file does not exist.
        UnsafeFileError: it needs more than data, or more memory than its size justifies.
        WeightsError: it is damaged, or not a weights file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; give the path of a weights file")
    with naming(path), path.open("rb") as file:
        size, checks = path.stat().st_size, {}
        if not size:
            raise WeightsError("is empty; fetch it again")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        container = _container(path, mapped[:4096])
        if container == "safetensors":
            tensors, metadata = read_safetensors(path)
            return Contents(path, container, tensors, tensors, metadata)
        if container == "npy":
            tensor = _tensor(np.load(path, mmap_mode="c", allow_pickle=False))
            return Contents(path, container, tensor, {"": tensor})
        if container == "torch archive" and (arrays := _read_arrays(path, mapped)):
            return Contents(path, "npz", arrays, arrays)
        view, reader = memoryview(mapped), Reader(size)
        if container == "torch archive":
            tree, checks["verify"] = reader.load_archive(view, mapped)
        elif container == "torch stream":
            tree = reader.load_stream(view, mapped)
        else:
            tree = _read_pickle(mapped, reader)
        views = dict(walk(tree))
        if sum(found.nbytes for found in views.values()) > 4 * size + (1 << 26):
            raise UnsafeFileError("its tensors together claim far more bytes than the file has")
        return Contents(path, container, tree, {n: view.tensor() for n, view in views.items()}, **checks)


def _container(path: Path, head: bytes) -> str:
    """Return the format of a file by its first bytes."""
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError("is a Git LFS pointer instead of weights: run `git lfs pull` in its repository")
    if _PAGE.match(head):
        raise WeightsError(
            "is a web page instead of weights: the server sent a page (Google Drive's question or quota) "
            "instead of the file; fetch it again, or with a browser"
        )
    if head.startswith(b"PK\x03\x04"):
        return "torch archive"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head[8:9] == b"{" or path.suffix.lower() == ".safetensors":
        return "safetensors"
    if re.match(rb"\x80[\x02-\x05]", head):
        return "torch stream" if MAGIC_START in head[:32] else "pickle"
    if path.suffix.lower() in (".pkl", ".pickle", ".pt", ".pth", ".tar", ".ckpt"):
        return "pickle"
    raise WeightsError("is not a weights file; give a .safetensors, .pt, .pth, .pkl, .npy or .npz file")


def _read_arrays(path: Path, mapped: mmap.mmap) -> dict[str, Tensor]:
    """Return the arrays of an `.npz` file; empty for another zip archive."""
    require_few_members(mapped)
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if not all(info.filename.endswith(".npy") for info in infos):
            return {}
        if sum(info.file_size for info in infos) > 4 * len(mapped) + (1 << 26):
            raise UnsafeFileError("its arrays together claim far more bytes than the file has")
        files = {info.filename: io.BytesIO(archive.read(info)) for info in infos}
    return {n.removesuffix(".npy"): _tensor(np.load(f, allow_pickle=False)) for n, f in files.items()}


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiu":
        raise WeightsError("does not hold numbers; give an array of numbers")
    return torch.from_numpy(array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")))


def _read_pickle(mapped: mmap.mmap, reader: Reader) -> Any:
    try:
        tree = reader.load(mapped)
    except UnsafeFileError:
        raise
    except Exception as error:
        if mapped[:1] != b"\x80":  # the oldest pickles are text, as are many other files
            raise WeightsError("is text instead of weights; fetch it again") from error
        raise
    if isinstance(tree, tuple) and any(isinstance(item, Network) for item in tree):
        return dict(zip(("G", "D", "Gs"), tree, strict=False))
    return tree
