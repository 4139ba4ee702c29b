"""One photograph from a file or from bytes, in upright sRGB, or a sentence that says why not.

What a file is told by its first bytes, not by its name, and only the decoders of PNG, JPEG and WebP are ever
asked. Bytes are limited before the file is read, pixels before it is decoded. Nothing here depends on the
paper; its own code opens any file with PIL and keeps neither rotation, transparency nor sixteen bits.
"""

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

from clcae_lib.photos._formats import canvas, format_of, likely_kind
from clcae_lib.photos._pixels import to_rgb, upright

MAX_BYTES = 200_000_000
MAX_PIXELS = 100_000_000
MIN_SIDE = 16


class PhotoError(ValueError):
    """A picture that cannot be used; one sentence names the file, what is wrong and the remedy."""


def read_image(
    path: Path | str,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_side: int = MIN_SIDE,
    profile: bool = True,
) -> Image.Image:
    """The photograph in a file: mode RGB, 8 bits, upright as its EXIF says.

    Transparency is laid on white; of an animation the first picture is taken; sixteen bits are scaled to
    eight; grey, palette and CMYK become RGB.

    Args:
        path: a PNG, JPEG or WebP file, whatever its name.
        max_pixels: width times height; a larger picture is refused before it is decoded.
        max_bytes: of the file; a larger one is refused before it is read.
        min_side: pixels that the shorter side needs.
        profile: whether an embedded colour profile is used (to sRGB) or ignored, as the published code does.

    Raises:
        PhotoError: there is no such file, it cannot be read, or `decode_image` refuses its content.
    """
    data = _content(Path(path), max_bytes)
    return decode_image(data, name=shown(path), max_pixels=max_pixels, min_side=min_side, profile=profile)


def check_image(
    path: Path | str,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_side: int = MIN_SIDE,
) -> tuple[int, int]:
    """Width and height that a file's header says, without decoding it: damage further on goes unseen.

    Raises:
        PhotoError: as `read_image`, as far as the header tells.
    """
    data = _content(Path(path), max_bytes)
    with _opened(data, shown(path), max_pixels, min_side) as image:
        return image.size


def decode_image(
    data: bytes,
    *,
    name: str,
    max_pixels: int = MAX_PIXELS,
    min_side: int = MIN_SIDE,
    profile: bool = True,
) -> Image.Image:
    """The photograph in a file's content; see `read_image`.

    Args:
        data: the content.
        name: what messages call it, printed as it is given.
        max_pixels: width times height.
        min_side: pixels that the shorter side needs.
        profile: whether an embedded colour profile is used.

    Raises:
        PhotoError: no PNG, JPEG or WebP, too many or too few pixels, damaged, or cut short.
    """
    with _opened(data, name, max_pixels, min_side) as image:
        image.seek(0)
        image.load()
        picture = to_rgb(upright(image), profile=profile)
        picture.info.clear()  # else PIL saves the old profile, and where it was taken, beside new pixels
        return picture


def shown(path: Path | str) -> str:
    """A path as a message can print it: some names hold bytes that no terminal takes."""
    text = os.fspath(path).encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else "?" for c in text)


@contextmanager
def _opened(data: bytes, name: str, max_pixels: int, min_side: int) -> Iterator[Image.Image]:
    """The picture behind a header that has been looked at; whatever fails inside becomes a PhotoError."""
    kind = format_of(data)
    if kind is None:
        raise PhotoError(_stranger(data, name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of crooked metadata, and of sizes that are checked here
            _check_pixels(canvas(data), name, max_pixels)  # WebP's decoder takes its memory on opening
            with Image.open(BytesIO(data), formats=[kind]) as image:
                _check_pixels(image.width * image.height, name, max_pixels)
                _check_side(image, name, min_side)
                yield image
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(_too_many(name, max_pixels)) from error
    except MemoryError as error:
        raise PhotoError(f"{name} does not fit into memory; make it smaller.") from error
    except Exception as error:  # decoders of strange bytes raise nearly anything, and mean this
        raise PhotoError(f"{name} is damaged or cut short; save or copy it again.") from error


def _content(path: Path, max_bytes: int) -> bytes:
    """A regular file's bytes, of which there are neither none nor too many."""
    name = shown(path)
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise PhotoError(f"{name} is a folder; name a picture in it.")
        if not stat.S_ISREG(found.st_mode):
            raise PhotoError(f"{name} is no regular file; name a picture.")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise PhotoError(f"{name} does not exist; check the path.") from error
    except PermissionError as error:
        raise PhotoError(f"{name} may not be read; change its permissions.") from error
    except OSError as error:
        raise PhotoError(f"{name} cannot be read ({error.strerror}); copy it elsewhere.") from error
    except PhotoError:
        raise
    except ValueError as error:  # a zero byte in the name
        raise PhotoError(f"{name} is no path; check the name.") from error
    if not data:
        raise PhotoError(f"{name} is empty; copy it again.")
    if len(data) > max_bytes:
        raise PhotoError(f"{name} has more than {max_bytes / 1e6:g} MB; make it smaller.")
    return data


def _check_pixels(pixels: int, name: str, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise PhotoError(_too_many(name, max_pixels))


def _too_many(name: str, max_pixels: int) -> str:
    return f"{name} has more than {max_pixels / 1e6:g} million pixels; make it smaller."


def _check_side(image: Image.Image, name: str, min_side: int) -> None:
    if min(image.size) < min_side:
        size = f"{image.width} x {image.height}"
        raise PhotoError(f"{name} has {size} pixels; {min_side} a side are needed: take a larger one.")


def _stranger(data: bytes, name: str) -> str:
    kind = likely_kind(data)
    looks = f" (it looks like {kind})" if kind else ""
    return f"{name} is no PNG, JPEG or WebP picture{looks}; save it as one of these."
