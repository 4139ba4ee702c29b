"""The suite's parts by themselves: parameters, plans, keys, the recorder and the report's table."""

import asyncio
import json
import math
import time
from queue import Empty

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib.figure import Figure

from clcae_lib.evaluation import FIDELITY
from clcae_lib.settings import parse_yaml
from clcae_lib.suite import NotebookError, Recorder, SuiteError, digest
from clcae_lib.suite.collect import table
from clcae_lib.suite.execute import looking_again
from clcae_lib.suite.plan import declared_parameters, plan, read_suite
from clcae_lib.suite.record import read_figures, read_metrics
from clcae_lib.suite.report import compare, number
from clcae_lib.suite.sweep import read_sweep
from tests.notebooks_in_small import PARAMETERS, record, write_notebook

GOOD = record("01_a", "1")
TYPED = PARAMETERS + "folder = ''\nedit = 'smile'\nlr = 0.1\nsettings = {}\nflag = True\n"


def planned(suite, *settings):
    """The parameters of a notebook under settings of the command line."""
    folder = suite({"01_a": [GOOD]})
    write_notebook(folder / "01_a.ipynb", parameters=TYPED)
    return plan(folder, "quick", settings=settings)[1][0].parameters


def test_settings_are_read_as_the_parameter_takes_them(suite):
    for setting, value in {
        "lr=1e-4": 1e-4,
        "lr=2.5E3": 2500.0,
        "lr=3": 3,
        "flag=true": True,
        "settings={alignment: off, bank: 1e3}": {"alignment": "off", "bank": 1000.0},
        "edit=off": "off",
        "edit=null": "null",
        "edit=0": "0",
        "edit='0'": "0",
        "edit=true": "true",
        "edit=a=b": "a=b",
        "edit=a: b # c": "a: b # c",
        'edit="a # b"': "a # b",
        "edit=": "",
        "folder=": "",
        "01.edit=1e-4": "1e-4",
    }.items():
        found = planned(suite, setting)[setting.partition("=")[0].removeprefix("01.")]
        assert (found, type(found)) == (value, type(value)), setting


def test_a_folder_counts_from_where_the_command_is_given(suite, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for text, path in {
        "my photos #1": here / "my photos #1",
        "2024": here / "2024",
        "../album": here / ".." / "album",
        "~/photos": tmp_path / "home" / "photos",
        str(tmp_path): tmp_path,
    }.items():
        assert planned(suite, f"folder={text}")["folder"] == str(path)


@pytest.mark.parametrize(
    "text", ["name", "=1", "settings=[1", f"lr={'9' * 5000}", "lr=", "flag=on"], ids=range(6)
)
def test_a_malformed_setting_is_an_error(suite, text):
    with pytest.raises(SuiteError, match=r"--set|takes (float|bool)"):
        planned(suite, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"common: [1]", "common"),
        (b"common: {1: 2}", "common"),
        (b"notebooks: [01_a]", "notebooks"),
        (b"notebooks: {01_a: [1]}", "01_a"),
        (b"timeout: long", "timeout"),
        (b"timeout: -1", "timeout"),
        (b"about: \xff", "UTF-8"),
        (b"about: [", "line 1"),
        (b"timeout: 1\ntimeout: 2", "given twice"),
        (b"comon: {}", "'comon'; it may have .*about, common"),
        (b"notebooks: {09_z: {}}", "'09_z'"),
        (b"common: {sed: 1}", "'sed'.*did you mean 'seed'"),
        (b"notebooks: {01_a: {seed: one}}", "01_a: parameter 'seed' takes int"),
        (b"notebooks: {01_a: {seed: true}}", "'seed' takes int"),
        (b"notebooks: {01_a: {output_dir: x}}", "output_dir"),
    ],
)
def test_a_wrong_profile_is_one_line_that_names_it(suite, text, words):
    folder = suite({"01_a": [GOOD]})
    (folder / "profiles" / "quick.yaml").write_bytes(text)
    with pytest.raises(SuiteError, match=rf"quick\.yaml.*{words}") as error:
        plan(folder, "quick")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("variants: [1]", "variants"),
        ("variants: {1: {}}", "variants"),
        ("variants: {a: [1]}", r"variants\.a: Input should be a valid dict"),
        ("variants: {../victim: {}}", r"'\.\./victim' cannot be the name of a folder"),
        ("variants: {/tmp/x: {}}", "'/tmp/x' cannot be"),
        ("variants: {failed: {}}", "'failed' cannot be"),
        ("variants: {'': {}}", "'' cannot be"),
        (f"variants: {{{'a' * 101}: {{}}}}", "cannot be .* at most 100 letters"),
        ("variants: {a: {}}\nseeds: [1]", "seeds"),
        ("variants: {a: {}}\nseeds: {a: 100000000}", r"seeds\.a: Input should be less"),
        ("variants: {a: {}, b: {}}\nseeds: {a: 9999}", "10002 runs; a sweep has at most 10000"),
        ("variants: {a: {}}\nseeds: {b: 2}", "'b' is not a variant"),
        ("variants: {a: {}}\ninputs: 3", "inputs"),
        ("variants: {a: {sed: 3}}", "a: 01_a: has no parameter 'sed'"),
    ],
)
def test_a_wrong_sweep_is_an_error_that_names_it(suite, text, words):
    folder = suite({"01_a": [GOOD]})
    (folder / "own.yaml").write_text(f"notebook: 01_a\n{text}\n")
    with pytest.raises(SuiteError, match=rf"own\.yaml.*{words}"):
        read_sweep(folder, "own")
    (folder / "own.yaml").write_text("notebook: 09_z\nvariants: {a: {}}\n")
    with pytest.raises(SuiteError, match=r"09_z\.ipynb"):
        read_sweep(folder, "own")


def test_the_time_to_read_a_file_grows_with_its_names():
    def seconds(count):
        text = "".join(f"name{number}: 1\n" for number in range(count))
        begun = time.process_time()
        assert len(parse_yaml(text, source="a text")) == count
        return time.process_time() - begun

    assert seconds(32_000) < 16 * seconds(4_000), "four times as much would be their square"


def test_declared_parameters_are_parsed_not_run(tmp_path):
    more = "steps: int = 5\nsizes = [1, -2]\nlr = 1e-3\n"
    write_notebook(tmp_path / "n.ipynb", parameters=PARAMETERS + more)
    declared = declared_parameters(tmp_path / "n.ipynb")
    assert [declared[name] for name in ("steps", "sizes", "lr")] == [5, [1, -2], 1e-3]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (PARAMETERS + "x = 2 * 3", r"x = 2 \* 3"),
        (PARAMETERS + "import os", "import os"),
        (PARAMETERS + "a, b = 1, 2", "a, b"),
        (PARAMETERS + "x: int", "x: int"),
        (PARAMETERS + "x = (", "does not parse"),
        ("world = 'tiny'", "must declare seed, device, output_dir"),
    ],
)
def test_a_notebook_has_one_parameters_cell_of_plain_literals(tmp_path, parameters, message):
    write_notebook(tmp_path / "n.ipynb", parameters=parameters)
    with pytest.raises(SuiteError, match=rf"n\.ipynb.*{message}"):
        declared_parameters(tmp_path / "n.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "n.ipynb")
    with pytest.raises(SuiteError, match="has 0"):
        declared_parameters(tmp_path / "n.ipynb")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"cells": 3}', b'{"nbformat": 99, "cells": []}', b"[" * 100_000, b"\xff"]
)
def test_what_is_not_a_notebook_is_named_in_one_line(tmp_path, content):
    (tmp_path / "n.ipynb").write_bytes(content)
    with pytest.raises(SuiteError, match=r"n\.ipynb: is not a notebook") as error:
        declared_parameters(tmp_path / "n.ipynb")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "notebooks: .*at least 1 item"),
        ([{"name": "01_a"}, {"name": "01_a"}], "twice"),
        ([{"name": "01_a"}, {"name": "02_b"}], r"no 02_b\.ipynb"),
        ([{"name": "02_b"}], r"does not list 01_a\.ipynb"),
        ([{"name": "01_a", "needs": ["02_b"]}], "needs 02_b"),
        ([{"name": "01_a", "wants": []}], "wants"),
    ],
)
def test_a_wrong_list_is_an_error(suite, entries, message):
    folder = suite({"01_a": [GOOD]})
    (folder / "suite.yaml").write_text(yaml.safe_dump({"notebooks": entries}))
    with pytest.raises(SuiteError, match=message):
        read_suite(folder)


def test_settings_win_over_the_profile_and_the_profile_over_the_notebook(suite):
    profile = {"common": {"seed": 1, "steps": 5}, "notebooks": {"02_b": {"seed": 2}}}
    folder = suite({"01_a": [GOOD], "02_b": [GOOD]}, profile=profile)
    write_notebook(folder / "02_b.ipynb", parameters=PARAMETERS + "steps = 100\n")
    for settings, seeds, steps in (([], [1, 2], 5), (["seed=3", "02.seed=4", "steps=6"], [3, 4], 6)):
        _, (first, second) = plan(folder, "quick", settings=settings)
        assert [job.parameters["seed"] for job in (first, second)] == seeds
        assert second.parameters["steps"] == steps
        assert not {"steps", "output_dir"} & first.parameters.keys()


def test_only_takes_beginnings_of_names_and_keeps_the_order(suite):
    folder = suite({"01_a": [GOOD], "02_b": [GOOD], "02_c": [GOOD]})
    assert [job.name for job in plan(folder, "quick", only=["02_c", "01"])[1]] == ["01_a", "02_c"]
    with pytest.raises(SuiteError, match="02_b, 02_c"):
        plan(folder, "quick", only=["02"])


def test_the_code_digest_sees_code_and_not_its_comments(tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "LIBRARY", tmp_path)
    (tmp_path / "suite").mkdir()
    for name in ("a.py", "suite/b.py"):
        (tmp_path / name).write_text("x = 1\n")
    first = digest.code_digest(without=["suite"])
    (tmp_path / "suite" / "b.py").write_text("x = 2\n")
    (tmp_path / "a.py").write_text('"""Now with a docstring."""\nx = 1  # and a comment\n')
    assert digest.code_digest(without=["suite"]) == first
    assert digest.code_digest() != first
    (tmp_path / "a.py").write_text("x = 3\n")
    assert digest.code_digest(without=["suite"]) != first


def test_the_key_sees_the_inputs_that_are_named_photographs_networks_and_the_device(suite, tmp_path):
    folder = suite({"01_a": [GOOD]})
    write_notebook(folder / "01_a.ipynb", parameters=PARAMETERS + 'folder = "album"\n')
    entry = {"name": "01_a", "folders": ["folder"], "inputs": ["generator.*"]}
    (folder / "suite.yaml").write_text(yaml.safe_dump({"notebooks": [entry]}))
    (tmp_path / "data" / "family" / "images").mkdir(parents=True)
    (tmp_path / "data" / "family" / "world.yaml").write_text("{kind: other, resolution: 64}")
    jobs = {world: plan(folder, "quick", settings=[f"world={world}"])[1][0] for world in ("tiny", "family")}

    def key(world="family", device="cpu"):
        return digest.job_key(jobs[world], code="", device=device)

    keys = [key(), key(device="cuda"), key("tiny")]
    places = ["album/a.jpg", "album/a.landmarks.json", "album/more/b.jpg", "data/family/images/c.jpg"]
    for place in [*places, "data/family/names.txt", "data/networks/alexnet.pth"]:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"1")
        keys.append(key())
    for place in places:
        (tmp_path / place).write_bytes(b"22")
        keys.append(key())
    assert len(set(keys)) == len(keys), "each of them is another run"
    (tmp_path / "album" / "dangling.jpg").symlink_to("nowhere")
    assert key() == keys[-1]
    drawn = key("tiny")
    (tmp_path / "data" / "tiny").mkdir()
    (tmp_path / "data" / "tiny" / "other.safetensors").write_bytes(b"1")
    assert key("tiny") == drawn
    (tmp_path / "data" / "tiny" / "generator.safetensors").write_bytes(b"1")
    assert key("tiny") != drawn


def test_the_folders_that_notebooks_depend_on_are_their_parameters(repository):
    folders = {entry.name: set(entry.folders) for entry in read_suite(repository / "notebooks")}
    assert folders["08_your_own_photographs"] == {"folder"}
    for name, found in folders.items():
        assert found <= declared_parameters(repository / "notebooks" / f"{name}.ipynb").keys()


def test_the_recorder_writes_what_the_collector_reads(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_ROOT", str(tmp_path))
    Recorder("01_a", "results/x").metric("stale", 1, source="live")
    recorder = Recorder("01_a", "results/x")
    recorder.metric(
        "PSNR", np.float32(20), subject="W+", low=19, high=torch.tensor(21.0), unit="dB", source="live"
    )
    recorder.metric("PSNR", 25, subject="W+", source="reference", headline=True, better="higher")
    recorder.figure(Figure(figsize=(1, 1)), "black", caption="Black.", headline=True)
    recorder.table(pd.DataFrame({"a": [1]}), "numbers")
    rows = read_metrics(tmp_path / "results" / "x")
    assert [(row.value, row.source) for row in rows] == [(20.0, "live"), (25.0, "reference")]
    assert rows[0].high == 21.0
    files = [figure.file for figure in read_figures(recorder.folder)]
    assert files == ["black.png", "numbers.csv"]
    assert table([row.model_dump() for row in rows])["value"].sum() == 45


def test_the_recorder_reads_tidy_and_wide_tables(tmp_path):
    recorder = Recorder("01_a", tmp_path)
    tidy = pd.DataFrame({"metric": ["psnr", "other"], "value": [20.0, 1.0], "low": [19.0, 0.0]})
    recorder.metrics(tidy.assign(high=math.nan), FIDELITY, source="live", subject=["W", "F"], headline=True)
    wide = pd.DataFrame({"psnr": [21.0, 22.0], "psnr_low": 20.0, "psnr_high": 23.0}, index=["a", "b"])
    recorder.metrics(wide, FIDELITY, subject=wide.index, suffix=" here", source="reference")
    found = [row.model_dump() for row in read_metrics(tmp_path)]
    assert [(row["metric"], row["subject"], row["value"], row["low"], row["high"]) for row in found] == [
        ("PSNR", "W", 20.0, 19.0, None),
        ("PSNR here", "a", 21.0, 20.0, 23.0),
        ("PSNR here", "b", 22.0, 20.0, 23.0),
    ]
    assert all((row["unit"], row["better"]) == ("dB", "higher") for row in found)
    assert [row["headline"] for row in found] == [True, False, False]
    with pytest.raises(ValueError, match="PSNR"):
        recorder.metrics(wide.assign(psnr=math.nan), FIDELITY, source="live")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"value": math.nan}, "PSNR"),
        ({"value": 1, "high": math.inf}, "PSNR"),
        ({"value": 1, "source": "guess"}, "guess"),
        ({"value": 1, "better": "more"}, "more"),
    ],
)
def test_the_recorder_refuses_what_is_not_a_result(tmp_path, arguments, message):
    recorder = Recorder("01_a", tmp_path)
    with pytest.raises(ValueError, match=message):
        recorder.metric("PSNR", **{"source": "live", **arguments})
    recorder.metric("PSNR", 1, source="live")
    with pytest.raises(ValueError, match="already"):
        recorder.metric("PSNR", 2, source="live")


def test_a_cell_that_is_run_again_replaces_its_numbers_and_one_run_records_each_once(tmp_path, monkeypatch):
    class Shell:
        execution_count = 1

    monkeypatch.setattr("IPython.get_ipython", Shell)
    recorder = Recorder("01_a", tmp_path)
    for value in (1.0, 2.0):
        recorder.metric("PSNR", value, subject="W", source="live")
        recorder.metric("PSNR", value, subject="W", source="reference")
        with pytest.raises(ValueError, match="already"):
            recorder.metric("PSNR", 3.0, subject="W", source="live")
        Shell.execution_count += 1
    assert [(r.value, r.source) for r in read_metrics(tmp_path)] == [(2.0, "live"), (2.0, "reference")]


ROW = '[{"notebook": "n", "metric": "a", "source": "live", "value": 1'


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "[1]", '[{"metric": "a"}]', f"{ROW}{'0' * 400}}}]"]
    + [f"{ROW}, {more}}}]" for more in ('"value": NaN', '"low": "0"', '"subject": ["W"]')],
)
def test_wrong_rows_fail_the_notebook(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(NotebookError, match=r"metrics\.json") as error:
        read_metrics(tmp_path)
    assert "\n" not in str(error.value)


def test_live_and_reference_stand_side_by_side():
    shared = {"notebook": "n", "metric": "PSNR", "subject": "F"}
    rows = [
        {**shared, "value": 20.0, "source": "live"},
        {**shared, "value": 25.0, "low": 24.0, "high": 26.0, "source": "reference"},
        {**shared, "subject": "W", "value": 15.0, "source": "live"},
    ]
    first, second = compare(table(json.loads(json.dumps(rows))))
    assert first["live"] == {"value": "20", "interval": "", "sort": 20.0}
    assert first["reference"] == {"value": "25", "interval": "24 to 26", "sort": 25.0}
    assert second["reference"] is None


def test_numbers_are_short():
    texts = {0.98765: "0.988", 3.14159: "3.14", 123.456: "123.5", 12345.6: "12,346", 7.0: "7", -0.5: "-0.5"}
    assert {value: number(value) for value in texts} == texts


def test_a_reply_that_nothing_was_woken_for_is_found():
    """The first look misses what is there, as a socket does whose event was swallowed."""
    looks = []

    async def deaf(timeout):
        looks.append(timeout)
        if len(looks) == 1:
            raise Empty
        return "reply"

    assert asyncio.run(looking_again(deaf)()) == "reply"
    assert looks[0] <= 1

    async def silent(timeout):
        await asyncio.sleep(timeout)
        raise Empty

    with pytest.raises(Empty):
        asyncio.run(looking_again(silent)(timeout=0.05))
