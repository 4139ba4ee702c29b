"""Images from visitors, checked before they are decoded; only pixels are kept (no section of the paper).

`clcae_lib.photos` reads them: size and first bytes are checked before the decoder reads the file, the number
of pixels before it decodes one. Limits are tighter here, colour profiles are not parsed, nothing is written
to disk, and no visitor's file name is used as a path.
"""

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from clcae_lib.explorer.state import ExplorerError
from clcae_lib.images import to_array
from clcae_lib.photos import Crop, Limits, PhotoError, decode_image, to_tensor

MAX_BYTES = 8_000_000
LIMITS = Limits(max_pixels=40_000_000, formats=("PNG", "JPEG", "WEBP"))

_NO_PATH = Path("an upload has no landmarks file", "photograph")


def read_upload(
    data: bytes,
    *,
    name: str,
    side: int,
    align: Callable[[Path, Image.Image], Crop] | None = None,
) -> UInt8[np.ndarray, "side side 3"]:
    """Return the image in an uploaded file, upright, cut as the world's images are, and resized.

    `align` finds the crop; without it, or if it finds no face, the centre is used. An image of the right size
    is not cut. Transparency becomes white; of an animation, the first image is used.

    Args:
        data: content of the file; its format is recognised by its bytes, not by its name.
        name: the visitor's file name, used only in messages.
        side: height and width of the result, in pixels.
        align: the world's `find_crop`, or another function that finds the crop.

    Raises:
        ExplorerError: the file is too large, not a PNG, JPEG or WebP, has too many pixels, or is damaged.
    """
    image = open_upload(data, name=name)
    if align is not None and image.size != (side, side):
        try:
            return to_array(align(_NO_PATH, image).resized(side).cut(to_tensor(image)))
        except PhotoError:  # no face, or no detector
            pass
    return np.array(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS))


def open_upload(data: bytes, *, name: str) -> Image.Image:
    """Return the image in an uploaded file, upright; the arguments and errors are those of `read_upload`."""
    shown = "".join(c for c in name.replace("\\", "/").rsplit("/", 1)[-1] if c.isprintable())[:40].strip()
    shown = shown or "The file"
    check_size(len(data), shown)
    try:
        return decode_image(data, name=shown, limits=LIMITS, profile=False)
    except PhotoError as error:
        raise ExplorerError(str(error)) from error


def check_size(size: int, name: str) -> None:
    """Raise an ExplorerError if a file has too many bytes."""
    if size > MAX_BYTES:
        raise ExplorerError(
            f"{name} has {size / 1e6:.0f} MB; at most {MAX_BYTES // 1_000_000} are accepted: make it smaller."
        )


def as_text(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """Return an image as PNG in base64, the form that a state stores."""
    return base64.b64encode(as_png(image)).decode("ascii")


def from_text(text: str, *, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Return the image of a state, checked like an upload, because others may have made the state."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ExplorerError("The image in this state is damaged; upload it again.") from error
    return read_upload(data, name="the image in this state", side=side)


def as_png(image: UInt8[np.ndarray, "h w 3"], *, level: int = 6) -> bytes:
    """Return an image as a PNG file; level 1 is the fastest compression, 9 the smallest file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG", compress_level=level)
    return file.getvalue()
