"""The command line: it reads what people type, calls the right thing, and tells what went wrong."""

import sys
import types

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from clcae_lib import cli, paths
from clcae_lib.commands.common import expand_lists
from tests.notebooks_in_small import record

GOOD = record("01_a", "seed + 1")


def call(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


def test_lists_take_several_values():
    assert expand_lists(["--only", "01", "02", "--force", "x"], ["--only"]) == [
        *("--only", "01", "--only", "02", "--force", "x")
    ]


def test_run_prints_where_the_report_is(suite, tmp_path):
    suite({"01_a": [GOOD], "02_b": [record("02_b", "7")], "03_c": [GOOD]})
    result = call("run", "--only", "01", "02", "--set", "seed=3")
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "results" / "quick" / "index.html") in result.output.replace("\n", "")
    assert "03_c" in (tmp_path / "results" / "quick" / "status.json").read_text()
    assert not (tmp_path / "results" / "quick" / "03_c").exists()


def test_a_failing_notebook_gives_status_1(suite):
    suite({"01_a": ["1 / 0"]})
    result = call("run")
    assert result.exit_code == 1
    assert "01_a" in result.output


@pytest.mark.parametrize("arguments", [["--set", "sed=1"], ["--profile", "none"], ["--only", "09"]])
def test_a_wrong_request_gives_status_2_and_one_line(suite, arguments):
    suite({"01_a": [GOOD]})
    result = call("run", *arguments)
    assert result.exit_code == 2
    assert "error:" in result.output
    assert "Traceback" not in result.output


@pytest.fixture
def trainers(monkeypatch):
    """Trainers that only note what they were asked to do; the notes."""
    notes = []

    class Config(BaseModel):
        world: str = "portraits"
        device: str = "cpu"
        settings: tuple[str, ...] = ()

    def load_config(cls, file, overrides):
        values = dict(override.split("=") for override in overrides)
        named = {name: values.pop(name) for name in ("world", "device") if name in values}
        return Config(**named, settings=tuple(f"{k}={v}" for k, v in values.items()))

    def train(config, folder, *, resume):
        notes.append((config.settings, folder, resume))

    def install(folder, world):
        notes.append(("install", folder, world))
        return [folder / "weights"]

    monkeypatch.setenv("CLCAE_DATA", str(paths.data_dir()))  # `train all` changes it; put back afterwards
    package = types.SimpleNamespace(load_config=load_config, install=install)
    monkeypatch.setitem(sys.modules, "clcae_lib.training", package)
    for module, name in cli.STAGES.values():
        fake = types.SimpleNamespace(train=train, **{name: Config})
        monkeypatch.setitem(sys.modules, f"clcae_lib.training.{module}", fake)
    return notes


def test_train_passes_settings_on(trainers, tmp_path):
    result = call("train", "alignment", "--set", "lr=1e-3", "--out", str(tmp_path / "run"), "--no-resume")
    assert result.exit_code == 0, result.output
    assert trainers == [(("lr=1e-3",), tmp_path / "run", False)]


def test_a_device_that_is_not_here_is_told_before_training(trainers, tmp_path):
    result = call("train", "alignment", "--set", "device=nosuch", "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "nosuch" in result.output
    assert not trainers


def test_train_installs_when_asked(trainers, tmp_path):
    call("train", "generator", "--out", str(tmp_path), "--install")
    assert trainers[1] == ("install", tmp_path, "portraits")


def test_train_all_goes_down_the_chain_and_leaves_the_data_alone(trainers, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", "elsewhere")
    measured, found = [], []
    monkeypatch.setattr(cli, "_measure_generator", lambda world, *, samples, device: measured.append(samples))
    monkeypatch.setattr(cli, "_install_directions", lambda world, *, device: found.append(world))
    result = call(
        "train", "all", "--out", str(tmp_path), "--set", "inversion.steps=3", "--set", "judges.steps=4"
    )
    assert result.exit_code == 0, result.output
    trained = [(folder.name, settings) for settings, folder, _ in trainers if settings != "install"]
    assert trained == [
        ("generator", ()),
        ("judges", ("steps=4",)),
        ("alignment", ()),
        ("inversion_foundation", ("preset=foundation", "steps=3")),
        ("inversion_published", ("preset=published", "steps=3")),
    ]
    assert sum(note[0] == "install" for note in trainers) == 5
    assert measured == [5000]
    assert found == ["portraits"]
    assert cli.os.environ["CLCAE_DATA"] == str(tmp_path.resolve() / "data")


def test_train_all_refuses_a_setting_without_a_link(trainers, tmp_path):
    result = call("train", "all", "--out", str(tmp_path), "--set", "steps=3")
    assert result.exit_code == 2
    assert "LINK.NAME" in result.output.replace("\n", "")
    assert not trainers


def test_train_all_refuses_devices_of_one_link(trainers, tmp_path):
    result = call("train", "all", "--out", str(tmp_path), "--set", "generator.devices=2")
    assert result.exit_code == 2
    assert "clcae train generator" in result.output.replace("\n", " ")
    assert not trainers


def test_a_link_trains_where_train_all_trains_it(trainers, tmp_path, monkeypatch):
    trainer, package = (sys.modules[f"clcae_lib.training{name}"] for name in (".inversion", ""))

    class Preset(trainer.InversionConfig):
        preset: str = "published"

    monkeypatch.setenv("CLCAE_ROOT", str(tmp_path))
    monkeypatch.setattr(trainer, "InversionConfig", Preset)
    monkeypatch.setattr(package, "load_config", lambda cls, file, overrides: cls())
    assert call("train", "inversion").exit_code == 0
    assert trainers[0][1] == tmp_path / "runs" / "portraits" / "inversion_published"


@pytest.mark.parametrize("command", [["train", "generator"], ["measure"]])
def test_an_unknown_world_is_told_in_one_line(trainers, command):
    result = call(*command, "--world", "nosuch")
    assert result.exit_code == 2
    assert "no world 'nosuch'; choose one of cars, ffhq, portraits" in result.output.replace("\n", " ")
    assert not trainers


def test_info_tells_versions_device_and_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    result = call("info")
    assert result.exit_code == 0, result.output
    for word in ("torch", "device", "portraits", "no weights"):
        assert word in result.output
