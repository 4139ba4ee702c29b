"""A studio draws what the library computes, and measures what a state changes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from clcae_lib.editing import apply
from clcae_lib.evaluation import Judges
from clcae_lib.explorer import ExplorerError, State, Studio, as_text, find_controls, identity_basis
from clcae_lib.images import to_array
from clcae_lib.inversion import ClcaeInverter
from clcae_lib.weights.checkpoints import write_card
from clcae_lib.worlds import WorldError
from tests.unit._explorer import SIDE, BareWorld, TinyWorld, open_studio
from tests.unit._tiny import Embedding, tiny_generator

SEED = State(world="tiny", seed=2)
GALLERY = State(world="tiny", source="gallery", index=1)


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield open_studio(patch, tmp_path_factory.mktemp("explorer"))


def apart(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


def test_a_studio_has_what_its_world_has(studio):
    assert studio.methods == ("foundation",)
    assert (studio.gallery_size, studio.rows, studio.side) == (5, 8, SIDE)
    assert [c.group for c in studio.controls.values()] == ["directions"] * 2 + ["GANSpace"] * 6 + ["SeFa"] * 6
    assert all(key == control.key for key, control in studio.controls.items())
    assert "how red; " in studio.controls["red"].text
    assert studio.controls["red"].direction.provenance["moved"] > 0.5
    assert studio.controls["red"].direction.provenance["leakage"] >= 0


def test_a_seed_is_drawn_as_the_generator_draws_it(studio):
    w = studio.generator.sample_w(1, generator=torch.Generator().manual_seed(2))
    assert apart(studio.image(SEED), to_array(studio.generator.synthesis(w)[0])) == 0


def test_a_gallery_image_is_inverted_once(studio, monkeypatch):
    calls, invert = [], ClcaeInverter.invert

    def counted(self, images):
        calls.append(len(images))
        return invert(self, images)

    monkeypatch.setattr(ClcaeInverter, "invert", counted)
    for space in ("f", "w_plus", "w"):
        studio.image(replace(GALLERY, index=4, space=space, edits={"red": 1.0}))
    assert calls == [1]


@pytest.mark.parametrize("state", [SEED, GALLERY])
@pytest.mark.parametrize("space", ["w", "w_plus", "f"])
def test_an_edit_is_what_the_library_applies(studio, state, space):
    start = studio.inversion(replace(state, space=space))
    edited = apply(studio.generator, start, studio.controls["red"].direction, 1.5)
    expected = edited.decode(studio.generator, space if space != "f" else edited.spaces[-1])
    found = studio.image(replace(state, space=space, edits={"red": 1.5}))
    assert apart(found, to_array(expected[0])) <= 1
    assert apart(found, studio.image(replace(state, space=space))) > 5


@pytest.mark.parametrize(
    "change",
    [
        {"edits": {"red": 2.0, "sefa-0": -1.0}},
        {"truncation": 0.3},
        {"mix_seed": 9, "mix_layers": (0, 1, 2)},
        {"edits": {"red": 2.0}, "lock_identity": True, "truncation": 0.7, "mix_seed": 1, "mix_layers": (5,)},
    ],
)
@pytest.mark.parametrize("space", ["w", "w_plus", "f"])
def test_every_control_shows_and_the_codes_decode_to_the_image(studio, change, space):
    state = replace(GALLERY, space=space)
    found = studio.image(replace(state, **change))
    assert apart(found, studio.image(state)) > 0
    codes = studio.inversion(replace(state, **change))
    assert (codes.feature is not None) == (space == "f")
    assert apart(found, to_array(codes.decode(studio.generator, codes.spaces[-1])[0])) <= 1


def test_no_truncation_left_is_the_mean_face(studio):
    mean = to_array(studio.generator.synthesis(studio.generator.w_avg[None])[0])
    assert apart(studio.image(replace(SEED, truncation=0.0)), mean) <= 1


def test_mixed_rows_come_from_the_other_seed(studio):
    other = studio.inversion(replace(SEED, seed=9))
    rows = studio.inversion(replace(SEED, mix_seed=9, mix_layers=(1, 3))).w_plus
    assert torch.equal(rows[:, [1, 3]], other.w_plus[:, [1, 3]])
    assert torch.equal(rows[:, [0, 2]], studio.inversion(SEED).w_plus[:, [0, 2]])


def test_an_image_depends_on_its_state_and_not_on_what_other_threads_draw(studio):
    spaces = ("f", "w_plus", "w", "f")
    states = [
        replace(GALLERY, index=k % 5, space=spaces[k % 4], edits={"red": 0.2 * k, "sefa-0": 1.0})
        for k in range(20)
    ]
    expected = [studio.image(state) for state in states]
    begin = threading.Barrier(4)

    def draw(first):
        begin.wait(30)
        order = [*range(first, 20), *range(first)] * 4
        return [(k, studio.image(states[k])) for k in order]

    with ThreadPoolExecutor(4) as threads:
        drawn = [pair for part in threads.map(draw, (0, 5, 10, 15)) for pair in part]
    wrong = [k for k, image in drawn if apart(image, expected[k])]
    assert not wrong, f"{len(wrong)} of {len(drawn)} images differ"


def test_a_frame_shows_and_measures_the_change(studio):
    state = replace(SEED, edits={"red": 2.0})
    frame = studio.frame(state)
    assert apart(frame.before, studio.image(SEED)) == 0
    assert apart(frame.after, studio.image(state)) <= 1
    assert (frame.difference > 0).any()
    assert frame.strip == ()
    assert list(frame.readout.columns) == ["before", "after", "change", "reliable"]
    assert frame.readout.reliable.all()
    assert list(frame.readout.index) == ["green", "red"]
    assert abs(frame.readout.change["red"]) > 0.2
    assert -1 <= frame.identity < 1
    still = studio.frame(SEED)
    assert not still.difference.any()
    assert still.identity == pytest.approx(1, abs=1e-5)
    assert still.readout.change.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("weights", "measure", "limit"), [("oracle_b", "r2", 0.8), ("generator", "spread", 0.6)]
)
def test_factors_that_cannot_be_read_or_made_are_not_reliable(weights, measure, limit, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    world = TinyWorld()
    path = world.weights(weights)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    write_card(path, {"measures": {measure: {"green": limit - 0.01, "red": limit}}})
    assert Judges(world, torch.device("cpu")).unreliable == {"green"}
    path.with_suffix(".json").unlink()
    assert Judges(world, torch.device("cpu")).unreliable == frozenset()


def test_the_readout_is_what_the_oracle_reads(studio):
    frame = studio.frame(replace(SEED, edits={"green": 1.0}))
    w = studio.generator.sample_w(1, generator=torch.Generator().manual_seed(2))
    truth = studio.world.oracle("measure")(studio.generator.synthesis(w))[0] / studio.world.factor_std
    assert frame.readout.before.tolist() == pytest.approx(truth.tolist(), abs=1e-4)


def test_a_strip_covers_its_range(studio):
    state = replace(SEED, edits={"red": 1.0}, strip="green", strip_range=3.0)
    frame = studio.frame(state)
    assert frame.strip_strengths == (-3.0, -1.5, 0.0, 1.5, 3.0)
    for image, strength in zip(frame.strip, frame.strip_strengths, strict=True):
        assert apart(image, studio.image(state.with_edit("green", strength))) <= 1


def test_a_preview_is_smaller(studio):
    for side in (8, 16):
        assert studio.image(GALLERY, side=side).shape == (side, side, 3)
    assert apart(studio.image(GALLERY, side=SIDE), studio.image(GALLERY)) == 0
    with pytest.raises(ExplorerError, match="side=10"):
        studio.image(GALLERY, side=10)


def test_an_upload_is_inverted(studio):
    image = studio.thumbnails([1])[0]
    uploaded = replace(GALLERY, source="upload", upload=as_text(image))
    drawn = apart(studio.image(uploaded), studio.image(GALLERY))
    assert drawn <= 8, "bytes are not the floats they came from, but near them"


def test_a_locked_edit_changes_the_identity_less(studio):
    edits = {"red": 0.3}
    start = studio.inversion(GALLERY)

    def moved(**options):
        codes = studio.inversion(replace(GALLERY, edits=edits, **options))
        both = (c.decode(studio.generator, "f") for c in (start, codes))
        a, b = (studio.world.identity("train")(image) for image in both)
        return (a - b).norm()

    assert moved(lock_identity=True) < 0.3 * moved()


def test_the_basis_is_the_jacobians(studio):
    generator, embed = tiny_generator(SIDE), Embedding()
    rows = generator.w_avg[None, None].repeat(1, 8, 1) + 0.5
    decode = generator.synthesis
    basis = identity_basis(embed, lambda d: decode(rows + d[:, None]), torch.zeros(1, 8), rank=2)
    exact = torch.autograd.functional.jacobian(lambda d: embed(decode(rows + d))[0], torch.zeros(8))
    expected = torch.linalg.svd(exact, full_matrices=False).Vh[:2]
    torch.testing.assert_close(basis.T @ basis, expected.T @ expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"world": "portraits"}, "world portraits, not tiny"),
        ({"edits": {"smile": 1.0}}, "smile"),
        ({"strip": "smile"}, "smile"),
        ({"source": "gallery", "index": 5}, "0 to 4"),
        ({"source": "upload"}, "choose an image"),
        ({"source": "upload", "upload": "aGVsbG8="}, "PNG"),
        ({"source": "gallery", "method": "published"}, "no encoder published: choose foundation"),
        ({"mix_seed": 1, "mix_layers": (8,)}, "rows 0 to 7"),
    ],
)
def test_what_the_world_lacks_is_named(studio, change, said):
    with pytest.raises(ExplorerError, match=said):
        studio.frame(replace(SEED, **change))
    with pytest.raises(ExplorerError, match="0 to 4"):
        studio.thumbnails([5])


def test_a_world_without_judges_has_components_only(tmp_path, monkeypatch):
    bare = open_studio(monkeypatch, tmp_path, BareWorld())
    assert {c.group for c in bare.controls.values()} == {"GANSpace", "SeFa"}
    state = State(world="bare", edits={"sefa-1": 2.0}, strip="ganspace-0")
    frame = bare.frame(state)
    assert (frame.readout, frame.identity, len(frame.strip)) == (None, None, 5)
    assert (frame.difference > 0).any()
    assert bare.gallery_size == 0
    with pytest.raises(ExplorerError, match="no gallery"):
        bare.image(replace(state, source="gallery"))
    with pytest.raises(ExplorerError, match="identity cannot be locked"):
        bare.image(replace(state, lock_identity=True))
    bare.methods = []
    with pytest.raises(ExplorerError, match=r"no encoder foundation: .*train all --world bare --install"):
        bare.image(State(world="bare", source="upload"))


def test_a_direction_that_the_generator_does_not_follow_gets_no_control(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path))
    world = TinyWorld()
    world.factor_std = world.factor_std * torch.tensor([1.0, 1000.0])
    caplog.set_level("INFO")
    assert "red" not in find_controls(world, samples=200, device="cpu")
    assert "No direction for red" in caplog.text


def test_an_unknown_world_or_factor_is_named():
    with pytest.raises(WorldError, match="nowhere"):
        Studio.open("nowhere")
    with pytest.raises(ValueError, match="beauty"):
        find_controls(TinyWorld(), factors=["beauty"], device="cpu")
