"""Writing files so that a half-written one never takes the place of a good one (no section of the paper).

Everything is written beside its destination under a temporary name and renamed at the end; a rename within
one folder is atomic, so an interrupted program leaves either the old file or the new one.
"""

import ast
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` if the block succeeds.

    The temporary name ends like `path`, because some writers choose the format by it. Missing folders are
    created. If the block raises, or writes nothing, `path` stays as it was and nothing is left behind.

    Raises:
        FileNotFoundError: if the block ended without writing the temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix=path.name, dir=path.parent)
    os.close(handle)
    os.unlink(name)
    partial = Path(name)
    try:
        yield partial
        if not partial.exists():
            raise FileNotFoundError(f"nothing was written for {path}: write to the yielded path")
        _flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Make sure that the content reaches the disk before the name does."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sha256(path: Path | str) -> str:
    """Return the SHA-256 digest of a file in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def program_digest(*sources: Path) -> str:
    """Return 12 hexadecimal digits that change with what source files do, not with their comments or layout.

    They are the same in every version of Python, so that a file can name them that is shipped.

    Args:
        sources: Python files, in any order.
    """
    programs = [repr((path.name, _plain(_undocumented(path)))) for path in sorted(sources)]
    return hashlib.sha256("".join(programs).encode()).hexdigest()[:12]


def _undocumented(path: Path) -> ast.Module:
    """Return the syntax tree of a source file without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            del node.body[0]
    return tree


def _plain(node: object) -> object:
    """Return a syntax tree as nested tuples; empty fields, which differ between versions, are left out."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return (type(node).__name__, *((name, _plain(value)) for name, value in fields))
    return tuple(map(_plain, node)) if isinstance(node, list) else node


def to_uint8(image: Float[Tensor, "*batch channels height width"]) -> Tensor:
    """Return images of [-1, 1] as bytes 0 to 255, rounded, not cut off; values outside are clamped."""
    scaled = (image.detach().float() + 1.0) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8)


def save_image(path: Path | str, image: Image.Image | Float[Tensor, "3 height width"]) -> Path:
    """Write one picture, whole or not at all, and return its path.

    Args:
        path: its suffix names the format: .jpg, .jpeg (quality 95, full colour resolution) or .webp
            (lossless); anything else becomes PNG. Only pixels are written, no place, date or name.
        image: in [-1, 1], or a PIL image of mode RGB.

    Raises:
        ValueError: `image` is neither, or has no pixels or more a side than the format can hold.
    """
    picture = image if isinstance(image, Image.Image) else _picture(path, image)
    if picture.mode != "RGB" or min(picture.size) < 1:
        raise ValueError(f"{path}: save_image takes an RGB picture, not {picture.mode} of {picture.size}")
    kind, options = _FORMATS.get(Path(path).suffix.lower(), ("PNG", {}))
    if max(picture.size) > _SIDES.get(kind, 2**31 - 1):
        raise ValueError(f"{path}: {kind} holds {_SIDES[kind]} pixels a side; save {picture.size} as .png")
    with atomic_path(path) as partial:
        Image.frombytes("RGB", picture.size, picture.tobytes()).save(partial, format=kind, **options)
    return Path(path)


_FORMATS = {
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}
_SIDES = {"JPEG": 65535, "WEBP": 16383}


def _picture(path: Path | str, image: Float[Tensor, "..."]) -> Image.Image:
    """A tensor as a picture, if it is one picture."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"{path}: save_image takes one image [3, H, W], not {tuple(image.shape)}")
    return Image.fromarray(np.ascontiguousarray(to_uint8(image).permute(1, 2, 0).cpu().numpy()))


def load_image(path: Path | str) -> Float[Tensor, "3 height width"]:
    """Return the picture in a file, in [-1, 1].

    Raises:
        FileNotFoundError: there is no such file.
    """
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1).float() / 127.5 - 1
