import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from clcae_lib.explorer import State, as_text, codes, gif, png, snippet
from clcae_lib.explorer._decode import pixels
from clcae_lib.inversion import Inversion
from clcae_lib.weights.checkpoints import load_weights
from clcae_lib.worlds import world
from tests.unit._explorer import SIDE, open_studio

STATE = State(world="tiny", source="gallery", index=2, edits={"red": 1.5}, truncation=0.8)


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        opened = open_studio(patch, tmp_path_factory.mktemp("explorer"))
        patch.setitem(world._REGISTRY, "tiny", lambda: opened.world)
        yield opened


def test_a_png_holds_the_picture(studio):
    found = np.array(Image.open(io.BytesIO(png(studio.frame(STATE)))))
    assert (found == studio.frame(STATE).after).all()


@pytest.mark.parametrize("strip", [None, "green"])
def test_a_gif_goes_there_and_back(studio, strip):
    data = gif(studio, replace(STATE, strip=strip), frames=4)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (SIDE, SIDE)
        assert image.info["loop"] == 0
        assert image.n_frames == 6
        shown = []
        for index in range(6):
            image.seek(index)
            shown.append(np.array(image.convert("RGB")).astype(int))
    assert np.abs(shown[1] - shown[5]).mean() < 2
    assert np.abs(shown[0] - shown[3]).mean() > 3
    first = STATE.with_edit("green", -2) if strip else replace(STATE, edits={})
    assert np.abs(shown[0] - studio.picture(first)).mean() < 6  # a GIF has 256 colours


@pytest.mark.parametrize("frames", [1, 10_000])
def test_a_gif_has_a_sensible_length(studio, frames):
    with pytest.raises(ValueError, match="frames"):
        gif(studio, STATE, frames=frames)


@pytest.mark.parametrize("space", ["f", "w_plus"])
def test_codes_decode_to_the_picture_and_hold_the_state(studio, space, tmp_path):
    state = replace(STATE, space=space)
    path = tmp_path / "codes.safetensors"
    path.write_bytes(codes(studio, state))
    tensors, metadata = load_weights(path, kind="inversion codes")
    image = Inversion(**tensors).decode(studio.generator, space)[0]
    assert np.abs(pixels(image).astype(int) - studio.picture(state)).max() <= 1
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
def test_the_snippet_draws_the_picture_again(studio, state, monkeypatch):
    monkeypatch.setattr("clcae_lib.explorer.studio.find_controls", lambda *_, **__: studio.controls)
    names = {}
    exec(snippet(state), names)
    assert (names["picture"] == studio.picture(state)).all()
    assert isinstance(names["codes"], Inversion)


def test_a_snippet_is_short_and_says_what_matters():
    text = snippet(STATE)
    assert "edits={'red': 1.5}" in text
    assert "mix_seed" not in text
