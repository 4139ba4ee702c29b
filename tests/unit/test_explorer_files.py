"""Uploads are checked before they are decoded; exports hold what the explorer shows."""

import io
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clcae_lib.explorer import (
    ExplorerError,
    State,
    as_text,
    codes,
    from_text,
    gif,
    png,
    read_upload,
    snippet,
)
from clcae_lib.explorer.uploads import MAX_BYTES
from clcae_lib.images import to_array
from clcae_lib.inversion import Inversion
from clcae_lib.photos import Limits, PhotoError
from clcae_lib.photos.crop import from_square
from clcae_lib.weights.checkpoints import load_weights
from clcae_lib.worlds import WORLDS
from tests.unit._explorer import SIDE, open_studio
from tests.unit.test_photos_reading import halves
from tests.unit.test_photos_reading import png as png_of

STATE = State(world="tiny", source="gallery", index=2, edits={"red": 1.5}, truncation=0.8)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_upload_is_cropped_to_its_middle(kind):
    found = read_upload(encoded(halves(40, 20), kind), name="face", side=16)
    assert found.shape == (16, 16, 3)
    assert found.dtype == np.uint8
    left, right = found[:, :6].mean(axis=(0, 1)), found[:, 10:].mean(axis=(0, 1))
    assert left[0] > 200 > 60 > left[2]
    assert right[2] > 200 > 60 > right[0]


def test_an_image_of_the_right_side_is_kept_to_the_bit():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert (from_text(as_text(image), side=16) == image).all()


TEXT_BOMB = png_of((20, 20, 8, 2, 0, 0, 0), b"0", (b"zTXt", b"x\0\0" + zlib.compress(bytes(50_000_000))))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PNG, JPEG or WebP"),
        (b"\x89PNG\r\n\x1a\n" + b"<script>", "damaged"),
        (TEXT_BOMB, "damaged"),
        (png_of((8_000, 6_000, 8, 2, 0, 0, 0), b"0"), "40 million pixels"),
        (b"\xff\xd8\xff" + bytes(MAX_BYTES), "8 MB"),
    ],
    ids=["format", "damage", "text", "pixels", "bytes"],
)
def test_hostile_files_are_refused_in_a_sentence(data, said):
    with pytest.raises(ExplorerError, match=said):
        read_upload(data, name="face.png", side=16)


def test_a_webp_of_too_many_pixels_is_refused_before_pillow_decodes_it_in_open(monkeypatch):
    monkeypatch.setattr("clcae_lib.explorer.uploads.LIMITS", Limits(max_pixels=799))  # it has 40 x 20
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    for options in ({"lossless": True}, {}, {"save_all": True, "append_images": [halves(40, 20).rotate(90)]}):
        with pytest.raises(ExplorerError, match="pixels"):
            read_upload(encoded(halves(40, 20), "WEBP", **options), name="x", side=16)


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


def test_a_photograph_is_cut_where_the_world_says_and_else_in_the_middle():
    data = encoded(halves(80, 40))

    def right(path, image):
        assert not path.exists()
        centre, axis = torch.tensor([60.0, 20.0]), torch.tensor([16.0, 0.0])
        return from_square(centre, axis, image.size, side=64)

    def no_face(path, image):
        raise PhotoError("no face")

    middle = read_upload(data, name="me.png", side=20)
    assert np.ptp(middle[..., 0]) > 100
    assert (read_upload(data, name="me.png", side=20, align=right) == (0, 0, 255)).all(), "the right is blue"
    assert np.array_equal(read_upload(data, name="me.png", side=20, align=no_face), middle)
    whole = encoded(halves(20, 20))
    assert np.array_equal(read_upload(whole, name="me.png", side=20, align=right), np.array(halves(20, 20)))


# ----------------------------------------------------------------------------------------- exports


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        opened = open_studio(patch, tmp_path_factory.mktemp("explorer"))
        patch.setitem(WORLDS, "tiny", lambda: opened.world)
        yield opened


def test_a_png_holds_the_image(studio):
    found = np.array(Image.open(io.BytesIO(png(studio.frame(STATE)))))
    assert (found == studio.frame(STATE).after).all()


@pytest.mark.parametrize("strip", [None, "green"])
def test_a_gif_goes_there_and_back(studio, strip):
    data = gif(studio, replace(STATE, strip=strip), frames=4)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.size, image.info["loop"], image.n_frames) == ((SIDE, SIDE), 0, 6)
        shown = []
        for index in range(6):
            image.seek(index)
            shown.append(np.array(image.convert("RGB")).astype(int))
    assert np.abs(shown[1] - shown[5]).mean() < 2
    assert np.abs(shown[0] - shown[3]).mean() > 3
    first = STATE.with_edit("green", -2) if strip else replace(STATE, edits={})
    assert np.abs(shown[0] - studio.image(first)).mean() < 6  # a GIF has 256 colours
    for frames in (1, 10_000):
        with pytest.raises(ValueError, match="frames"):
            gif(studio, STATE, frames=frames)


@pytest.mark.parametrize("space", ["f", "w_plus"])
def test_codes_decode_to_the_image_and_hold_the_state(studio, space, tmp_path):
    state = replace(STATE, space=space)
    path = tmp_path / "codes.safetensors"
    path.write_bytes(codes(studio, state))
    tensors, metadata = load_weights(path, kind="inversion codes")
    image = Inversion(**tensors).decode(studio.generator, space)[0]
    assert np.abs(to_array(image).astype(int) - studio.image(state)).max() <= 1
    assert State.from_json(json.dumps(metadata["state"])) == state


@pytest.mark.parametrize(
    "state",
    [
        State(world="tiny"),
        STATE,
        replace(STATE, space="w", mix_seed=3, mix_layers=(1, 2), lock_identity=True, strip="green"),
        State(world="tiny", source="upload", upload=as_text(np.full((SIDE, SIDE, 3), 90, np.uint8))),
    ],
)
def test_the_snippet_draws_the_image_again(studio, state, monkeypatch):
    monkeypatch.setattr("clcae_lib.explorer.studio.find_controls", lambda *_, **__: studio.controls)
    names = {}
    exec(snippet(state), names)
    assert (names["image"] == studio.image(state)).all()
    assert isinstance(names["codes"], Inversion)


def test_a_snippet_names_only_what_differs_from_the_defaults():
    text = snippet(STATE)
    assert "edits={'red': 1.5}" in text
    assert "mix_seed" not in text
