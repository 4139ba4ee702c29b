import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from clcae_lib.explorer import ExplorerError, as_text, from_text, read_upload
from clcae_lib.explorer.uploads import MAX_BYTES
from clcae_lib.photos import PhotoError
from clcae_lib.photos.alignment import from_square


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def halves(width=40, height=20, *, mode="RGB"):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (width // 2, 0, width, height))
    return image.convert(mode)


def claiming(width, height):
    """A PNG of a few bytes whose header claims this size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_cropped_to_its_middle(kind):
    found = read_upload(encoded(halves(), kind), name="face", side=16)
    assert found.shape == (16, 16, 3)
    assert found.dtype == np.uint8
    left, right = found[:, :6].mean(axis=(0, 1)), found[:, 10:].mean(axis=(0, 1))
    assert left[0] > 200 > 60 > left[2]
    assert right[2] > 200 > 60 > right[0]


def test_a_turned_photograph_is_put_upright():
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    found = read_upload(encoded(halves(), "JPEG", exif=exif), name="phone.jpg", side=16)
    assert found[:, :6].mean(axis=(0, 1))[2] > 200


@pytest.mark.parametrize("mode", ["P", "L", "1", "CMYK", "I;16"])
def test_other_modes_become_rgb(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    image = Image.new("I;16", (20, 20), 40_000) if mode == "I;16" else halves(mode=mode)
    found = read_upload(encoded(image, kind), name="x", side=16)
    assert found.shape == (16, 16, 3)
    assert found.max() > 50


def test_what_is_transparent_becomes_white():
    clear = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    assert (read_upload(encoded(clear), name="x", side=16) == 255).all()
    palette = Image.new("P", (20, 20), 0)
    assert (read_upload(encoded(palette, transparency=0), name="x", side=16) == 255).all()


def test_an_animation_gives_its_first_picture():
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    data = encoded(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    found = read_upload(data, name="x", side=16)
    assert found[..., 0].min() > 250
    assert found[..., 2].max() < 5


def test_a_picture_of_the_right_side_is_kept_to_the_bit():
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert (from_text(as_text(picture), side=16) == picture).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no PNG"),
        (b"<script>alert(1)</script>", "no PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG"),
        (b"%!PS-Adobe-3.0", "no PNG"),
        (encoded(halves(), "GIF"), "no PNG"),
        (encoded(halves(), "TIFF"), "no PNG"),
        (b"\x89PNG\r\n\x1a\n" + b"<script>", "damaged"),
        (encoded(halves())[:-30], "damaged"),
        (encoded(halves(), "JPEG")[:100], "damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "damaged"),
        (claiming(20, 20), "damaged"),
        (claiming(30_000, 30_000), "40 million pixels"),
        (claiming(8_000, 6_000), "40 million pixels"),
        (claiming(200_000, 200_000), "40 million pixels"),
        (encoded(halves(8, 8)), "8 x 8"),
        (b"\xff\xd8\xff" + bytes(MAX_BYTES), "8 MB"),
        (b"\0" * 100_000_000, "100 MB"),
    ],
    ids=range(17),
)
def test_hostile_files_are_refused_in_a_sentence(data, said):
    with pytest.raises(ExplorerError, match=said):
        read_upload(data, name="face.png", side=16)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ExplorerError, match="pixels"):
        read_upload(claiming(30_000, 30_000), name="bomb.png", side=16)


@pytest.mark.parametrize("options", [{"lossless": True}, {}, {"save_all": True}])
def test_a_large_webp_is_refused_before_it_is_opened(monkeypatch, options):
    image = halves()
    extra = {"append_images": [image.rotate(90)]} if options.get("save_all") else {}
    data = encoded(image, "WEBP", **options, **extra)
    monkeypatch.setattr("clcae_lib.explorer.uploads.MAX_PIXELS", 799)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
        with pytest.raises(ExplorerError, match="pixels"):
            read_upload(data, name="x", side=16)
    monkeypatch.setattr("clcae_lib.explorer.uploads.MAX_PIXELS", 800)  # it has 40 x 20
    assert read_upload(data, name="x", side=16).shape == (16, 16, 3)


def test_a_large_text_chunk_does_not_unfold():
    bomb = claiming(20, 20)
    data = b"x\0\0" + zlib.compress(bytes(50_000_000))
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    with pytest.raises(ExplorerError, match="damaged"):
        read_upload(bomb[:33] + chunk + bomb[33:], name="x", side=16)


def test_a_name_is_shown_short_and_never_used_as_a_path():
    with pytest.raises(ExplorerError) as caught:
        read_upload(b"", name="../../etc/pass\nwd" + "a" * 300, side=16)
    assert str(caught.value).startswith("passwdaaa")
    assert len(str(caught.value)) < 120
    with pytest.raises(ExplorerError, match="The file"):
        read_upload(b"", name="///", side=16)


def test_a_damaged_text_is_refused():
    with pytest.raises(ExplorerError, match="upload it again"):
        from_text("not base64!", side=16)
    with pytest.raises(ExplorerError, match="no PNG"):
        from_text("aGVsbG8=", side=16)


def test_a_photograph_is_cut_where_the_world_says_and_else_in_the_middle():
    data = encoded(halves(80, 40))

    def right(path, picture):
        assert not path.exists()
        centre, axis = torch.tensor([60.0, 20.0]), torch.tensor([16.0, 0.0])
        return from_square(centre, axis, picture.size, side=64)

    def nobody(path, picture):
        raise PhotoError("no face")

    middle = read_upload(data, name="me.png", side=20)
    framed = read_upload(data, name="me.png", side=20, frame=right)
    assert framed.shape == middle.shape
    assert (framed == (0, 0, 255)).all(), "the right half is blue"
    assert np.ptp(middle[..., 0]) > 100
    assert np.array_equal(read_upload(data, name="me.png", side=20, frame=nobody), middle)
    whole = encoded(halves(20, 20))
    assert np.array_equal(read_upload(whole, name="me.png", side=20, frame=right), np.array(halves(20, 20)))
