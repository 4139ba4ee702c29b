"""Any preset trains on a world of photographs, and a dry run shows it without leaving anything behind."""

import os
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.models.stylegan2 import Generator
from clcae_lib.training import load_config
from clcae_lib.training.encoders import framing, world_parts
from clcae_lib.training.inversion import InversionConfig
from clcae_lib.weights import checkpoints, save_generator
from clcae_lib.worlds import get_world, perceptual
from tests.unit._tiny import Distance, Embedding, tiny_generator
from tests.unit.test_worlds_photos import album, make, places  # noqa: F401 - fixtures


@pytest.fixture
def world(album, monkeypatch):  # noqa: F811
    """A user's world of 32 pixels, with judges of the right interface."""
    made = make(album)
    monkeypatch.setattr(type(made), "identity", lambda self, role, device="cpu": Embedding())
    monkeypatch.setattr(type(made), "perceptual", lambda self, role, device="cpu": Distance())
    return made


def command(*arguments, settings=()):
    parts = [*arguments, *(part for setting in settings for part in ("--set", setting))]
    return CliRunner().invoke(app, [str(part) for part in parts])


def refused(*words, of):
    """A command ends with status 2 and says these words."""
    assert of.exit_code == 2, of.output
    for word in words:
        assert word in of.output


def dry(stage, *settings):
    return command("train", stage, "--world", "own", "--dry-run", settings=["device=cpu", *settings])


def files(*folders):
    return {path for folder in folders for path in Path(folder).rglob("*") if path.is_file()}


UNALIGNED = ("alignment=off", "init_from_alignment=false")


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("inversion", (*UNALIGNED, "batch_size=2", "steps=1000")),
        ("alignment", ("batch_size=4", "steps=1000")),
    ],
)
def test_a_dry_run_estimates_and_leaves_nothing(stage, settings, world, tmp_path, monkeypatch):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    world.images("train"), world.images("validation")
    before = files(tmp_path)
    done = dry(stage, *settings)
    assert done.exit_code == 0, done.output
    assert re.search(r"memory: \d", done.output)
    assert "hours for 1000 steps" in done.output
    assert files(tmp_path) == before


def test_what_is_missing_is_said_before_anything_runs(album):  # noqa: F811
    make(album)
    refused("clcae train alignment --world own", of=dry("inversion"))
    refused("clcae fetch", of=dry("inversion", *UNALIGNED))


CHAIN = ["alignment.steps=1", "alignment.batch_size=4", "alignment.validation_pairs=11"]
CHAIN += ["alignment.final_pairs=11", "alignment.neighbour_codes=2", "inversion.steps=1"]
CHAIN += ["inversion.batch_size=2", "inversion.bank=8", "alignment.device=cpu", "inversion.device=cpu"]


def train_all(out, *arguments):
    return command("train", "all", "--world", "own", "--out", out, *arguments, settings=CHAIN)


@pytest.mark.parametrize("install", [True, False])
def test_the_chain_of_ones_own_world_leaves_out_what_it_cannot_have(world, tmp_path, monkeypatch, install):
    data = tmp_path / "data"
    networks = [data / "networks" / name for name in ("ir_se50.pth", perceptual.ALEXNET_FILE)]
    for path in networks:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    before, environment = files(data), dict(os.environ)
    done = train_all(tmp_path / "runs", *(["--install"] if install else []))
    assert done.exit_code == 0, done.output
    plan, _, rest = done.stdout.partition("alignment:")
    links = ("generator", "judges", "body", "inversion_published", "feature_editor")
    for part in (*links, "directions", "measure"):
        assert re.search(rf"^{part} +left out: \w", plan, re.MULTILINE), part
    assert "trained: " not in plan
    assert rest.count("trained:") == 2
    assert dict(os.environ) == environment
    home = (data if install else tmp_path / "runs" / "data") / "own"
    made = {home / f"{name}{suffix}" for name in LINKS for suffix in (".safetensors", ".json")}
    assert files(data) == before | (made if install else set())
    assert made <= files(home)
    assert checkpoints.check_chain(home) == []
    card = checkpoints.read_card(home / "inversion_foundation.safetensors")
    parents = {"generator.safetensors", "alignment.safetensors", *(path.name for path in networks)}
    assert card["trained_on"].keys() == parents
    networks[0].write_text("another")
    problem = "inversion_foundation.safetensors was trained on another ir_se50.pth; train it again"
    assert checkpoints.check_chain(home) == [problem]
    refused("ir_se50.pth", of=train_all(tmp_path / "runs", *(["--install"] if install else [])))


LINKS = ("alignment", "inversion_foundation")


def test_a_chain_that_would_stop_on_its_way_does_not_begin(album, tmp_path):  # noqa: F811
    make(album)
    stopped = train_all(tmp_path / "runs", "--install")
    refused("clcae fetch alexnet", "--set inversion_foundation.weight_perceptual=0", of=stopped)
    assert "trained:" not in stopped.output
    left_out = train_all(tmp_path / "runs", "--install", "--set", "judges.steps=3")
    refused("judges is left out: it learns from factors", of=left_out)
    assert not (tmp_path / "runs").exists()


def test_commands_on_ones_own_world_work_or_say_what_to_do(album):  # noqa: F811
    folder = make(album).folder
    before = files(folder)
    for name, words in {"directions": "SeFa", "measure": "no oracle of factors"}.items():
        done = command(name, "--world", "own", "--device", "cpu")
        refused(words, of=done)
        assert done.output.count("\n") == 1
    assert files(folder) == before
    shown = command("info").output
    assert "problem" not in shown
    assert re.search(r"^  generator +\d", shown, re.MULTILINE)
    save_generator(folder / "generator.safetensors", tiny_generator(64), {})
    assert "problem: generator.safetensors is not the file its card describes" in command("info").output


def test_every_parent_of_an_encoder_for_photographs_is_recorded(album, tmp_path, monkeypatch):  # noqa: F811
    network = Generator(32)
    network.measure_w(64)
    state = {"g_ema": network.state_dict(), "latent_avg": network.w_avg}
    own = make(album, kind="other", already_aligned=True)
    torch.save(state, own.folder / "stylegan2.pt")
    text = (own.folder / "world.yaml").read_text().replace("generator.safetensors", "stylegan2.pt")
    (own.folder / "world.yaml").write_text(text)
    monkeypatch.setattr(type(own), "identity", lambda self, role, device="cpu": Embedding())
    monkeypatch.setattr(type(own), "perceptual", lambda self, role, device="cpu": Distance())
    for name in ("moco_v2_resnet50.pt", perceptual.ALEXNET_FILE):
        path = tmp_path / "data" / "networks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    config = load_config(InversionConfig, None, ["world=own", "alignment=off", "init_from_alignment=false"])
    parents = world_parts(config).trained_on
    assert set(parents) == {"stylegan2.pt", "moco_v2_resnet50.pt", perceptual.ALEXNET_FILE}
    weights = checkpoints.save_weights(own.weights("inversion_foundation"), {"t": torch.ones(1)}, metadata={})
    checkpoints.write_card(weights, {"trained_on": dict(parents)})
    assert "problem" not in command("info").output
    torch.save({**state, "latent_avg": network.w_avg + 1}, own.folder / "stylegan2.pt")
    assert "was trained on another stylegan2.pt; train it again" in command("info").output


@pytest.mark.parametrize("name", ["ffhq", "cars"])
def test_without_published_weights_fetching_them_comes_first(name, album, tmp_path):  # noqa: F811
    done = command("invert", "--world", name, "--input", album, "--output", tmp_path / "out")
    refused(f"`clcae fetch {name}`", of=done)
    assert "clcae train" not in done.output


def test_a_finished_link_whose_parents_have_changed_is_an_error(album, tmp_path):  # noqa: F811
    folder, out = make(album).folder, tmp_path / "run"
    settings = [setting[10:] for setting in CHAIN if setting.startswith("alignment.")]
    again = ("train", "alignment", "--world", "own", "--out", out)
    for _ in range(2):
        assert command(*again, settings=settings).exit_code == 0
    other = tiny_generator(32)
    other.w_avg.add_(1)
    save_generator(folder / "generator.safetensors", other, {})
    refused("generator.safetensors: ", of=command(*again, settings=settings))


def test_cars_are_compared_without_their_black_rows():
    cars = framing(get_world("cars"), InversionConfig(preset="published"))
    assert cars["height"] == 192
    assert cars["view"](torch.zeros(1, 3, 512, 512)).shape == (1, 3, 192, 256)
    assert framing(get_world("ffhq"), InversionConfig(preset="published"))["height"] is None
    assert framing(get_world("cars"), InversionConfig()) == {}
