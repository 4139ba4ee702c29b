"""The gate and the portable page, on runs written by hand."""

import base64
import json
import re

import pandas as pd
import pytest
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.suite import SuiteError
from clcae_lib.suite._collect import SWEEP_COLUMNS
from clcae_lib.suite.check import check_runs
from clcae_lib.suite.portable import portable_report
from clcae_lib.suite.runner import run_suite

ROWS = {"metric": "PSNR", "subject": "final", "low": 20.0, "high": 22.0, "headline": True, "source": "live"}
TABLE = """
import pandas as pd
from clcae_lib.suite import Recorder
recorder = Recorder("01_a", output_dir)
recorder.metric("PSNR", 21, source="live", low=20, high=22, headline=True)
recorder.table(pd.DataFrame({"method": ["a", "b"], "dB": [20.123, 9.5]}), "methods", caption="All of them.")
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(2, 1))
recorder.figure(figure, "plain_one")
recorder.figure(figure, "first_one", headline=True);
"""


def runs(folder, rows, **shared):
    frame = pd.DataFrame([{**ROWS, "variant": "foundation", "seed": 0, **row} for row in rows])
    blank = dict.fromkeys(SWEEP_COLUMNS, "")
    folder.mkdir(parents=True, exist_ok=True)
    frame.assign(**{k: v for k, v in blank.items() if k not in frame})[list(SWEEP_COLUMNS)].to_csv(
        folder / "runs.csv", index=False
    )
    return folder


STEPS = {"metric": "training steps", "subject": "", "headline": False, "low": None, "high": None}


@pytest.fixture
def kept(tmp_path):
    runs(
        tmp_path / "reference" / "sweeps" / "ablations",
        [
            {"value": 21.0},
            {"value": 19.0, "low": 18.0, "high": 20.0, "variant": "other"},
            STEPS | {"value": 160},
        ],
    )
    return tmp_path / "reference"


def test_a_measure_in_its_interval_passes_and_one_outside_is_named(kept, tmp_path):
    good = runs(tmp_path / "good", [{"value": 22.0}, STEPS | {"value": 160}])
    assert check_runs(good, kept).ok
    low = check_runs(runs(tmp_path / "low", [{"value": 19.9}]), kept)
    assert [str(d) for d in low.deviations] == ["foundation 0 PSNR final: 19.9 is below [20, 22]"]
    high = check_runs(runs(tmp_path / "high", [{"value": 22.5}]), kept)
    assert "above" in str(high.deviations[0])
    unmarked = check_runs(
        runs(tmp_path / "other", [{"value": 22.0}, {"value": 99.0, "headline": False, "subject": "W"}]), kept
    )
    assert (unmarked.compared, unmarked.ok) == (1, True)


def test_what_was_asked_for_and_is_missing_fails(kept, tmp_path):
    good = runs(tmp_path / "good", [{"value": 21.0}])
    assert check_runs(good, kept).compared == 1
    found = check_runs(good, kept, seeds=[0])
    assert [str(d) for d in found.deviations] == ["other 0 PSNR final: not measured, kept [18, 20]"]
    assert check_runs(good, kept, seeds=[0], variants=["foundation"]).ok


def test_a_check_that_compares_nothing_is_an_error(kept, tmp_path):
    with pytest.raises(SuiteError, match="in common"):
        check_runs(runs(tmp_path / "far", [{"value": 21.0, "seed": 7}]), kept)
    with pytest.raises(SuiteError, match="160"):
        check_runs(runs(tmp_path / "short", [{"value": 21.0}, STEPS | {"value": 30}]), kept)
    with pytest.raises(SuiteError, match=r"neither runs\.csv nor metrics\.csv"):
        check_runs(tmp_path / "nothing", kept)


def test_the_command_fails_with_a_status_and_names_the_measure(kept, tmp_path):
    def call(folder):
        return CliRunner().invoke(app, ["check", "--against", str(kept), "--results", str(folder)])

    bad = call(runs(tmp_path / "bad", [{"value": 3.0}]))
    assert bad.exit_code == 1
    assert "foundation 0 PSNR final: 3 is below [20, 22]" in bad.output
    good = call(runs(tmp_path / "good", [{"value": 21.0}]))
    assert (good.exit_code, "1 of 1 headline" in good.output) == (0, True)
    assert call(tmp_path / "nothing").exit_code == 2


def test_the_committed_reference_agrees_with_itself(repository):
    reference = repository / "results" / "reference"
    assert check_runs(reference, reference).ok
    sweep = check_runs(reference / "sweeps" / "ablations", reference)
    assert sweep.ok
    assert sweep.compared >= 24


def test_the_portable_page_holds_every_picture_and_table(suite, tmp_path):
    suite({"01_a": [TABLE]})
    source = run_suite("quick").folder
    page = portable_report(source, target=tmp_path / "sent")
    text = page.read_text()
    assert sorted(file.name for file in page.parent.iterdir()) == ["index.html", "tables.csv"]
    assert set(re.findall(r'href="([^"#][^"]*)"', text)) <= {"data:,", "tables.csv"}
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 2
    for data in sources:
        assert base64.b64decode(data.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert 'data-sort="20.123">20.12<' in text
    cells = pd.read_csv(page.parent / "tables.csv").set_index(["table", "row", "column"])["value"]
    assert cells[("methods", 1, "dB")] == "9.5"
    assert cells[("metrics", 0, "metric")] == "PSNR"
    assert json.loads((source / "status.json").read_text())["profile"] == "quick"
    with pytest.raises(SuiteError, match="holds no run"):
        portable_report(tmp_path / "nothing")
