"""The portable page, the kept reference and the check against it."""

import base64
import io
import json
import re

import nbformat
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.suite import NotebookError, SuiteError
from clcae_lib.suite.collect import SWEEP_COLUMNS
from clcae_lib.suite.reference import check_runs, keep_report
from clcae_lib.suite.report import portable_report
from clcae_lib.suite.runner import run_suite
from tests.notebooks_in_small import record

ROW = {"metric": "PSNR", "subject": "final", "low": 20.0, "high": 22.0, "headline": True, "source": "live"}
STEPS = {"metric": "training steps", "subject": "", "headline": False, "low": None, "high": None}
TABLE = """
import pandas as pd
from clcae_lib.suite import Recorder
recorder = Recorder("01_a", output_dir)
recorder.metric("PSNR", 21, source="live", low=20, high=22, headline=True)
recorder.table(pd.DataFrame({"method": ["a", "b"], "dB": [20.123, 9.5]}), "methods", caption="All of them.")
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(2, 1))
recorder.figure(figure, "plain_one")
recorder.figure(figure, "first_one", headline=True, caption="It rises.");
"""
WIDGET = "import ipywidgets; ipywidgets.IntSlider()"
SHOWN = "from IPython.display import Image; Image(str(recorder.folder / 'first_one.png'))"


def runs(folder, *rows):
    """A sweep's folder with these rows."""
    blank = dict.fromkeys(SWEEP_COLUMNS, "") | ROW | {"variant": "foundation", "seed": 0}
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([blank | row for row in rows])
    frame[list(SWEEP_COLUMNS)].to_csv(folder / "runs.csv", index=False)
    return folder


@pytest.fixture
def kept(tmp_path):
    other = {"value": 19.0, "low": 18.0, "high": 20.0, "variant": "other"}
    runs(tmp_path / "reference" / "sweeps" / "ablations", {"value": 21.0}, other, STEPS | {"value": 160})
    return tmp_path / "reference"


def test_a_measure_in_its_interval_passes_and_one_outside_is_named(kept, tmp_path):
    assert check_runs(runs(tmp_path / "good", {"value": 22.0}, STEPS | {"value": 160}), kept).ok
    low = check_runs(runs(tmp_path / "low", {"value": 19.9}), kept)
    assert low.deviations == ["foundation 0 PSNR final: 19.9 is below [20, 22]"]
    high = check_runs(runs(tmp_path / "high", {"value": 22.5}), kept)
    assert "above" in high.deviations[0]
    unmarked = {"value": 99.0, "headline": False, "subject": "W"}
    found = check_runs(runs(tmp_path / "other", {"value": 22.0}, unmarked), kept)
    assert (found.compared, found.ok) == (1, True)


def test_what_was_asked_for_and_is_missing_fails(kept, tmp_path):
    good = runs(tmp_path / "good", {"value": 21.0})
    assert check_runs(good, kept).compared == 1
    found = check_runs(good, kept, seeds=[0])
    assert found.deviations == ["other 0 PSNR final: not measured, kept [18, 20]"]
    assert check_runs(good, kept, seeds=[0], variants=["foundation"]).ok


def test_a_check_that_compares_nothing_is_an_error(kept, tmp_path):
    with pytest.raises(SuiteError, match="in common"):
        check_runs(runs(tmp_path / "far", {"value": 21.0, "seed": 7}), kept)
    with pytest.raises(SuiteError, match="160"):
        check_runs(runs(tmp_path / "short", {"value": 21.0}, STEPS | {"value": 30}), kept)
    with pytest.raises(SuiteError, match=r"neither runs\.csv nor metrics\.csv"):
        check_runs(tmp_path / "nothing", kept)


def test_the_command_fails_with_a_status_and_names_the_measure(kept, tmp_path):
    def call(folder):
        done = CliRunner().invoke(app, ["check", "--against", str(kept), "--results", str(folder)])
        return done.exit_code, done.output

    status, text = call(runs(tmp_path / "bad", {"value": 3.0}))
    assert status == 1
    assert "foundation 0 PSNR final: 3 is below [20, 22]" in text
    status, text = call(runs(tmp_path / "good", {"value": 21.0}))
    assert status == 0
    assert "1 of 1 headline" in text
    assert call(tmp_path / "nothing")[0] == 2


def test_the_committed_reference_can_be_checked(repository):
    reference = repository / "results" / "reference"
    assert check_runs(reference, reference).compared > 0
    for runs in reference.glob("sweeps/ablations/runs.csv"):
        assert check_runs(runs.parent, reference).compared >= 24, runs


def test_a_run_is_kept_with_small_notebooks_and_sent_as_one_page(suite, tmp_path):
    suite({"01_a": [TABLE, WIDGET, SHOWN]})
    source = run_suite("quick").folder
    target = source.parent / "reference"
    (target / "01_a").mkdir(parents=True)
    (target / "01_a" / "old.png").write_bytes(b"stale")
    page = keep_report(source).read_text()
    files = ["figures.json", "first_one.png", "methods.csv", "metrics.json", "plain_one.png", "run.json"]
    assert sorted(file.name for file in (target / "01_a").iterdir()) == files
    assert "It rises." in page
    executed = nbformat.read(target / "notebooks" / "01_a.ipynb", as_version=4)
    assert "widgets" not in executed.metadata
    (widget,) = executed.cells[-2].outputs
    assert widget.data == {"text/plain": "A widget: run the notebook to use it."}
    hidden = [cell.source for cell in executed.cells if "hide-cell" in cell.metadata.get("tags", [])]
    assert [source.splitlines()[0] for source in hidden] == ["# Parameters"]
    assert str(tmp_path) not in (target / "notebooks" / "01_a.ipynb").read_text()
    (shown,) = [output for output in executed.cells[-1].outputs if "data" in output]
    with Image.open(io.BytesIO(base64.b64decode(shown["data"]["image/png"]))) as image:
        assert image.mode == "P"
    assert ".ipynb" not in page
    assert "run.log" not in page
    for folder in (source, target):
        sent = portable_report(folder, target=tmp_path / "sent")
        text = sent.read_text()
        assert sorted(file.name for file in sent.parent.iterdir()) == ["index.html", "tables.csv"]
        assert set(re.findall(r'href="([^"#][^"]*)"', text)) <= {"data:,", "tables.csv"}
        images = re.findall(r'src="([^"]*)"', text)
        assert len(images) == 2
        for data in images:
            assert base64.b64decode(data.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
        assert 'data-sort="20.123">20.12<' in text
        cells = pd.read_csv(sent.parent / "tables.csv").set_index(["table", "row", "column"])["value"]
        assert cells[("methods", 1, "dB")] == "9.5"
        assert cells[("metrics", 0, "metric")] == "PSNR"


def test_only_a_complete_run_is_kept_or_sent(suite, tmp_path):
    suite({"01_a": [record("01_a", "1"), "raise ValueError('no')"]})
    with pytest.raises(SuiteError, match="not complete: 01_a"):
        keep_report(run_suite("quick").folder)
    for command in (keep_report, portable_report):
        with pytest.raises(SuiteError, match=r"holds no run .*clcae run"):
            command(tmp_path / "nothing")


@pytest.mark.parametrize("outside", ["../../secret.csv", "absolute", "link.csv", "notebook"])
def test_a_report_of_a_foreign_run_reads_nothing_outside_its_folder(suite, tmp_path, outside):
    suite({"01_a": [record("01_a", "1")]})
    folder = run_suite("quick").folder
    secret = folder.parent / "secret.csv"
    secret.write_text("a\nsecret\n")
    (folder / "01_a" / "link.csv").symlink_to(secret)
    if outside == "notebook":
        status = (folder / "status.json").read_text()
        (folder / "status.json").write_text(status.replace('"01_a"', '"../01_a"'))
    else:
        row = {"file": str(secret) if outside == "absolute" else outside}
        (folder / "01_a" / "figures.json").write_text(json.dumps([row]))
    with pytest.raises((SuiteError, NotebookError), match=r"is not (a file of|the name of a notebook)"):
        portable_report(folder, target=tmp_path / "sent")
    assert not (tmp_path / "sent").exists()
