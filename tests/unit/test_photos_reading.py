"""Photographs are read upright and in sRGB, or refused in one sentence that names the file."""

import importlib.util
import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from clcae_lib.photos import (
    Limits,
    PhotoError,
    check_image,
    decode_image,
    read_folder,
    read_image,
    save_image,
)

if importlib.util.find_spec("pillow_heif"):
    importlib.import_module("pillow_heif").register_heif_opener()
# Why: the decoder of HEIC is an optional extra, which the pinned environment does not install.
HEIC = pytest.mark.skipif(
    not importlib.util.find_spec("pillow_heif"), reason="the extra `heic` is not installed"
)


def halves(width=40, height=24):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image


def png(header, rows, *extra):
    """A PNG made by hand: the fields of its header, raw rows, further chunks before the pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), *(chunk(*pair) for pair in extra)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [*chunks, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def decode(path, **options):
    return decode_image(path.read_bytes(), name=str(path), **options)


def near(image, x, y, colour, tolerance=8):
    return np.abs(np.subtract(image.getpixel((x, y)), colour)).max() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif", pytest.param("heic", marks=HEIC)])
def test_the_formats_of_any_name_and_upright(tmp_path, suffix):
    upright = halves(64, 32)
    upright.paste("lime", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    if suffix == "heic":  # its decoder rotates, as the container says
        upright.save(tmp_path / "a.heic", quality=95)
    else:
        upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    (tmp_path / f"a.{suffix}").rename(tmp_path / "named.wrongly")
    image = read_image(tmp_path / "named.wrongly")
    assert (image.mode, image.size) == ("RGB", (64, 32))
    assert near(image, 6, 6, (0, 255, 0), 40)
    assert near(image, 6, 26, (255, 0, 0), 40)
    assert near(image, 58, 6, (0, 0, 255), 40)
    assert sorted(check_image(tmp_path / "named.wrongly")) == [32, 64]
    with pytest.raises(PhotoError, match=r"more than 0\.001 million pixels"):
        decode(tmp_path / "named.wrongly", limits=Limits(max_pixels=1000))


def test_broken_metadata_are_no_reason_to_refuse(tmp_path):
    beyond = Image.Exif()
    beyond[0x0112] = 9
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0II*\0" + b"\xff" * 40, beyond):
        halves().save(tmp_path / "a.jpg", exif=exif)
        assert near(read_image(tmp_path / "a.jpg"), 5, 12, (255, 0, 0))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    halves().convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    if mode in ("L", "1", "LA"):
        assert len(set(image.getpixel((5, 12)))) == 1
    else:
        assert near(image, 5, 12, (255, 0, 0))
        assert near(image, 35, 12, (0, 0, 255))


def test_transparency_is_laid_on_white_in_its_share(tmp_path):
    clear = Image.new("RGBA", (20, 20), (200, 0, 0, 0))
    clear.paste((200, 0, 0, 128), (0, 0, 10, 20))
    clear.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.getpixel((15, 5)) == (255, 255, 255)
    assert near(image, 5, 5, (227, 127, 127), 1)
    Image.new("P", (20, 20), 0).save(tmp_path / "b.png", transparency=0)
    assert read_image(tmp_path / "b.png").getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_rounded(tmp_path):
    path = tmp_path / "a.png"
    deep = np.tile(np.linspace(0, 65535, 256, dtype=np.uint16), (20, 1))
    Image.fromarray(deep).save(path)
    found = np.asarray(read_image(path))
    assert (found[0, :, 0] == np.rint(deep[0] / 257)).all()
    assert found[0, :, 0].tolist() == list(range(256)), "the whole range, nothing clipped"
    for colour_type, channels in ((2, 3), (6, 4), (4, 2)):
        pixel = struct.pack(f">{channels}H", *[0x8000, 0x40FF, 0xFFFF, 0xFFFF][: channels - 1], 0xFFFF)
        path.write_bytes(png((16, 16, 16, colour_type, 0, 0, 0), (b"\0" + pixel * 16) * 16))
        assert near(read_image(path), 3, 3, (128, 128, 128) if channels == 2 else (128, 65, 255), 1)
    rows = (b"\0" + struct.pack(">2H", 1000, 30000) * 8) * 16
    path.write_bytes(png((16, 16, 16, 0, 0, 0, 0), rows, (b"tRNS", struct.pack(">H", 1000))))
    assert read_image(path).getpixel((0, 0)) == (255, 255, 255), "the transparent grey"
    assert read_image(path).getpixel((1, 0)) == (117, 117, 117)


def test_an_animation_gives_its_first_frame(tmp_path):
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    for suffix, options in (("webp", {"lossless": True}), ("png", {})):
        path = tmp_path / f"a.{suffix}"
        first.save(path, save_all=True, append_images=[second], **options)
        assert read_image(path).getpixel((5, 5)) == (255, 0, 0)


def test_a_colour_profile_is_used_if_it_fits(tmp_path):
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    swapped = bytes(data.replace(b"sRGB", b"odd ").replace(b"s\0R\0G\0B", b"o\0d\0d\0 "))
    halves().save(tmp_path / "a.png", icc_profile=swapped)
    assert near(read_image(tmp_path / "a.png"), 5, 12, (0, 255, 0), 80), "its red primary is green"
    assert read_image(tmp_path / "a.png").info == {}, "the profile no longer fits the pixels"
    assert decode(tmp_path / "a.png", profile=False).getpixel((5, 12)) == (255, 0, 0)
    halves().convert("CMYK").save(tmp_path / "b.jpg", icc_profile=swapped)
    assert near(read_image(tmp_path / "b.jpg"), 5, 12, (255, 0, 0))
    for profile in (b"nonsense", b"\0" * 128):
        halves().save(tmp_path / "a.png", icc_profile=profile)
        assert read_image(tmp_path / "a.png").getpixel((5, 12)) == (255, 0, 0)


def test_plain_pixels_are_kept_to_the_bit(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (np.asarray(read_image(tmp_path / "a.png")) == pixels).all()


def encoded(kind, **options):
    file = io.BytesIO()
    halves().save(file, format=kind, **options)
    return file.getvalue()


REFUSED = [
    (b"", "is empty; copy it again"),
    (b"hello", "is not a PNG, JPEG or WebP image; save it as"),
    (encoded("GIF"), r"looks like GIF\)"),
    (b"II*\0" + bytes(40), r"looks like TIFF\)"),
    (b"BM" + bytes(40), r"looks like BMP\)"),
    (b"\0\0\0\x18ftypheic" + bytes(40), r"is a HEIC image; install its decoder \(pip install|damaged"),
    (b"\0\0\0\x18ftypqt  " + bytes(40), r"looks like a film or an unusual image\)"),
    (b"\n<!DOCTYPE html><html>", "looks like a web page"),
    (encoded("PNG")[:-30], "damaged or cut short"),
    (encoded("JPEG")[:-60], "damaged or cut short"),
    (encoded("WEBP", lossless=True)[:-10], "damaged or cut short"),
    (b"\xff\xd8\xff", "damaged or cut short"),
    (png((30_000, 30_000, 8, 2, 0, 0, 0), b"0"), "more than 100 million pixels; make it smaller"),
    (png((9_900, 9_900, 8, 2, 0, 0, 0), b"0"), "damaged"),
    (png((12, 40, 8, 2, 0, 0, 0), b"0"), "12 x 40 pixels; 16 per side"),
    (png((0, 40, 8, 2, 0, 0, 0), b"0"), "0 x 40 pixels|damaged"),
]


@pytest.mark.parametrize(("content", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path, content, said):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(PhotoError, match=said) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_not_a_readable_file_is_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for name, said in {
        ".": "is a folder",
        "pipe": "is not a regular file",
        "broken": "does not exist",
        "a\0b": "is not a valid path",
        "n" * 300: "cannot be read",
    }.items():
        with pytest.raises(PhotoError, match=said):
            read_image(tmp_path / name)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    halves().save(tmp_path / "a.png")
    monkeypatch.setattr("pathlib.Path.open", refuse)  # the tests may run as root, who may read everything
    with pytest.raises(PhotoError, match="may not be read; change its permissions"):
        read_image(tmp_path / "a.png")


def test_limits_hold_before_anything_is_decoded(tmp_path, monkeypatch):
    halves().save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    for limits, said in {
        Limits(max_pixels=900): r"more than 0\.0009 million pixels",
        Limits(min_side=25): "25 per side",
    }.items():
        with pytest.raises(PhotoError, match=said):
            decode(tmp_path / "a.png", limits=limits)
    monkeypatch.setattr("clcae_lib.photos.reading.MAX_BYTES", 50)
    with pytest.raises(PhotoError, match="more than 5e-05 MB"):
        read_image(tmp_path / "a.png")


def test_damaged_bytes_never_raise_anything_else(tmp_path):
    rng = np.random.default_rng(3)
    originals = [encoded("PNG"), encoded("JPEG"), encoded("WEBP"), encoded("WEBP", lossless=True)]
    path = tmp_path / "a"
    for turn in range(400):
        data = bytearray(originals[turn % 4])
        for place in rng.integers(0, len(data), 1 + turn % 5):
            data[place] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            assert decode(path, limits=Limits(max_pixels=10_000)).mode == "RGB"
        except PhotoError as error:
            assert str(error).startswith(str(path))  # noqa: PT017 - either outcome is right


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.png", "Z.PNG", "sub/c.png", ".hidden.png", ".git/d.png", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        halves().save(tmp_path / name, format="PNG")
    (tmp_path / "notes.txt").write_text("a note")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    return tmp_path


def test_a_folder_is_read_in_order_and_refusals_are_named(folder, capsys):
    good, refused = read_folder(folder)
    assert [path.name for path in good] == ["Z.PNG", "a.png", "b.png"]
    assert [(entry.path.name, entry.reason.split(" ", 1)[1][:10]) for entry in refused] == [
        ("cut.png", "is damaged"),
        ("notes.txt", "is not a P"),
    ]
    (folder / "sub" / "loop").symlink_to(folder)
    good, refused = read_folder(folder, recursive=True, decode=False)
    assert [path.relative_to(folder).as_posix() for path in good] == [
        *("Z.PNG", "a.png", "b.png", "cut.png", "sub/c.png")
    ]
    assert [entry.path.name for entry in refused] == ["notes.txt"]
    assert capsys.readouterr().err == "", "a progress bar without a terminal"


def test_what_is_not_a_folder_is_refused_and_an_empty_one_is_empty(tmp_path):
    for name in ("none", "a\0b"):
        with pytest.raises(PhotoError, match="is not a folder"):
            read_folder(tmp_path / name)
    assert read_folder(tmp_path) == ([], [])


def test_a_name_that_no_terminal_takes_is_printed_safely(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff\n.png", "wb") as file:
        file.write(b"x")
    _, (refusal,) = read_folder(tmp_path)
    refusal.reason.encode("utf-8")
    assert refusal.reason.isprintable()


def test_images_are_saved_as_their_suffix_says(tmp_path):
    level = torch.tensor([-1 + 2 * 99.6 / 255, 1.5, -1.5])[:, None, None]
    for suffix, kind in {".jpg": "JPEG", ".JPEG": "JPEG", ".webp": "WEBP", ".png": "PNG"}.items():
        path = save_image(tmp_path / f"a{suffix}", level.expand(3, 16, 24))
        with Image.open(path) as image:
            assert (image.format, image.size) == (kind, (24, 16))
        assert near(read_image(path), 3, 3, (100, 255, 0), 0 if kind != "JPEG" else 2), "rounded, clamped"


def test_saving_writes_only_pixels_and_whole_or_not_at_all(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    image = halves()
    image.info["exif"], image.info["comment"] = exif.tobytes(), b"where I live"
    for suffix in ("jpg", "png", "webp"):
        assert b"where" not in save_image(tmp_path / f"a.{suffix}", image).read_bytes()
    before = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(ValueError, match=r"a\.jpg: save_image takes an RGB image, not RGBA"):
        save_image(tmp_path / "a.jpg", image.convert("RGBA"))
    with pytest.raises(ValueError, match=r"a\.webp: WEBP holds 16383 pixels per side"):
        save_image(tmp_path / "a.webp", Image.new("RGB", (16384, 1)))
    assert (tmp_path / "a.jpg").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3
