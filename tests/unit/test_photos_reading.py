"""Photographs are read upright and in sRGB, or refused in one sentence that names the file."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

from clcae_lib.photos import PhotoError, check_image, read_folder, read_image, save_image


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


def near(image, x, y, colour, tolerance=8):
    return np.abs(np.subtract(image.getpixel((x, y)), colour)).max() <= tolerance


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("jpg", {"quality": 95}), ("webp", {})])
def test_the_three_formats_whatever_the_name(tmp_path, suffix, options):
    halves().save(tmp_path / f"a.{suffix}", **options)
    (tmp_path / f"a.{suffix}").rename(tmp_path / "named.wrongly")
    image = read_image(tmp_path / "named.wrongly")
    assert (image.mode, image.size) == ("RGB", (40, 24))
    assert near(image, 5, 12, (255, 0, 0))
    assert near(image, 35, 12, (0, 0, 255))
    assert check_image(tmp_path / "named.wrongly") == (40, 24)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_turned_photograph_is_put_upright(tmp_path, orientation, suffix):
    turn = [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]  # how such a camera stores what it sees
    upright = halves(64, 32)
    upright.paste("lime", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
    stored.save(tmp_path / f"a.{suffix}", exif=exif)
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.size == (64, 32)
    assert near(image, 6, 6, (0, 255, 0), 40)
    assert near(image, 6, 26, (255, 0, 0), 40)
    assert near(image, 58, 6, (0, 0, 255), 40)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\xff\xff", b"", b"Exif\0\0II*\0" + b"\xff" * 40]
)
def test_broken_metadata_is_no_reason_to_refuse(tmp_path, exif):
    halves().save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").size == (40, 24)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    halves().save(tmp_path / "a.jpg", exif=exif)
    assert near(read_image(tmp_path / "a.jpg"), 5, 12, (255, 0, 0))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    halves().convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    coloured = mode not in ("L", "1", "LA")
    assert not coloured or (near(image, 5, 12, (255, 0, 0)) and near(image, 35, 12, (0, 0, 255)))
    assert coloured or len(set(image.getpixel((5, 12)))) == 1


def test_transparency_is_laid_on_white_in_its_share(tmp_path):
    clear = Image.new("RGBA", (20, 20), (200, 0, 0, 0))
    clear.paste((200, 0, 0, 128), (0, 0, 10, 20))
    clear.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.getpixel((15, 5)) == (255, 255, 255)
    assert near(image, 5, 5, (227, 127, 127), 1)
    palette = Image.new("P", (20, 20), 0)
    palette.save(tmp_path / "b.png", transparency=0)
    assert read_image(tmp_path / "b.png").getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bits_of_grey_are_scaled_and_rounded(tmp_path):
    deep = np.tile(np.linspace(0, 65535, 256, dtype=np.uint16), (20, 1))
    Image.fromarray(deep).save(tmp_path / "a.png")
    found = np.asarray(read_image(tmp_path / "a.png"))
    assert (found[0, :, 0] == np.rint(deep[0] / 257)).all()
    assert found[0, :, 0].tolist() == list(range(256)), "the whole range, nothing clipped"


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bits_of_colour_are_scaled(tmp_path, colour_type, channels):
    pixel = struct.pack(f">{channels}H", *[0x8000, 0x40FF, 0xFFFF, 0xFFFF][: channels - 1], 0xFFFF)
    data = png((16, 16, 16, colour_type, 0, 0, 0), (b"\0" + pixel * 16) * 16)
    (tmp_path / "a.png").write_bytes(data)
    wanted = (128, 128, 128) if channels == 2 else (128, 65, 255)
    assert near(read_image(tmp_path / "a.png"), 3, 3, wanted, 1)


def test_a_transparent_grey_of_sixteen_bits_becomes_white(tmp_path):
    rows = (b"\0" + struct.pack(">2H", 1000, 30000) * 8) * 16
    data = png((16, 16, 16, 0, 0, 0, 0), rows, (b"tRNS", struct.pack(">H", 1000)))
    (tmp_path / "a.png").write_bytes(data)
    image = read_image(tmp_path / "a.png")
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((1, 0)) == (117, 117, 117)


def test_an_animation_gives_its_first_picture(tmp_path):
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    for suffix, options in (("webp", {"lossless": True}), ("png", {})):
        path = tmp_path / f"a.{suffix}"
        first.save(path, save_all=True, append_images=[second], **options)
        assert read_image(path).getpixel((5, 5)) == (255, 0, 0)


def test_a_colour_profile_is_followed_unless_told_otherwise(tmp_path):
    swapped = _swapping_profile()
    halves().save(tmp_path / "a.png", icc_profile=swapped)
    assert near(read_image(tmp_path / "a.png"), 5, 12, (0, 255, 0), 80), "its red primary is green"
    assert read_image(tmp_path / "a.png").info == {}, "the profile no longer fits the pixels"
    assert read_image(tmp_path / "a.png", profile=False).getpixel((5, 12)) == (255, 0, 0)


def _swapping_profile():
    """sRGB with the columns of red and green exchanged, as bytes."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return bytes(data.replace(b"sRGB", b"odd ").replace(b"s\0R\0G\0B", b"o\0d\0d\0 "))


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 128])
def test_a_profile_that_does_not_fit_is_ignored(tmp_path, profile):
    halves().save(tmp_path / "a.png", icc_profile=profile)
    assert read_image(tmp_path / "a.png").getpixel((5, 12)) == (255, 0, 0)
    halves().convert("CMYK").save(tmp_path / "b.jpg", icc_profile=_swapping_profile())
    assert near(read_image(tmp_path / "b.jpg"), 5, 12, (255, 0, 0))


def test_plain_pixels_are_kept_to_the_bit(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (np.asarray(read_image(tmp_path / "a.png")) == pixels).all()


def encoded(kind, **options):
    file = io.BytesIO()
    halves().save(file, format=kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; copy it again"),
        (b"hello", "is no PNG, JPEG or WebP picture; save it as"),
        (encoded("GIF"), r"looks like GIF\)"),
        (encoded("TIFF"), r"looks like TIFF\)"),
        (encoded("BMP"), r"looks like BMP\)"),
        (b"\0\0\0\x18ftypheic" + bytes(40), r"looks like HEIC\)"),
        (b"\n<!DOCTYPE html><html>", "looks like a web page"),
        (b"%PDF-1.7", "looks like PDF"),
        (encoded("PNG")[:-30], "damaged or cut short"),
        (encoded("JPEG")[:-60], "damaged or cut short"),
        (encoded("WEBP", lossless=True)[:-10], "damaged or cut short"),
        (encoded("PNG")[:20], "damaged or cut short"),
        (b"\xff\xd8\xff", "damaged or cut short"),
        (png((30_000, 30_000, 8, 2, 0, 0, 0), b"0"), "more than 100 million pixels; make it smaller"),
        (png((9_900, 9_900, 8, 2, 0, 0, 0), b"0"), "damaged"),
        (png((12, 40, 8, 2, 0, 0, 0), b"0"), "12 x 40 pixels; 16 a side"),
        (png((0, 40, 8, 2, 0, 0, 0), b"0"), "0 x 40 pixels|damaged"),
    ],
    ids=range(17),
)
def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path, content, said):
    path = tmp_path / "picture.jpg"
    path.write_bytes(content)
    with pytest.raises(PhotoError, match=said) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    for name, said in {
        ".": "is a folder",
        "pipe": "is no regular file",
        "broken": "does not exist",
        "none": "does not exist",
        "a\0b": "is no path",
        "n" * 300: "cannot be read",
    }.items():
        with pytest.raises(PhotoError, match=said):
            read_image(tmp_path / name)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    halves().save(tmp_path / "a.png")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)  # the tests may run as root, who may read everything
    with pytest.raises(PhotoError, match="may not be read; change its permissions"):
        read_image(tmp_path / "a.png")


def test_limits_hold_before_anything_is_decoded(tmp_path, monkeypatch):
    halves().save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(PhotoError, match=r"more than 0\.0009 million pixels"):
        read_image(tmp_path / "a.png", max_pixels=900)
    with pytest.raises(PhotoError, match="more than 5e-05 MB"):
        read_image(tmp_path / "a.png", max_bytes=50)
    with pytest.raises(PhotoError, match="25 a side"):
        read_image(tmp_path / "a.png", min_side=25)


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
            assert read_image(path, max_pixels=10_000).mode == "RGB"
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


def test_a_folder_is_read_in_order_and_refusals_are_named(folder):
    good, refused = read_folder(folder)
    assert [path.name for path in good] == ["Z.PNG", "a.png", "b.png"]
    assert [(entry.path.name, entry.reason.split(" ", 1)[1][:10]) for entry in refused] == [
        ("cut.png", "is damaged"),
        ("notes.txt", "is no PNG,"),
    ]


def test_a_folder_can_be_read_with_all_within_and_by_headers_alone(folder):
    (folder / "sub" / "loop").symlink_to(folder)
    good, refused = read_folder(folder, recursive=True, decode=False)
    assert [path.relative_to(folder).as_posix() for path in good] == [
        *("Z.PNG", "a.png", "b.png", "cut.png", "sub/c.png")
    ]
    assert [entry.path.name for entry in refused] == ["notes.txt"]
    good, _ = read_folder(folder, max_pixels=900, progress=True)
    assert good == []


def test_a_folder_that_is_none_is_refused(tmp_path):
    for name in ("none", "a\0b"):
        with pytest.raises(PhotoError, match="is no folder"):
            read_folder(tmp_path / name)
    assert read_folder(tmp_path) == ([], [])


def test_a_name_that_no_terminal_takes_is_printed_safely(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\n.png"
    with open(path, "wb") as file:
        file.write(b"x")
    _, (refusal,) = read_folder(tmp_path)
    refusal.reason.encode("utf-8")
    assert refusal.reason.isprintable()


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP"), (".png", "PNG")]
)
def test_pictures_are_saved_as_their_suffix_says(tmp_path, suffix, kind):
    level = torch.tensor([-1 + 2 * 99.6 / 255, 1.5, -1.5])[:, None, None]
    path = save_image(tmp_path / f"a{suffix}", level.expand(3, 16, 24))
    with Image.open(path) as image:
        assert (image.format, image.size) == (kind, (24, 16))
    assert near(read_image(path), 3, 3, (100, 255, 0), 0 if kind != "JPEG" else 2), "rounded, clamped"


def test_saving_writes_pixels_alone_and_whole_or_not_at_all(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    picture = halves()
    picture.info["exif"], picture.info["comment"] = exif.tobytes(), b"where I live"
    for suffix in ("jpg", "png", "webp"):
        assert b"where" not in save_image(tmp_path / f"a.{suffix}", picture).read_bytes()
    before = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(ValueError, match=r"a\.jpg: save_image takes an RGB picture, not RGBA"):
        save_image(tmp_path / "a.jpg", picture.convert("RGBA"))
    with pytest.raises(ValueError, match=r"a\.webp: WEBP holds 16383 pixels a side"):
        save_image(tmp_path / "a.webp", Image.new("RGB", (16384, 1)))
    assert (tmp_path / "a.jpg").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3
