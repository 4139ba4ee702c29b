"""Convert decoded pixels of any mode to upright RGB, 8 bits, in sRGB (no section of the paper)."""

import io

import numpy as np
from PIL import Image, ImageCms, ImageOps


def upright(image: Image.Image) -> Image.Image:
    """Return an image rotated as its EXIF says, or as it is where the EXIF cannot be read."""
    try:
        image.getexif()
        image.info.pop("exif", None)  # else Pillow encodes all of it again, which fails for some cameras
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable metadata do not make the pixels unusable
        return image


def to_rgb(image: Image.Image, *, profile: bool) -> Image.Image:
    """Return an image in RGB, 8 bits per channel, blended with white where it is transparent.

    Args:
        image: decoded, of any mode that PNG, JPEG or WebP has.
        profile: whether an embedded colour profile is used; one that does not fit is ignored.
    """
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
    """Return an opaque image in sRGB; a profile that is sRGB's or does not fit changes no number."""
    fitting = image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")
    if not icc:
        return fitting.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
            return fitting
        target, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
        return ImageCms.profileToProfile(fitting, source, target, renderingIntent=intent, outputMode="RGB")
    except (
        ImportError,
        OSError,
        ValueError,
        TypeError,
        ImageCms.PyCMSError,
    ):  # a build without LittleCMS, too
        return fitting.convert("RGB")
