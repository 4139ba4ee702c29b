"""Any preset trains on a world of photographs, and a dry run shows it without leaving anything behind."""

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.training import inversion
from clcae_lib.training._inversion_config import InversionConfig
from clcae_lib.worlds import get_world
from tests.unit._tiny import WIDTHS, Distance, Embedding, Pictures, tiny_generator
from tests.unit.test_worlds_photos import album, make, places  # noqa: F401 - fixtures


@pytest.fixture
def world(album, monkeypatch):  # noqa: F811
    """A user's world of 32 pixels, with judges of the right interface."""
    made = make(album)
    monkeypatch.setattr(type(made), "identity", lambda self, role, device="cpu": Embedding())
    monkeypatch.setattr(type(made), "perceptual", lambda self, role, device="cpu": Distance())
    return made


def dry(stage, *settings):
    arguments = ["train", stage, "--world", "own", "--dry-run", "--set", "device=cpu"]
    return CliRunner().invoke(app, [*arguments, *(part for s in settings for part in ("--set", s))])


def files(*folders):
    return {path for folder in folders for path in Path(folder).rglob("*") if path.is_file()}


def test_a_dry_run_estimates_and_leaves_nothing(world, tmp_path, monkeypatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    world.images("train"), world.images("validation")
    before = files(tmp_path)
    done = dry("inversion", "alignment=off", "init_from_alignment=false", "batch_size=2", "steps=1000")
    assert done.exit_code == 0, done.output
    assert re.search(r"memory: \d", done.output)
    assert "hours for 1000 steps" in done.output
    assert files(tmp_path) == before


def test_a_dry_run_of_the_alignment(world):
    done = dry("alignment", "batch_size=4")
    assert done.exit_code == 0, done.output
    assert "hours" in done.output


@pytest.mark.usefixtures("album")
def test_what_is_missing_is_said_before_anything_runs(album):  # noqa: F811
    make(album)
    done = dry("inversion")
    assert done.exit_code == 2
    assert "clcae train alignment --world own" in done.output
    done = dry("inversion", "alignment=off", "init_from_alignment=false")
    assert done.exit_code == 2
    assert "clcae fetch" in done.output


def published(**options):
    generator = tiny_generator(64)
    pictures = Pictures(generator, 16, seed=1)
    values = {"preset": "published", "alignment": "off", "body": "irse_small", "widths": [*WIDTHS]}
    values |= {"units": (1, 1, 1, 1), "precision": "32-true", "device": "cpu", "batch_size": 4} | options
    return inversion.InversionTask(
        InversionConfig(**values), inversion.Parts(generator, pictures, pictures, Distance(), Embedding())
    )


def test_the_average_is_mirrored_by_its_own_coin_only_as_published():
    from clcae_lib.devices import make_fabric

    assert InversionConfig(preset="published").average_flip
    assert not InversionConfig().average_flip
    with pytest.raises(ValueError, match="average_flip"):
        InversionConfig(average_flip=True)
    task = published()
    task.setup(make_fabric("cpu"))
    seen = []
    task.encoder.register_forward_pre_hook(lambda module, _: seen.append(module.average.clone()))
    target = torch.zeros(64, 3, 64, 64)
    plain = task.encoder.average.clone()
    with torch.no_grad():
        task.encoder.eval()
        task._encode(target)
    kept = (seen[0] == plain).flatten(1).all(dim=1)
    mirrored = (seen[0] == plain.flip(3)).flatten(1).all(dim=1)
    assert (kept | mirrored).all()
    assert 10 < kept.sum() < 54
    assert torch.equal(task.encoder.average, plain)
    straight = published(average_flip=False)
    straight.setup(make_fabric("cpu"))
    straight.encoder.register_forward_pre_hook(lambda module, _: seen.append(module.average.clone()))
    with torch.no_grad():
        straight._encode(target)
    assert torch.equal(seen[1], straight.encoder.average)


def test_cars_are_compared_without_their_black_rows():
    framing = inversion._framing(get_world("cars"), InversionConfig(preset="published"))
    assert framing["height"] == 192
    assert framing["view"](torch.zeros(1, 3, 512, 512)).shape == (1, 3, 192, 256)
    assert inversion._framing(get_world("ffhq"), InversionConfig(preset="published"))["height"] is None
    assert inversion._framing(get_world("cars"), InversionConfig()) == {}
