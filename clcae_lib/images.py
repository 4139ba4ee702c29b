"""Convert images between tensors, bytes and files (no section of the paper)."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from clcae_lib.files import atomic_path

_FORMATS = {
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}
_LARGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}

CAR_ROWS = slice(32, 224)
"""Rows that a photograph of a car covers in the 256-pixel squares of the official data set."""
CAR_HEIGHT = CAR_ROWS.stop - CAR_ROWS.start


def to_uint8(image: Float[Tensor, "*n c h w"]) -> UInt8[Tensor, "*n c h w"]:
    """Return images of [-1, 1] as bytes 0 to 255, rounded; values outside the range are clamped."""
    scaled = (image.detach().float() + 1.0) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8)


def from_uint8(pixels: UInt8[Tensor, "*n c h w"]) -> Float[Tensor, "*n c h w"]:
    """Return bytes 0 to 255 as images in [-1, 1]."""
    return pixels.float() / 127.5 - 1


def to_array(image: Float[Tensor, "*n c h w"]) -> np.ndarray:
    """Return images of [-1, 1] as an array of bytes `[..., H, W, C]`, the layout of files and plots."""
    return np.ascontiguousarray(to_uint8(image).movedim(-3, -1).cpu().numpy())


def from_array(pixels: np.ndarray) -> Float[Tensor, "*n c h w"]:
    """Return an array of bytes `[..., H, W, C]` as images in [-1, 1]."""
    return from_uint8(torch.from_numpy(pixels).movedim(-1, -3))


def save_image(path: Path | str, image: Image.Image | Float[Tensor, "3 h w"]) -> Path:
    """Write one image, completely or not at all, and return its path.

    Only pixels are written, no metadata. An image that the format cannot hold is a ValueError.

    Args:
        path: the suffix names the format: .jpg and .jpeg (quality 95, full colour resolution), .webp
            (lossless); any other suffix becomes PNG.
        image: in [-1, 1], or a PIL image of mode RGB.
    """
    if not isinstance(image, Image.Image):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"{path}: save_image takes one image [3, H, W], not {tuple(image.shape)}")
        image = Image.fromarray(to_array(image))
    if image.mode != "RGB" or min(image.size) < 1:
        raise ValueError(f"{path}: save_image takes an RGB image, not {image.mode} of {image.size}")
    kind, options = _FORMATS.get(Path(path).suffix.lower(), ("PNG", {}))
    if max(image.size) > _LARGEST_SIDE.get(kind, 2**31 - 1):
        raise ValueError(
            f"{path}: {kind} holds {_LARGEST_SIDE[kind]} pixels per side; save {image.size} as .png"
        )
    with atomic_path(path) as partial:
        Image.frombytes("RGB", image.size, image.tobytes()).save(partial, format=kind, **options)
    return Path(path)


def load_image(path: Path | str) -> Float[Tensor, "3 h w"]:
    """Return the image in a file, in [-1, 1]."""
    with Image.open(path) as image:
        return from_array(np.array(image.convert("RGB")))
