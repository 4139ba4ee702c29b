"""Photographs as they come, and the commands as people give them: used, or named with the remedy."""

import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.inversion import ClcaeInverter
from clcae_lib.models import FoundationEncoder
from clcae_lib.photos import Landmarks, save_landmarks
from clcae_lib.weights import load_generator
from clcae_lib.weights.checkpoints import save_weights
from clcae_lib.worlds import get_world
from tests.unit._tiny import WIDTHS
from tests.unit.test_worlds_photos import album, make, places  # noqa: F401 - fixtures


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def family(album):  # noqa: F811
    """A world of one's own with an untrained encoder; no detector of faces is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("clcae_lib.photos.detection.has_detector", lambda: False)
        world = make(album, "family")
        torch.manual_seed(3)
        net = FoundationEncoder(32, style_dim=8, feature_channels=6, widths=WIDTHS)
        metadata = {"kind": "inversion", "preset": "foundation", "config": net.config}
        save_weights(world.weights("inversion_foundation"), net.state_dict(), metadata=metadata)
        yield world


def test_43_a_replaced_photograph_is_inverted_anew(family, album, tmp_path):  # noqa: F811
    command = ["invert", "--world", "family", "--preset", "foundation", "--device", "cpu", "--input", album]
    call(*command, "--output", tmp_path / "out")
    before = pd.read_csv(tmp_path / "out" / "measures.csv").set_index("file")["psnr"]
    Image.new("RGB", (96, 96), "teal").save(album / "p02.jpg")
    call(*command, "--output", tmp_path / "out")
    after = pd.read_csv(tmp_path / "out" / "measures.csv").set_index("file")["psnr"]
    assert list(before.index[before.round(6) != after.round(6)].dropna().intersection(["p02.jpg"])) == [
        "p02.jpg"
    ]
    assert before.drop("p02.jpg").equals(after.drop("p02.jpg"))


@torch.no_grad()
def test_two_faces_each_from_adding_to_exploring(tmp_path, places, album, monkeypatch):  # noqa: F811
    """A person's first minutes: three photographs of two faces, an untrained encoder, both faces inverted."""
    folder = tmp_path / "party"
    folder.mkdir()
    for number in range(3):
        both = Image.new("RGB", (192, 96))
        for face in (0, 1):
            both.paste(Image.open(album / f"p{2 * number + face:02}.jpg"), (96 * face, 0))
        marked = [
            Landmarks(points + torch.tensor([96.0 * face, 0]))
            for face, points in enumerate(_points(album, 2 * number + face) for face in (0, 1))
        ]
        both.save(folder / f"{number}.png")
        save_landmarks(folder / f"{number}.png", marked, size=both.size)
    generator = tmp_path / "g.safetensors"
    done = call("world", "add", "party", "--images", folder, "--generator", generator)
    assert done.exit_code == 0, done.output
    assert call("world", "check", "party").exit_code == 0
    world = get_world("party")
    torch.manual_seed(3)
    net = FoundationEncoder(32, style_dim=8, feature_channels=6, widths=WIDTHS)
    metadata = {"kind": "inversion", "preset": "foundation", "config": net.config}
    save_weights(world.weights("inversion_foundation"), net.state_dict(), metadata=metadata)
    images = {}
    for face in ("1", "2"):
        command = ["invert", "--world", "party", "--preset", "foundation", "--device", "cpu"]
        done = call(*command, "--input", folder, "--output", tmp_path / face, "--face", face)
        assert "3 inverted, 0 not" in done.output, done.output
        images[face] = Image.open(tmp_path / face / "0.png.f.png").tobytes()
    assert images["1"] != images["2"]
    inverter = ClcaeInverter.load(world, "foundation", "cpu", generator=load_generator(generator))
    assert inverter.invert(world.images("train").images([0])).feature is not None


def _points(folder, number):
    from clcae_lib.photos import load_landmarks

    return load_landmarks(folder / f"p{number:02}.jpg")[0].points
