"""Decoded pixels of any mode → upright RGB, 8 bits, in sRGB (no section of the paper)."""

import io

import numpy as np
from PIL import Image

try:
    from PIL import ImageCms
except ImportError:  # a build of PIL without LittleCMS: profiles are ignored
    ImageCms = None

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image) -> Image.Image:
    """A picture turned as its EXIF says; as it is where EXIF says nothing that can be read."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION))
    except Exception:  # metadata that no parser takes is no reason to refuse the pixels
        return image
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image.Image, *, profile: bool) -> Image.Image:
    """A picture in RGB, 8 bits a channel; what is transparent becomes white, a half of it half white.

    Args:
        image: decoded, of any mode that PNG, JPEG or WebP has.
        profile: whether an embedded colour profile is followed; one that does not fit is ignored.
    """
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if not image.has_transparency_data:
        return _in_srgb(image) if profile else image.convert("RGB")
    layer = image.convert("RGBA")
    alpha = layer.getchannel("A")
    colours = layer.convert("RGB")
    colours.info = dict(image.info)
    colours.info.pop("transparency", None)
    colours = _in_srgb(colours) if profile else colours
    white = Image.new("RGB", colours.size, "white")
    white.paste(colours, mask=alpha)
    return white


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen bits of grey, 0 to 65535, scaled to 0 to 255 and rounded (PIL's own conversion may clip)."""
    deep = np.asarray(image)
    grey = np.rint(np.clip(deep, 0, 65535) / 257).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[deep == clear] = 255
    flat = Image.fromarray(grey)
    flat.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return flat


def _in_srgb(image: Image.Image) -> Image.Image:
    """A picture without transparency in RGB, through its own colour profile if it has one that fits."""
    found = image.info.get("icc_profile")
    fitting = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
    return _converted(fitting, found) if found else fitting.convert("RGB")


def _converted(image: Image.Image, icc: bytes) -> Image.Image:
    """Colours of a profile as sRGB; a plain conversion if it is sRGB already or does not fit the picture."""
    if ImageCms is None:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        target, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
        converted = ImageCms.profileToProfile(image, source, target, renderingIntent=intent, outputMode="RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return image.convert("RGB")
    return image.convert("RGB") if converted is None else converted
