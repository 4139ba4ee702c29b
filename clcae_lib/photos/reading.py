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
from io import BufferedIOBase, BytesIO
from pathlib import Path

from PIL import Image

from clcae_lib.errors import ClcaeError
from clcae_lib.photos._formats import canvas, format_of, likely_kind
from clcae_lib.photos._pixels import to_rgb, upright

MAX_BYTES = 200_000_000
MAX_PIXELS = 100_000_000
MIN_SIDE = 16
_HEADER = 4096  # bytes that tell a format


class PhotoError(ClcaeError, ValueError):
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
    data = read_content(path, max_bytes=max_bytes)
    return decode_image(data, name=shown(path), max_pixels=max_pixels, min_side=min_side, profile=profile)


def check_image(
    path: Path | str,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_side: int = MIN_SIDE,
) -> tuple[int, int]:
    """Width and height that a file's header says. Nothing else is read: damage further on goes unseen.

    Raises:
        PhotoError: as `read_image`, as far as the header tells.
    """
    name = shown(path)
    with _open(Path(path), name) as file:
        _check_bytes(os.fstat(file.fileno()).st_size, name, max_bytes)
        start = file.read(_HEADER)
        file.seek(0)
        size = canvas(start)  # its decoder would read the whole file
        if size is None:
            with _opened(file, start, name, max_pixels, min_side) as image:
                return image.size
    if size == (0, 0):
        raise PhotoError(_damaged(name))
    _check_pixels(size, name, max_pixels)
    _check_side(size, name, min_side)
    return size


def read_content(path: Path | str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file, of which there are neither none nor too many.

    Raises:
        PhotoError: there is no such file, or it cannot be read.
    """
    name = shown(path)
    with _open(Path(path), name) as file:
        try:
            data = file.read(max_bytes + 1)
        except OSError as error:
            raise PhotoError(_unreadable(name, error)) from error
    _check_bytes(len(data), name, max_bytes)
    return data


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
    with _opened(BytesIO(data), data, name, max_pixels, min_side) as image:
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
def _opened(
    file: BufferedIOBase, start: bytes, name: str, max_pixels: int, min_side: int
) -> Iterator[Image.Image]:
    """The picture behind a header that has been looked at; whatever fails inside becomes a PhotoError.

    Args:
        file: the content.
        start: its first bytes.
        name: what messages call it.
        max_pixels: width times height.
        min_side: pixels that the shorter side needs.
    """
    kind = format_of(start)
    if kind is None:
        raise PhotoError(_stranger(start, name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of crooked metadata, and of sizes that are checked here
            # WebP's decoder takes its memory on opening.
            _check_pixels(canvas(start) or (0, 0), name, max_pixels)
            with Image.open(file, formats=[kind]) as image:
                _check_pixels(image.size, name, max_pixels)
                _check_side(image.size, name, min_side)
                yield image
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(_too_many(name, max_pixels)) from error
    except MemoryError as error:
        raise PhotoError(f"{name} does not fit into memory; make it smaller.") from error
    except Exception as error:  # decoders of strange bytes raise nearly anything, and mean this
        raise PhotoError(_damaged(name)) from error


def _open(path: Path, name: str) -> BufferedIOBase:
    """A regular file, open to be read."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise PhotoError(f"{name} is a folder; name a picture in it.")
        if not stat.S_ISREG(found.st_mode):
            raise PhotoError(f"{name} is no regular file; name a picture.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise PhotoError(f"{name} does not exist; check the path.") from error
    except PermissionError as error:
        raise PhotoError(f"{name} may not be read; change its permissions.") from error
    except OSError as error:
        raise PhotoError(_unreadable(name, error)) from error
    except PhotoError:
        raise
    except ValueError as error:  # a zero byte in the name
        raise PhotoError(f"{name} is no path; check the name.") from error


def _check_bytes(count: int, name: str, max_bytes: int) -> None:
    if not count:
        raise PhotoError(f"{name} is empty; copy it again.")
    if count > max_bytes:
        raise PhotoError(f"{name} has more than {max_bytes / 1e6:g} MB; make it smaller.")


def _damaged(name: str) -> str:
    return f"{name} is damaged or cut short; save or copy it again."


def _unreadable(name: str, error: OSError) -> str:
    return f"{name} cannot be read ({error.strerror}); copy it elsewhere."


def _check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise PhotoError(_too_many(name, max_pixels))


def _too_many(name: str, max_pixels: int) -> str:
    return f"{name} has more than {max_pixels / 1e6:g} million pixels; make it smaller."


def _check_side(size: tuple[int, int], name: str, min_side: int) -> None:
    if min(size) < min_side:
        pixels = f"{size[0]} x {size[1]}"
        raise PhotoError(f"{name} has {pixels} pixels; {min_side} a side are needed: take a larger one.")


def _stranger(data: bytes, name: str) -> str:
    kind = likely_kind(data)
    looks = f" (it looks like {kind})" if kind else ""
    return f"{name} is no PNG, JPEG or WebP picture{looks}; save it as one of these."
