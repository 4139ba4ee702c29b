"""The command line: it reads what people type, calls the right thing, and says what went wrong."""

import json
import os
from functools import partial

import pytest
import torch
import typer
from typer.testing import CliRunner

from clcae_lib import cli, errors
from clcae_lib.cli.common import expand_lists, report_user_errors
from clcae_lib.editing import named_directions
from clcae_lib.explorer.state import ExplorerError
from clcae_lib.photos import PhotoError
from clcae_lib.settings import ConfigError, parse_yaml
from clcae_lib.suite import SuiteError
from clcae_lib.training.adversarial import GeneratorConfig
from clcae_lib.training.config import load_config
from clcae_lib.weights import UnsafeFileError, checkpoints
from clcae_lib.weights.manifest import AssetError
from clcae_lib.worlds import WORLDS, World, WorldError
from clcae_lib.worlds.portraits import dataset
from tests.notebooks_in_small import record

GOOD = record("01_a", "seed + 1")


def call(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


def test_lists_have_several_values_and_leave_positional_arguments_as_they_are():
    for typed, read in {
        "--only 01 02 --force": "--only 01 --only 02 --force",
        "--seeds 0 1 methods": "--seeds 0 --seeds 1 methods",
        "methods --seeds 0 1 --variants a b": "methods --seeds 0 --seeds 1 --variants a --variants b",
        "--variants a b methods": "--variants a --variants b methods",
        "--variants a b methods --seeds 0 1": "--variants a --variants b methods --seeds 0 --seeds 1",
        "--variants a --profile quick methods": "--variants a --profile quick methods",
        "--variants a b -- methods": "--variants a --variants b -- methods",
        "--variants a b": "--variants a b",
        "--seeds x methods": "--seeds x methods",
    }.items():
        lists = {"--only": False, "--seeds": True, "--variants": False}
        positional = 0 if "--only" in typed else 1
        found = expand_lists(typed.split(), lists, valued={"--profile"}, positional=positional)
        assert found == read.split()


def test_a_sweep_is_named_after_its_lists(suite):
    folder = suite({"01_a": [GOOD]})
    (folder / "methods.yaml").write_text("notebook: 01_a\nvariants: {a: {}, b: {}}\n")
    for arguments, runs in (("--seeds 0 1 methods", 4), ("--variants a b methods --seeds 0", 2)):
        result = call("sweep", *arguments.split(), "--dry-run")
        assert result.exit_code == 0, result.output
        assert f"{runs} of {runs} to do" in result.output


def test_what_is_wrong_with_a_request_is_one_line_and_status_2(capsys):
    with pytest.raises(typer.Exit) as left, report_user_errors():
        raise errors.MissingFileError("x.pt is damaged; fetch it again")
    assert left.value.exit_code == 2
    assert capsys.readouterr().err == "error: x.pt is damaged; fetch it again\n"
    theirs = [AssetError, ConfigError, ExplorerError, UnsafeFileError, PhotoError, SuiteError, WorldError]
    assert all(issubclass(kind, errors.ClcaeError) for kind in (*theirs, checkpoints.WeightsError))


def test_a_fault_of_our_own_keeps_its_traceback():
    class ConfigError(Exception):
        pass

    for error in (FileNotFoundError("a file that the program forgot to write"), ConfigError("theirs")):
        with pytest.raises(type(error), match=str(error)), report_user_errors():
            raise error


def test_run_prints_where_the_report_is(suite, tmp_path):
    suite({"01_a": [GOOD], "02_b": [record("02_b", "7")], "03_c": [GOOD]})
    result = call("run", "--only", "01", "02", "--set", "seed=3")
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "results" / "quick" / "index.html") in result.output.replace("\n", "")
    assert "03_c" in (tmp_path / "results" / "quick" / "status.json").read_text()
    assert not (tmp_path / "results" / "quick" / "03_c").exists()
    for arguments in (["--set", "sed=1"], ["--profile", "none"], ["--only", "09"]):
        wrong = call("run", *arguments)
        assert wrong.exit_code == 2
        assert wrong.output.startswith("error:")
        assert wrong.output.count("\n") == 1


LINKS = ["generator", "judges", "body", "alignment", "inversion", "feature_editor", "peer"]


def shown(*arguments):
    """The configuration that a command of training would use."""
    result = call("train", *arguments, "--show-config")
    assert result.exit_code == 0, result.output
    return parse_yaml(result.output, source="--show-config")


@pytest.mark.parametrize("link", LINKS)
def test_every_link_shows_its_configuration_which_is_a_file_of_its_own(link, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_ROOT", str(tmp_path))
    text = call("train", link, "--set", "seed=5", "--set", "device=cpu", "--show-config").output
    assert not list(tmp_path.iterdir()), "nothing is trained"
    found = parse_yaml(text, source="--show-config")
    assert (found["seed"], found["world"]) == (5, "portraits")
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert shown(link, "--config", str(file)) == found


def test_where_a_value_comes_from_is_shown(tmp_path):
    (tmp_path / "mine.yaml").write_text("steps: 9\nalignment: off\n")
    text = call(
        *("train", "inversion", "--world", "ffhq", "--config", str(tmp_path / "mine.yaml")),
        *("--set", "seed=7", "--show-config"),
    ).output
    for line in ("body: irse50  # world ffhq", "ramp: run  # preset foundation", "seed: 7  # --set"):
        assert line in text
    assert f"steps: 9  # {tmp_path / 'mine.yaml'}" in text
    assert parse_yaml(text, source="text")["alignment"] == "off"


def test_the_order_is_defaults_world_preset_file_command_line(tmp_path, monkeypatch):
    class Toy(World):
        name = "toy"

        def training_defaults(self, stage):
            return {"warmup": 11, "clip": 5.0, "optimizer": "adam"} if stage == "inversion" else {}

    monkeypatch.setitem(WORLDS, "toy", Toy)
    file = tmp_path / "file.yaml"
    file.write_text("world: toy\npreset: published\nflip: 0.25\nmix: 0.75\n")
    found = shown("inversion", "--config", str(file), "--set", "mix=1")
    assert found["world"] == "toy"
    assert found["warmup"] == 11, "the world's default"
    assert (found["optimizer"], found["clip"]) == ("ranger", None), "the preset beats the world"
    assert found["flip"] == 0.25, "the file beats the preset"
    assert found["mix"] == 1, "the command line beats the file"
    assert found["bank"] == 4096
    assert shown("inversion", "--world", "portraits", "--config", str(file))["world"] == "portraits"


def test_the_configuration_that_a_run_wrote_trains_what_it_says(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset, "_BLOCK_AT_64", 32)  # render no more than this test asks for
    run = tmp_path / "run"
    settings = [
        "batch_size=8",
        "steps=1",
        "size=8",
        "validation_size=4",
        "kind=oracle",
        "copy=a",
        "device=cpu",
    ]
    done = call("train", "judges", "--out", str(run), *(p for s in settings for p in ("--set", s)))
    assert done.exit_code == 0, done.output
    written = run / "oracle_a" / "config.yaml"
    assert shown("judges", "--config", str(written)) == parse_yaml(written.read_text(), source="file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"seed: [1", "line 1"),
        (b"steps: 5\nsteps: 6\n", "line 1, column 1: is not valid YAML ('steps' is given twice)"),
        (b"\xff\xfe: 1", "not UTF-8"),
        (b"steps: " + b"9" * 5000, "line 1, column 8"),
        (b"a: " + b"[" * 5000, "nested too deeply"),
        (b"seed: !!timestamp 2001-99-99", "month must be in 1..12"),
        (b"seed: 2001-99-99", "seed: Input should be a valid integer"),
        (b"batch_size: 0", "batch_size"),
        (b"- 1", "name: value"),
        (b"1: 2", "1 is not a name"),
        (b"seed: !!python/object:os.system x", "line 1, column 7"),
    ],
    ids=range(11),
)
def test_a_wrong_file_is_one_line_with_its_name_and_place(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_bytes(text)
    result = call("train", "inversion", "--config", str(file), "--show-config")
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    assert "bad.yaml" in result.output
    assert words in result.output


def test_a_hostile_setting_is_one_line():
    for setting in ("a" + ".a" * 5000 + "=1", "steps=" + "9" * 5000, "steps=[" * 2000):
        result = call("train", "inversion", "--set", setting)
        assert result.exit_code == 2
        assert result.output.startswith("error:")
        assert result.output.count("\n") == 1


def test_a_device_that_is_not_here_is_an_error_before_training(tmp_path):
    by_index = ["--set", "device=cpu:0", "--set", "devices=2"]
    for options, words in (
        (["--set", "device=nosuch"], "'nosuch'"),
        (by_index, "device='cpu:0' names one device but devices=2; leave out the index\n"),
        ([*by_index, "--dry-run"], "device='cpu:0' names one device but devices=2; leave out the index\n"),
    ):
        result = call("train", "alignment", "--out", str(tmp_path / "run"), *options)
        assert result.exit_code == 2
        assert words in result.output
        assert not (tmp_path / "run").exists()


def test_train_all_shows_every_link_and_says_nothing_is_left_out():
    result = call("train", "all", "--set", "inversion.steps=3", "--set", "judges.steps=4", "--show-config")
    assert result.exit_code == 0, result.output
    links = {part.split("\n")[0].removeprefix("# "): part for part in result.output.split("---\n")}
    assert list(links) == [
        *("generator", "judges", "body", "alignment", "inversion_foundation", "inversion_published"),
        "feature_editor",
    ]
    steps = [parse_yaml(part, source=name)["steps"] for name, part in links.items()]
    assert steps == [load_config(GeneratorConfig).steps, 4, 600, 1500, 3, 3, 400]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("steps=3", "LINK.NAME"),
        ("generator.devices=2", "clcae train generator"),
        ("inversion.world=cars", "clcae train inversion"),
        ("alignment.body=irse_small", "starts from the alignment's backbone"),
        ("alignment.stepz=3", "did you mean 'steps'"),
    ],
)
def test_train_all_refuses_a_wrong_setting_before_anything_is_trained(setting, words, tmp_path):
    result = call("train", "all", "--out", str(tmp_path / "runs"), "--set", setting)
    assert result.exit_code == 2
    assert words in result.output
    assert not (tmp_path / "runs").exists()


TINY = {
    "generator": [
        "resolution=64",
        "stages=[{resolution: 64, images: 4}]",
        "size=8",
        "w_samples=64",
        "channels={4: 8, 8: 8, 16: 8, 32: 8, 64: 8}",
        "style_dim=16",
        "mapping_layers=1",
        "measure_every=null",
    ],
    "judges": ["size=8", "validation_size=4", "start=random", "steps=1"],
    "body": ["images=8", "validation_images=4", "steps=1"],
    "alignment": ["validation_pairs=11", "final_pairs=11", "neighbour_codes=2"],
    "inversion": ["images=8", "validation_images=8", "bank=8"],
    "feature_editor": ["samples=8", "validation_pairs=4", "steps=1"],
}


@pytest.mark.slow
def test_train_all_goes_down_the_chain_and_leaves_data_and_environment_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset, "_BLOCK_AT_64", 32)  # render no more than this test asks for
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "elsewhere"))
    few = {"SAMPLES": 40, "MEASURED_ON": 4, "FINDERS": ("interfacegan",), "FACTORS": ("yaw", "glasses")}
    for name, value in few.items():
        monkeypatch.setattr(f"clcae_lib.editing.named.{name}", value)
    found = partial(named_directions, samples=few["SAMPLES"])  # its default was bound to the larger number
    monkeypatch.setattr("clcae_lib.training.feature_editor.named_directions", found)
    settings = [f"{link}.{text}" for link, texts in TINY.items() for text in texts]
    settings += [f"{link}.{text}" for link in TINY for text in ("device=cpu", "batch_size=4")]
    settings += ["alignment.steps=1", "inversion.steps=1"]
    command = ["train", "all", "--out", str(tmp_path / "runs"), "--measured", "0"]
    command += [part for setting in settings for part in ("--set", setting)]
    result = call(*command)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "data" / "portraits"
    assert checkpoints.check_chain(folder) == []
    assert {path.stem for path in folder.glob("*.safetensors")} >= {
        *("generator", "oracle_a", "perceptual_b", "alignment", "inversion_foundation"),
        *("body", "inversion_published", "feature_editor", "directions"),
    }
    trained_on = checkpoints.read_card(folder / "inversion_published.safetensors")["trained_on"]
    assert set(trained_on) == {
        *("generator.safetensors", "alignment.safetensors"),
        *("perceptual_a.safetensors", "identity_a.safetensors"),
    }
    assert os.environ["CLCAE_DATA"] == str(tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    again = call(*command, "--set", "judges.lr=0.5")
    assert again.exit_code == 2
    assert "lr: 0.003 -> 0.5" in again.output


def test_a_long_name_is_one_line_and_nothing_is_written(suite, tmp_path, repository):
    long, folder = "a" * 5000, suite({"01_a": [GOOD]})
    (folder / "own.yaml").write_text("notebook: 01_a\nvariants: {a: {}}\n")
    weights = repository / "data" / "portraits" / "generator.safetensors"
    before = sorted(tmp_path.rglob("*"))
    for command in (
        *(f"run --profile {long}", f"run --set world={long}", f"sweep {long}", f"sweep own --profile {long}"),
        *(
            f"run --output {tmp_path / long}",
            f"sweep own --output {tmp_path / long}",
            f"keep --profile {long}",
        ),
        *(f"report --results {tmp_path / long}", f"check --results {tmp_path / long}", f"inspect {long}"),
        f"train all --out {tmp_path / long}",
        *(f"world add ffhq --images {long}", f"convert {weights} {tmp_path / long}.safetensors"),
        *("run --profile ../victim", "run --set world=../victim", "sweep ../own"),
    ):
        result = call(*command.split())
        assert result.exit_code == 2, (command[:40], result.exception)
        assert [line[:6] for line in result.output.splitlines()] in (["error:"], ["device", "error:"]), (
            command
        )
    left = [path for path in tmp_path.rglob("*") if path not in before]
    assert {path.name for path in left} <= {"results", "quick", "run.log", ".quick.lock"}


def test_a_list_of_weights_goes_on_after_what_is_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    folder = tmp_path / "portraits"
    folder.mkdir()
    path = checkpoints.save_weights(folder / "good.safetensors", {"t": torch.zeros(2)}, metadata={})
    checkpoints.write_card(path, {"kind": "\ud800", "device": "one\ntwo", "trained_on": {"\ud800": "0"}})
    (folder / "dangling.safetensors").symlink_to("nowhere")
    (folder / "loop.safetensors").symlink_to("loop.safetensors")
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    os.mkfifo(folder / "good.pt")
    (checkpoints.save_weights(folder / "bare.safetensors", {}, metadata={}).with_suffix(".json")).mkdir()
    result = call("info")
    assert result.exit_code == 0, result.exception
    (line,) = [line for line in result.output.splitlines() if line.startswith("  good")]
    assert "one two , \\ud800" in line
    problems = [line for line in result.output.splitlines() if "problem:" in line]
    assert len(problems) == 6
    for name in ("dangling", "loop", "folder", "pipe", "bare", "good"):
        assert any(name in problem for problem in problems), name


def test_info_names_versions_device_weights_and_a_card_that_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    result = call("info")
    assert result.exit_code == 0, result.output
    for word in ("torch", "device", "portraits", "no weights"):
        assert word in result.output
    (tmp_path / "portraits").mkdir()
    path = tmp_path / "portraits" / "generator.safetensors"
    checkpoints.save_weights(path, {"t": torch.zeros(2)}, metadata={})
    for text in ("{", "[1]", json.dumps({"trained_on": 3})):
        path.with_suffix(".json").write_text(text)
        result = call("info")
        assert result.exit_code == 0, result.output
        assert "problem:" in result.output
        assert "generator.json" in result.output


def test_an_unknown_world_is_reported_in_one_line():
    for command in ("train generator", "measure", "directions", "explore"):
        result = call(*command.split(), "--world", "nosuch")
        assert result.exit_code == 2
        assert "no world 'nosuch'; choose one of cars, ffhq, portraits" in result.output.replace("\n", " ")
