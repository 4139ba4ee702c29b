"""Pictures from strangers: looked at before they are decoded, kept as pixels alone (no section of the paper).

The reader of one's own photographs (`clcae_lib.photos`) reads these too: size and first bytes are checked
before the decoder sees the file, the number of pixels before it decodes one. Limits are tighter here, a
stranger's colour profile is not parsed, nothing is written to disk, and no visitor's name is used as a path.
"""

import base64
import binascii
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from clcae_lib.explorer._decode import pixels
from clcae_lib.explorer.state import ExplorerError
from clcae_lib.photos import Alignment, PhotoError, decode_image
from clcae_lib.photos.alignment import to_tensor

MAX_BYTES = 8_000_000
MAX_PIXELS = 40_000_000
MIN_SIDE = 16

_NOWHERE = Path("an upload has no landmarks beside it", "photograph")
Frame = Callable[[Path, Image.Image], Alignment]
Upload = UInt8[np.ndarray, "side side 3"]


def read_upload(data: bytes, *, name: str, side: int, frame: Frame | None = None) -> Upload:
    """The picture in an uploaded file, upright, cut as the world's pictures are, and resized.

    It is cut where `frame` says; without one, or where that finds no face, its centre is. A picture of the
    right side is taken whole. Transparency is laid on white; of an animation, the first picture is taken.

    Args:
        data: the file's content; what it is told by its bytes, not by its name.
        name: what the visitor calls it, for messages alone.
        side: of the result, in pixels.
        frame: the world's, which finds the crop in a photograph.

    Raises:
        ExplorerError: the file is too large, no PNG, JPEG or WebP, has too many pixels, or is damaged.
    """
    shown = _shown(name)
    if len(data) > MAX_BYTES:
        limit = MAX_BYTES // 1_000_000
        raise ExplorerError(
            f"{shown} has {len(data) / 1e6:.0f} MB; at most {limit} are taken: make it smaller."
        )
    try:
        picture = decode_image(data, name=shown, max_pixels=MAX_PIXELS, min_side=MIN_SIDE, profile=False)
    except PhotoError as error:
        raise ExplorerError(str(error)) from error
    framed = None if picture.size == (side, side) else _framed(picture, frame)
    if framed is not None:
        return pixels(framed.resized(side).crop(to_tensor(picture)))
    return np.array(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS))


def _framed(picture: Image.Image, frame: Frame | None) -> Alignment | None:
    """Where the world's crop lies; None without a frame, a face, or the detector of the extra `faces`."""
    try:
        return None if frame is None else frame(_NOWHERE, picture)
    except PhotoError:
        return None


def as_text(picture: Upload) -> str:
    """A picture as a state keeps it: PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def from_text(text: str, *, side: int) -> Upload:
    """The picture that a state keeps, checked as an upload is: a state may come from a stranger too.

    Raises:
        ExplorerError: the text is no base64, or `read_upload` refuses the picture.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ExplorerError("The picture in this state is damaged; upload it again.") from error
    return read_upload(data, name="the picture in this state", side=side)


def _shown(name: str) -> str:
    """A visitor's name for a file in a message: its last part, printable and short."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in last if c.isprintable())[:40].strip()
    return kept or "The file"
