"""The runner, on tiny notebooks: what it writes, what it skips, and every way to fail."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.suite import SuiteError, _kernel
from clcae_lib.suite.runner import run_suite
from tests.notebooks_in_small import PARAMETERS, record, write_notebook

GOOD = record("01_a", "seed + 1")
FIGURE = """
from clcae_lib.suite import Recorder
recorder = Recorder("01_a", output_dir)
recorder.metric("count", seed + 1, source="live", headline=True)
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([1, 2])
recorder.figure(figure, "a_line", caption="It rises.", headline=True);
"""


def states(summary):
    return {outcome.notebook: outcome.state for outcome in summary.outcomes}


def test_a_run_leaves_report_table_pictures_and_copies(suite):
    suite({"01_a": [FIGURE], "02_b": [record("02_b", "7")]}, needs={"02_b": ["01_a"]})
    summary = run_suite("quick", settings=["seed=4"])
    assert summary.ok
    assert states(summary) == {"01_a": "done", "02_b": "done"}
    metrics = pd.read_csv(summary.folder / "metrics.csv")
    assert metrics["value"].tolist() == [5.0, 7.0]
    assert metrics["seed"].tolist() == [4, 4]
    assert metrics.loc[0, ["profile", "world", "device"]].tolist()[:2] == ["quick", "tiny"]
    assert metrics["versions"].str.contains("torch").all()
    page = summary.report.read_text()
    assert "Title of 01_a" in page
    assert "data:image/png;base64," in page
    assert "It rises." in page
    for file in ("01_a.ipynb", "01_a.html", "a_line.png", "run.json", "metrics.json"):
        assert (summary.folder / "01_a" / file).is_file(), file
    executed = nbformat.read(summary.folder / "01_a" / "01_a.ipynb", as_version=4)
    assert '"results/quick/01_a"' in "".join(cell.source for cell in executed.cells)
    assert not list(summary.folder.glob(".*")), "nothing temporary is left"
    log = (summary.folder / "run.log").read_text()
    assert "01_a" in log
    assert "starts with" in log


def test_the_page_needs_nothing_from_elsewhere(suite):
    suite({"01_a": [FIGURE]})
    page = run_suite("quick").report.read_text()
    for tag in ('src="http', 'href="http', "url(http", "@import"):
        assert tag not in page


def test_a_rerun_skips_what_is_unchanged(suite, tmp_path):
    folder = suite({"01_a": [GOOD], "02_b": [record("02_b", "7")]}, needs={"02_b": ["01_a"]})
    run_suite("quick")
    assert states(run_suite("quick")) == {"01_a": "unchanged", "02_b": "unchanged"}
    assert states(run_suite("quick", only=["02"], force=True)) == {"01_a": "earlier", "02_b": "done"}
    # Another parameter changes the first one's numbers, and so the second one's input.
    assert states(run_suite("quick", settings=["01.seed=5"])) == {"01_a": "done", "02_b": "done"}
    run_suite("quick")
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    (tmp_path / "data" / "tiny" / "generator.safetensors").write_bytes(b"other")
    assert states(run_suite("quick"))["01_a"] == "done", "other weights"
    write_notebook(folder / "02_b.ipynb", record("02_b", "8"))
    assert states(run_suite("quick")) == {"01_a": "unchanged", "02_b": "done"}, "another cell"


def test_a_failure_stops_dependants_only_and_keeps_copy_and_traceback(suite):
    folder = suite(
        {"01_a": ["marker = 1", "raise ValueError('broken here')"], "02_b": [GOOD], "03_c": [GOOD]},
        needs={"02_b": ["01_a"]},
    )
    summary = run_suite("quick")
    assert not summary.ok
    assert states(summary) == {"01_a": "failed", "02_b": "stopped", "03_c": "done"}
    left = summary.folder / "failed" / "01_a"
    assert "broken here" in (left / "traceback.txt").read_text()
    assert nbformat.read(left / "01_a.ipynb", as_version=4).cells
    assert "broken here" in summary.report.read_text()
    assert "ValueError: broken here" in (summary.folder / "run.log").read_text()
    write_notebook(folder / "01_a.ipynb", GOOD)
    assert run_suite("quick").ok
    assert not left.exists(), "a success clears the failure"


def test_a_failure_leaves_earlier_results_as_they_were(suite):
    folder = suite({"01_a": [GOOD]})
    earlier = (run_suite("quick").folder / "01_a" / "metrics.json").read_text()
    write_notebook(folder / "01_a.ipynb", GOOD.replace("seed + 1", "99"), "1 / 0")
    summary = run_suite("quick")
    assert states(summary) == {"01_a": "failed"}
    assert (summary.folder / "01_a" / "metrics.json").read_text() == earlier
    assert len(pd.read_csv(summary.folder / "metrics.csv")) == 0, "stale numbers are not reported"


@pytest.mark.parametrize(
    "callback",
    [
        "out = w.Output()\nwith out:\n    1 / 0",
        "s = w.IntSlider()\no = w.interactive_output(lambda x: 1 / x, {'x': s})",
        "w.interact(lambda x: 1 / x, x=w.IntSlider());",
    ],
    ids=["output", "interactive_output", "interact"],
)
def test_an_exception_in_a_widget_fails_the_notebook(suite, callback):
    suite({"01_a": [GOOD, f"import ipywidgets as w\n{callback}"]})
    summary = run_suite("quick")
    assert states(summary) == {"01_a": "failed"}
    assert "widget" in summary.outcomes[0].reason
    assert "ZeroDivisionError" in (summary.folder / "failed" / "01_a" / "traceback.txt").read_text()


def test_a_notebook_that_records_nothing_fails(suite):
    suite({"01_a": ["x = 1"]})
    summary = run_suite("quick")
    assert "metrics" in summary.outcomes[0].reason


NO_TEXT = "display({'text/html': 5}, raw=True)"
NO_VIEW = "display({'application/vnd.jupyter.widget-view+json': 5}, raw=True)"
BROKEN_IMAGE = "pathlib.Path(output_dir, 'a.png').write_bytes(b'no image')"
BROKEN_FIGURES = "pathlib.Path(output_dir, 'figures.json').write_text('[1]')"
BROKEN_METRICS = "pathlib.Path(output_dir, 'metrics.json').write_text('[1]')"


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (NO_TEXT, "NotebookValidationError: 5 is not valid"),
        (NO_VIEW, "TypeError: 'int' object is not subscriptable"),
        (BROKEN_METRICS, r"metrics\.json"),
        (BROKEN_FIGURES, r"figures\.json"),
        (BROKEN_IMAGE, r"a\.png"),
    ],
    ids=["output", "html", "metrics", "figures", "image"],
)
def test_whatever_is_wrong_with_a_notebooks_results_the_others_run_and_a_report_is_written(
    suite, cell, reason
):
    suite({"01_a": [GOOD, cell], "02_b": [record("02_b", "7")]})
    summary = run_suite("quick")
    assert states(summary) == {"01_a": "failed", "02_b": "done"}
    assert re.search(reason, summary.outcomes[0].reason)
    assert not summary.ok
    assert "Title of 02_b" in summary.report.read_text()
    left = summary.folder / "failed" / "01_a"
    assert (left / "01_a.ipynb").is_file()
    assert re.search(reason, (left / "traceback.txt").read_text())


def test_the_command_ends_with_status_one_when_a_notebook_has_failed(suite):
    suite({"01_a": [GOOD, BROKEN_METRICS], "02_b": [record("02_b", "7")]})
    done = CliRunner().invoke(app, ["run"])
    assert done.exit_code == 1
    assert "failed: 01_a" in done.output
    assert "index.html" in done.output


def test_an_error_of_the_suite_is_not_taken_for_a_dead_kernel(suite, monkeypatch):
    def broken(*_arguments):
        raise RuntimeError("no widgets today")

    monkeypatch.setattr(_kernel, "_report_progress", broken)
    suite({"01_a": [GOOD]})
    summary = run_suite("quick")
    assert summary.outcomes[0].reason == "RuntimeError: no widgets today"


def test_earlier_results_that_are_damaged_are_made_anew(suite):
    suite({"01_a": [GOOD], "02_b": [record("02_b", "7")]})
    folder = run_suite("quick").folder
    (folder / "01_a" / "metrics.json").unlink()
    assert states(run_suite("quick", only=["02"])) == {"01_a": "absent", "02_b": "unchanged"}
    assert states(run_suite("quick")) == {"01_a": "done", "02_b": "unchanged"}


def test_photographs_that_are_added_or_replaced_make_the_run_anew(suite, tmp_path):
    folder = suite({"01_a": []})
    count = record("01_a", "sum(len(p.read_bytes()) for p in pathlib.Path(folder).iterdir())")
    write_notebook(folder / "01_a.ipynb", count, parameters=PARAMETERS + 'folder = ""\n')
    (folder / "suite.yaml").write_text(
        yaml.safe_dump({"notebooks": [{"name": "01_a", "folders": ["folder"]}]})
    )
    album = tmp_path / "album"
    album.mkdir()
    for name, content, total in (("a.jpg", b"1", 1), ("b.jpg", b"22", 3), ("a.jpg", b"333", 5)):
        (album / name).write_bytes(content)
        summary = run_suite("quick", settings=[f"folder={album}"])
        assert states(summary) == {"01_a": "done"}
        assert pd.read_csv(summary.folder / "metrics.csv")["value"].tolist() == [total]
        assert states(run_suite("quick", settings=[f"folder={album}"])) == {"01_a": "unchanged"}


def test_a_notebook_that_takes_too_long_fails(suite):
    suite({"01_a": [GOOD, "import time; time.sleep(60)"]})
    summary = run_suite("quick", timeout=4)
    assert "within 4 s" in summary.outcomes[0].reason


def test_a_kernel_that_dies_fails(suite):
    suite({"01_a": [GOOD, "import os; os._exit(3)"]})
    summary = run_suite("quick")
    assert states(summary) == {"01_a": "failed"}
    assert "kernel" in summary.outcomes[0].reason


def test_the_kernel_is_this_interpreter_in_the_repository(suite, tmp_path):
    cells = [
        f"import sys, os\nassert sys.executable == {sys.executable!r}",
        f"assert os.getcwd() == {str(tmp_path)!r}",
    ]
    suite({"01_a": [GOOD, *cells]})
    assert run_suite("quick").ok


def test_an_unknown_parameter_is_an_error_that_names_it(suite):
    suite({"01_a": [GOOD]}, profile={"notebooks": {"01_a": {"stepz": 3}}})
    with pytest.raises(SuiteError, match=r"01_a.*'stepz'"):
        run_suite("quick")


@pytest.mark.parametrize("setting", ["sed=1", "01.sed=1"])
def test_an_unknown_setting_is_an_error_that_names_notebook_and_parameter(suite, setting):
    suite({"01_a": [GOOD]})
    with pytest.raises(SuiteError, match=r"01_a.*'sed'.*'seed'"):
        run_suite("quick", settings=[setting])


def test_a_device_that_is_not_here_is_told_before_anything_runs(suite):
    suite({"01_a": [GOOD]})
    with pytest.raises(SuiteError, match=r"01_a.*nosuch"):
        run_suite("quick", settings=["device=nosuch"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="it shows a machine without CUDA")
def test_a_profile_for_a_gpu_is_refused_by_name_where_there_is_none(suite):
    suite({"01_a": [GOOD]}, profile={"about": "for a GPU", "common": {"device": "cuda"}})
    with pytest.raises(SuiteError, match=r"01_a: device='cuda': torch .* finds no CUDA device; use device="):
        run_suite("quick")


def test_a_run_says_first_on_which_device(suite, capsys):
    suite({"01_a": [GOOD]})
    folder = run_suite("quick").folder
    assert capsys.readouterr().out.startswith("device cpu: ")
    assert " device cpu: " in (folder / "run.log").read_text().splitlines()[0]


def test_an_unlisted_notebook_is_an_error(suite):
    folder = suite({"01_a": [GOOD]})
    write_notebook(folder / "02_extra.ipynb")
    with pytest.raises(SuiteError, match="02_extra"):
        run_suite("quick")


def test_a_notebook_whose_needs_never_ran_is_an_error(suite):
    suite({"01_a": [GOOD], "02_b": [GOOD]}, needs={"02_b": ["01_a"]})
    with pytest.raises(SuiteError, match="02_b needs 01_a"):
        run_suite("quick", only=["02"])


def test_a_second_run_of_the_same_profile_is_refused_and_spoils_nothing(suite, tmp_path):
    suite({"01_a": [GOOD]})
    run_suite("quick")
    before = sorted(file.name for file in (tmp_path / "results" / "quick").rglob("*"))
    with (
        FileLock(tmp_path / "results" / ".quick.lock"),
        pytest.raises(SuiteError, match=r"another run is writing to .*--output"),
    ):
        run_suite("quick", force=True)
    assert sorted(file.name for file in (tmp_path / "results" / "quick").rglob("*")) == before
    assert run_suite("quick", force=True).ok, "the lock ends with its holder"


def test_results_go_where_output_says(suite, tmp_path):
    suite({"01_a": [GOOD]})
    summary = run_suite("quick", output=tmp_path / "elsewhere")
    assert summary.report == tmp_path / "elsewhere" / "index.html"
    assert summary.report.is_file()


def test_an_interrupted_run_leaves_earlier_results_and_no_kernel(suite, tmp_path):
    folder = suite({"01_a": [GOOD]})
    earlier = (run_suite("quick").folder / "01_a" / "metrics.json").read_text()
    started = tmp_path / "pid"
    tell = f"import os, pathlib\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))"
    slow = f"{tell}\nimport time; time.sleep(3600)"
    write_notebook(folder / "01_a.ipynb", GOOD.replace("seed + 1", "99"), slow)
    program = "from clcae_lib.suite.runner import run_suite; run_suite('quick')"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    wait_for(lambda: started.is_file() and started.read_text())
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in errors
    assert (tmp_path / "results" / "quick" / "01_a" / "metrics.json").read_text() == earlier
    assert json.loads(earlier)[0]["value"] == 1.0
    wait_for(lambda: not alive(int(started.read_text())))


def wait_for(condition):
    """Wait as long as it takes; pytest ends what hangs."""
    while not condition():
        time.sleep(0.1)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_parameters_reach_only_those_who_declare_them(suite):
    folder = suite(
        {"01_a": [GOOD], "02_b": [record("02_b", "steps")]},
        profile={"common": {"seed": 3, "steps": 5}},
    )
    write_notebook(folder / "02_b.ipynb", record("02_b", "steps"), parameters=PARAMETERS + "steps = 100\n")
    summary = run_suite("quick", settings=["02.steps=6"])
    assert pd.read_csv(summary.folder / "metrics.csv")["value"].tolist() == [4.0, 6.0]
