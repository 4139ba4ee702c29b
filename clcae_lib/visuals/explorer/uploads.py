"""Pictures from strangers: looked at before they are decoded, kept as pixels alone (no section of the paper).

Size and first bytes are checked before the decoder sees the file, the number of pixels before it decodes one.
Only the decoders of PNG, JPEG and WebP are ever asked. Nothing is written to disk, and no name of a visitor's
is used as a path.
"""

import base64
import binascii
import io
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from clcae_lib.visuals.explorer.state import ExplorerError

MAX_BYTES = 8_000_000
MAX_PIXELS = 40_000_000
FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE = 16

Upload = UInt8[np.ndarray, "side side 3"]


def read_upload(data: bytes, *, name: str, side: int) -> Upload:
    """The picture in an uploaded file, upright, centre-cropped to a square and resized.

    Transparency is laid on white; of an animation, the first picture is taken.

    Args:
        data: the file's content; what it is told by its bytes, not by its name.
        name: what the visitor calls it, for messages alone.
        side: of the result, in pixels.

    Raises:
        ExplorerError: the file is too large, no PNG, JPEG or WebP, has too many pixels, or is damaged.
    """
    shown = _shown(name)
    if len(data) > MAX_BYTES:
        limit = MAX_BYTES // 1_000_000
        raise ExplorerError(
            f"{shown} has {len(data) / 1e6:.0f} MB; at most {limit} are taken: make it smaller."
        )
    if _format(data) is None:
        raise ExplorerError(f"{shown} is no PNG, JPEG or WebP picture; save it as one of these.")
    try:
        return _read(data, shown, side)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(shown) from error
    except ExplorerError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Warning) as error:
        raise ExplorerError(f"{shown} is damaged or cut short; save it again.") from error


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


def _format(data: bytes) -> str | None:
    """The format that the first bytes say."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _too_many_pixels(shown: str) -> ExplorerError:
    return ExplorerError(f"{shown} has more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller.")


def _read(data: bytes, shown: str, side: int) -> Upload:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if _canvas(data) > MAX_PIXELS:  # before the decoder of WebP sets its canvas aside, on opening
            raise _too_many_pixels(shown)
        with Image.open(io.BytesIO(data), formats=[_format(data)]) as image:
            width, height = image.size  # from the header: nothing is decoded yet
            if width * height > MAX_PIXELS:
                raise _too_many_pixels(shown)
            if min(width, height) < MIN_SIDE:
                raise ExplorerError(
                    f"{shown} has {width} x {height} pixels; a face needs {MIN_SIDE} a side or more."
                )
            image.seek(0)
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.array(ImageOps.fit(_on_white(upright), (side, side), Image.Resampling.LANCZOS))


def _canvas(data: bytes) -> int:
    """How many pixels a WebP file says it has; 0 for any other file."""
    if _format(data) != "WEBP":
        return 0
    if data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif data[12:16] == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width * height


def _on_white(image: Image.Image) -> Image.Image:
    """A picture in RGB; what is transparent becomes white."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
