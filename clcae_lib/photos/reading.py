"""Read one photograph as upright sRGB, or raise an error of one sentence that names the file.

The format is recognised by the first bytes, not by the name. Only the decoders of PNG, JPEG, WebP and AVIF
are used, and that of HEIC if the optional extra `heic` is installed. The number of bytes is checked before a
file is read, the number of pixels before it is decoded. The published code opens any file with PIL and
ignores rotation, transparency and 16 bits.
"""

import importlib
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, features

from clcae_lib.errors import ClcaeError

_HEADER = 4096  # bytes that show the format
_SIGNATURES = {
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"%PDF": "PDF",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "a Photoshop file",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), "HEIF"
)
MAX_BYTES = 200_000_000
"""Largest size of a file."""


class PhotoError(ClcaeError, ValueError):
    """A photograph cannot be used; one sentence names the file, the fault and the remedy."""


@dataclass(frozen=True)
class Limits:
    """Allowed sizes of a photograph, and the accepted formats, by Pillow's names."""

    max_pixels: int = 100_000_000
    min_side: int = 16
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "AVIF", "HEIF")


LIMITS = Limits()


def read_image(path: Path | str) -> Image.Image:
    """Return the photograph in a PNG, JPEG, WebP, AVIF or HEIC file of any name; see `decode_image`.

    Raises:
        PhotoError: the file is missing, of another format or damaged, cannot be read, or exceeds the limits.
    """
    return decode_image(read_content(path), name=shown(path))


def check_image(path: Path | str) -> tuple[int, int]:
    """Return the width and height in a file's header; damage after the header is not noticed.

    Raises:
        PhotoError: as `read_image`, for faults that the header shows.
    """
    name = shown(path)
    with _open_file(path) as file:
        start = file.read(_HEADER)
        file.seek(0)
        size = _webp_size(start)  # Pillow's decoder would read the whole file
        if size is None:
            with _open_image(file, start, name, LIMITS) as image:
                return image.size
    if size == (0, 0):
        raise PhotoError(_damaged(name))
    _check_size(size, name, LIMITS)
    return size


def read_content(path: Path | str) -> bytes:
    """Return the content of a regular file; raise PhotoError if it is empty or too large."""
    with _open_file(path) as file:
        return file.read(MAX_BYTES)


def decode_image(data: bytes, *, name: str, limits: Limits = LIMITS, profile: bool = True) -> Image.Image:
    """Return the photograph in a file's content: mode RGB, 8 bits, upright according to its EXIF.

    Transparent pixels are blended with white, 16 bits are scaled to 8, grey, palette and CMYK become RGB, and
    of an animation the first frame is returned.

    Args:
        name: the file's name in messages.
        limits: sizes, which are checked before anything is decoded.
        profile: whether an embedded colour profile is used; the published code ignores it.

    Raises:
        PhotoError: the content is of another format, is damaged, or exceeds the limits.
    """
    with _open_image(BytesIO(data), data, name, limits) as image:
        image.seek(0)
        image.load()
        rgb = _to_rgb(_upright(image), profile=profile)
        rgb.info.clear()  # else PIL saves the old profile and location with the new pixels
        return rgb


def shown(path: Path | str) -> str:
    """Return a path without the characters that a terminal cannot print."""
    text = str(path).encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else "?" for c in text)


@contextmanager
def _open_file(path: Path | str) -> Iterator[BufferedIOBase]:
    """Open a regular file of an allowed size; errors of the system become a PhotoError."""
    path, name = Path(path), shown(path)
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise PhotoError(f"{name} is a folder; name an image in it.")
        if not stat.S_ISREG(found.st_mode):
            raise PhotoError(f"{name} is not a regular file; name an image.")
        if not found.st_size:
            raise PhotoError(f"{name} is empty; copy it again.")
        if found.st_size > MAX_BYTES:
            raise PhotoError(f"{name} has more than {MAX_BYTES / 1e6:g} MB; make it smaller.")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise PhotoError(f"{name} does not exist; check the path.") from error
    except PermissionError as error:
        raise PhotoError(f"{name} may not be read; change its permissions.") from error
    except OSError as error:
        raise PhotoError(f"{name} cannot be read ({error.strerror}); copy it elsewhere.") from error
    except PhotoError:
        raise
    except ValueError as error:  # a zero byte in the name
        raise PhotoError(f"{name} is not a valid path; check the name.") from error


@contextmanager
def _open_image(file: BufferedIOBase, start: bytes, name: str, limits: Limits) -> Iterator[Image.Image]:
    """Open an image by its first bytes and check its size; all errors become a PhotoError."""
    kind = _format_of(start)
    if kind not in limits.formats:
        raise PhotoError(
            f"{name} is not a PNG, JPEG or WebP image{_looks_like(start)}; save it as one of these."
        )
    _require_decoder(kind, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about broken metadata, and about sizes that are checked here
            _check_size(_webp_size(start), name, limits)  # WebP's decoder allocates memory when it opens
            with Image.open(file, formats=[kind]) as image:
                _check_size(image.size, name, limits)
                yield image
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(_too_large(name, limits)) from error
    except MemoryError as error:
        raise PhotoError(f"{name} does not fit into memory; make it smaller.") from error
    except Exception as error:  # decoders raise many kinds of errors for damaged bytes
        raise PhotoError(_damaged(name)) from error


def _check_size(size: tuple[int, int] | None, name: str, limits: Limits) -> None:
    if size is None or size == (0, 0):
        return
    if size[0] * size[1] > limits.max_pixels:
        raise PhotoError(_too_large(name, limits))
    if min(size) < limits.min_side:
        raise PhotoError(
            f"{name} has {size[0]} x {size[1]} pixels; {limits.min_side} per side are needed: "
            "use a larger one."
        )


def _damaged(name: str) -> str:
    return f"{name} is damaged or cut short; save or copy it again."


def _too_large(name: str, limits: Limits) -> str:
    return f"{name} has more than {limits.max_pixels / 1e6:g} million pixels; make it smaller."


def _format_of(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _require_decoder(kind: str, name: str) -> None:
    """Register the decoder of HEIC; refuse an image whose decoder is not installed."""
    if kind == "HEIF":
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError as error:
            raise PhotoError(
                f"{name} is a HEIC image; install its decoder (pip install 'clcae[heic]' in this "
                "environment) or save it as JPEG."
            ) from error
    elif kind in ("AVIF", "WEBP") and not features.check(kind.lower()):
        raise PhotoError(f"{name} is a {kind} image, which this Pillow cannot read; save it as JPEG.")


def _looks_like(data: bytes) -> str:
    """Return a remark on the probable kind of a file that is not an image; may be empty."""
    kind = next((kind for start, kind in _SIGNATURES.items() if data.startswith(start)), None)
    if data[4:8] == b"ftyp":
        kind = _BRANDS.get(data[8:12], "a film or an unusual image").replace("HEIF", "HEIC")
    elif data[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        kind = "a web page"
    return f" (it looks like {kind})" if kind else ""


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the size in the header of a WebP file, (0, 0) if it is cut short; None for other files."""
    if _format_of(data) != "WEBP":
        return None
    if len(data) < 30:
        return 0, 0
    if data[12:16] == b"VP8X":
        return tuple(1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    if data[12:16] == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    return tuple(int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))


def _upright(image: Image.Image) -> Image.Image:
    """Return an image rotated according to its EXIF, or unchanged if that cannot be read."""
    try:
        image.getexif()
        image.info.pop("exif", None)  # else Pillow encodes all of it again, which fails for some cameras
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are usable without the metadata
        return image


def _to_rgb(image: Image.Image, *, profile: bool) -> Image.Image:
    """Return a decoded image in RGB, 8 bits per channel, blended with white where it is transparent."""
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    icc = image.info.get("icc_profile") if profile else None
    if not image.has_transparency_data:
        return _in_srgb(image, icc)
    layer = image.convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(_in_srgb(layer.convert("RGB"), icc), mask=layer.getchannel("A"))
    return white


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits to 0 to 255 and round; Pillow's own conversion may clip."""
    deep = np.asarray(image)
    grey = np.rint(np.clip(deep, 0, 65535) / 257).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[deep == clear] = 255
    flat = Image.fromarray(grey)
    flat.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return flat


def _in_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Return an opaque image in sRGB; with a profile of sRGB or one that does not fit, it is unchanged."""
    fitting = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
    if not icc:
        return fitting.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(icc))
        if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return fitting
        target, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
        return ImageCms.profileToProfile(fitting, source, target, renderingIntent=intent, outputMode="RGB")
    except (ImportError, OSError, ValueError, TypeError, ImageCms.PyCMSError):  # also if LittleCMS is missing
        return fitting.convert("RGB")
