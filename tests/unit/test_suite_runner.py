"""The runner, on tiny notebooks: what it writes, what it skips, and every way to fail."""

import base64
import json
import os
import re
import signal
import stat
import subprocess
import sys

import nbformat
import pandas as pd
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from clcae_lib import paths
from clcae_lib.cli import app
from clcae_lib.errors import ClcaeError
from clcae_lib.suite import SuiteError, execute
from clcae_lib.suite.runner import run_suite
from tests.notebooks_in_small import alive, record, wait_for, write_notebook

GOOD, SEVEN = record("01_a", "seed + 1"), record("02_b", "7")
FIGURE = """
from clcae_lib.suite import Recorder
recorder = Recorder("01_a", output_dir)
recorder.metric("count", seed + 1, source="live", headline=True)
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([1, 2])
recorder.figure(figure, "a_line", caption="It rises.", headline=True);
"""
DIAGRAM = '<svg xmlns="http://www.w3.org/2000/svg"/>'


def show_diagram(path):
    """Let a notebook end with links to another one and to a page, and a diagram from the folder beside it."""
    (path.parent / "figures").mkdir()
    (path.parent / "figures" / "line.svg").write_text(DIAGRAM)
    node = nbformat.read(path, as_version=4)
    node.cells.append(nbformat.v4.new_code_cell("import os; os.path.abspath(output_dir + '/x.csv')"))
    node.cells.append(nbformat.v4.new_markdown_cell("[Next](02_b.ipynb), [more](../docs/more.md)."))
    node.cells.append(nbformat.v4.new_markdown_cell("![A line.](figures/line.svg)"))
    nbformat.write(node, path)


@pytest.fixture
def _in_process(tmp_path, monkeypatch):
    """Notebooks run in this process, where a test is not about their kernels."""

    def execute(notebook, executed, parameters, **_):
        node, names = nbformat.read(notebook, as_version=4), {}
        for cell in node.cells:
            if cell.cell_type == "code":
                exec(cell.source, names)
                names |= parameters if "parameters" in cell.metadata.get("tags", []) else {}
        nbformat.write(node, executed)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clcae_lib.suite.perform.execute", execute)


def states(summary):
    return {outcome.notebook: outcome.state for outcome in summary.outcomes}


def test_a_run_leaves_report_table_images_and_copies(suite, capsys):
    folder = suite({"01_a": [FIGURE], "02_b": [SEVEN]}, needs={"02_b": ["01_a"]})
    show_diagram(folder / "01_a.ipynb")
    before = os.umask(0o027)
    try:
        summary = run_suite("quick", settings=["seed=4"])
    finally:
        os.umask(before)
    assert summary.ok
    assert stat.S_IMODE((summary.folder / "01_a").stat().st_mode) == 0o750, "as the umask says"
    assert states(summary) == {"01_a": "done", "02_b": "done"}
    metrics = pd.read_csv(summary.folder / "metrics.csv")
    assert metrics["value"].tolist() == [5.0, 7.0]
    assert metrics["seed"].tolist() == [4, 4]
    assert metrics.loc[0, ["profile", "world", "device"]].tolist()[:2] == ["quick", "tiny"]
    assert metrics["versions"].str.contains("torch").all()
    page = summary.report.read_text()
    for text in ("Title of 01_a", "data:image/png;base64,", "It rises."):
        assert text in page
    for tag in ('src="http', 'href="http', "url(http", "@import"):
        assert tag not in page, "the page needs nothing from elsewhere"
    for file in ("01_a.ipynb", "01_a.html", "a_line.png", "run.json", "metrics.json"):
        assert (summary.folder / "01_a" / file).is_file(), file
    executed = nbformat.read(summary.folder / "01_a" / "01_a.ipynb", as_version=4)
    assert '"results/quick/01_a"' in "".join(cell.source for cell in executed.cells)
    assert "'results/quick/01_a/x.csv'" in executed.cells[-3].outputs[0]["data"]["text/plain"]
    assert (
        summary.folder / "01_a" / executed.cells[-1].source[len("![A line.](") : -1]
    ).read_text() == DIAGRAM
    html = (summary.folder / "01_a" / "01_a.html").read_text()
    assert base64.b64encode(DIAGRAM.encode()).decode() in html
    assert 'href="../02_b/02_b.html"' in html
    assert 'href="../../../docs/more.md"' in html
    assert not list(summary.folder.glob(".*")), "nothing temporary is left"
    log = (summary.folder / "run.log").read_text()
    assert " device cpu: " in log.splitlines()[0]
    assert "01_a starts with" in log
    assert capsys.readouterr().out.startswith("device cpu: ")


@pytest.mark.usefixtures("_in_process")
def test_a_rerun_skips_what_is_unchanged(suite, tmp_path):
    folder = suite({"01_a": [GOOD], "02_b": [SEVEN]}, needs={"02_b": ["01_a"]})
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
    (tmp_path / "results" / "quick" / "02_b" / "metrics.json").unlink()
    assert states(run_suite("quick", only=["01"])) == {"01_a": "unchanged", "02_b": "absent"}
    assert states(run_suite("quick")) == {"01_a": "unchanged", "02_b": "done"}, "a damaged result"


def test_a_failure_stops_dependants_only_and_keeps_copy_and_traceback(suite):
    cells = {"01_a": ["marker = 1", "raise ValueError('broken here')"], "02_b": [GOOD], "03_c": [GOOD]}
    folder = suite(cells, needs={"02_b": ["01_a"]})
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


@pytest.mark.usefixtures("_in_process")
def test_a_failure_leaves_earlier_results_as_they_were(suite):
    folder = suite({"01_a": [GOOD]})
    earlier = (run_suite("quick").folder / "01_a" / "metrics.json").read_text()
    write_notebook(folder / "01_a.ipynb", GOOD.replace("seed + 1", "99"), "1 / 0")
    summary = run_suite("quick")
    assert states(summary) == {"01_a": "failed"}
    assert (summary.folder / "01_a" / "metrics.json").read_text() == earlier
    assert len(pd.read_csv(summary.folder / "metrics.csv")) == 0, "stale numbers are not reported"


def test_an_exception_in_a_widget_fails_the_notebook(suite):
    callbacks = {
        "01_a": "out = w.Output()\nwith out:\n    1 / 0",
        "02_b": "s = w.IntSlider()\no = w.interactive_output(lambda x: 1 / x, {'x': s})",
        "03_c": "w.interact(lambda x: 1 / x, x=w.IntSlider());",
    }
    suite({name: [GOOD, f"import ipywidgets as w\n{cell}"] for name, cell in callbacks.items()})
    summary = run_suite("quick")
    assert set(states(summary).values()) == {"failed"}
    for outcome in summary.outcomes:
        assert "widget" in outcome.reason
        left = summary.folder / "failed" / outcome.notebook / "traceback.txt"
        assert "ZeroDivisionError" in left.read_text()


#: Cells that raise where no cell sees it.
UNSEEN = {
    "01_thread": "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
    "02_task": "import asyncio\nasync def f(): 1 / 0\nt = asyncio.create_task(f())\nawait asyncio.sleep(0)",
    "03_future": "from concurrent.futures import *\nwith ThreadPoolExecutor() as e: e.submit(lambda: 1 / 0)",
    "04_callback": "from concurrent.futures import *\nwith ThreadPoolExecutor() as e:\n"
    "    e.submit(int).add_done_callback(lambda f: 1 / 0)",
    "05_loop": "import asyncio\nfrom tornado.ioloop import IOLoop\n"
    "IOLoop.current().add_callback(lambda: 1 / 0)\nawait asyncio.sleep(0.1)",
    "06_cleared": "import ipywidgets as w\nout = w.Output()\n@out.capture(clear_output=True)\n"
    "def f(x): 1 / x\nf(0); f(1)",
}
SEEN = """
from concurrent.futures import Future, ThreadPoolExecutor
import asyncio
future = Future()
future.set_exception(exception=ValueError())
future.exception()
async def f(): 1 / 0
with ThreadPoolExecutor() as executor:
    assert isinstance(executor.submit(lambda: 1 / 0).exception(), ZeroDivisionError)
try: await asyncio.create_task(f())
except ZeroDivisionError: pass
"""


def test_an_exception_that_no_cell_sees_fails_the_notebook(suite):
    suite({name: [GOOD, cell] for name, cell in UNSEEN.items()} | {"07_seen": [GOOD, SEEN]})
    *unseen, seen = run_suite("quick").outcomes
    assert seen.state == "done", seen.reason
    assert [outcome.state for outcome in unseen] == ["failed"] * 6
    assert all("ZeroDivisionError" in outcome.reason for outcome in unseen)


#: Cells that spoil a notebook's results, and the reason that the report gives.
SPOILED = {
    "01_metrics": ("pathlib.Path(output_dir, 'metrics.json').write_text('[1]')", r"metrics\.json"),
    "02_figures": ("pathlib.Path(output_dir, 'figures.json').write_text('[1]')", r"figures\.json"),
    "03_image": ("pathlib.Path(output_dir, 'a.png').write_bytes(b'no image')", r"a\.png"),
    "04_nothing": ("pathlib.Path(output_dir, 'metrics.json').unlink()", "it recorded no metrics"),
}
#: The same of a kernel and of what it shows.
SPOILED_BY_A_KERNEL = {
    "01_output": ("display({'text/html': 5}, raw=True)", "NotebookValidationError: 5 is not valid"),
    "02_html": (
        "display({'application/vnd.jupyter.widget-view+json': 5}, raw=True)",
        "TypeError: 'int' object is not subscriptable",
    ),
    "03_kernel": ("import os; os._exit(3)", "kernel died"),
}


def test_a_notebook_without_an_end_is_stopped(suite):
    suite({"01_a": [GOOD, "import time; time.sleep(3600)"]})
    (outcome,) = run_suite("quick", timeout=4).outcomes
    assert (outcome.state, outcome.reason) == ("failed", "did not end within 4 s")


@pytest.fixture(params=[SPOILED, SPOILED_BY_A_KERNEL], ids=["results", "kernel"])
def spoiled(request):
    """Notebooks that end badly: cells and reasons by name; where no kernel is needed, in this process."""
    if request.param is SPOILED:
        request.getfixturevalue("_in_process")
    return request.param


def test_whatever_is_wrong_with_a_notebook_the_others_run_and_a_report_is_written(suite, spoiled):
    suite({name: [GOOD, cell] for name, (cell, _) in spoiled.items()} | {"09_good": [GOOD]})
    done = CliRunner().invoke(app, ["run"])
    assert done.exit_code == 1
    assert f"failed: {', '.join(spoiled)}" in done.output
    assert "index.html" in done.output
    results = paths.results_dir() / "quick"
    status = json.loads((results / "status.json").read_text())["notebooks"]
    assert [outcome["state"] for outcome in status] == ["failed"] * len(spoiled) + ["done"]
    assert "Title of 09_good" in (results / "index.html").read_text()
    for outcome in status[:-1]:
        reason = spoiled[outcome["notebook"]][1]
        left = results / "failed" / outcome["notebook"]
        assert re.search(reason, outcome["reason"])
        assert (left / f"{outcome['notebook']}.ipynb").is_file()
        assert (left / "traceback.txt").is_file()


def test_an_error_of_the_suite_is_not_taken_for_a_dead_kernel(suite, monkeypatch):
    def broken(*_arguments):
        raise RuntimeError("no widgets today")

    monkeypatch.setattr(execute.NotebookClient, "execute_cell", broken)
    suite({"01_a": [GOOD]})
    assert run_suite("quick").outcomes[0].reason == "RuntimeError: no widgets today"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"settings": ["sed=1"]}, r"01_a.*'sed'.*'seed'"),
        ({"settings": ["01.sed=1"]}, r"01_a.*'sed'.*'seed'"),
        ({"settings": ["device=nosuch"]}, "'nosuch' is not a valid device"),
        ({"only": ["02"]}, "02_b needs 01_a"),
    ],
)
def test_a_wrong_request_is_an_error_before_anything_runs(suite, options, words):
    suite({"01_a": [GOOD], "02_b": [GOOD]}, needs={"02_b": ["01_a"]})
    with pytest.raises(ClcaeError, match=words):
        run_suite("quick", **options)


@pytest.mark.usefixtures("_in_process")
def test_a_second_run_into_a_folder_is_refused_and_spoils_nothing(suite, tmp_path):
    suite({"01_a": [GOOD]})
    target = tmp_path / "elsewhere" / "quick"
    assert run_suite("quick", output=target).report == target / "index.html"
    before = sorted(file.name for file in target.rglob("*"))
    with (
        FileLock(target.parent / ".quick.lock"),
        pytest.raises(SuiteError, match=r"another run is writing to .*--output"),
    ):
        run_suite("quick", force=True, output=target)
    assert sorted(file.name for file in target.rglob("*")) == before
    assert run_suite("quick", force=True, output=target).ok, "the lock ends with its holder"


def test_an_interrupted_run_leaves_earlier_results_and_no_kernel(suite, tmp_path):
    folder = suite({"01_a": [GOOD]})
    earlier = (run_suite("quick").folder / "01_a" / "metrics.json").read_text()
    started = tmp_path / "pid"
    say = f"import os, pathlib\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))"
    slow = f"{say}\nimport time; time.sleep(3600)"
    write_notebook(folder / "01_a.ipynb", GOOD.replace("seed + 1", "99"), slow)
    command = [sys.executable, "-m", "clcae_lib.cli", "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(lambda: started.is_file() and started.read_text())
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == b"interrupted; earlier results are unchanged\n"
    assert (tmp_path / "results" / "quick" / "01_a" / "metrics.json").read_text() == earlier
    assert json.loads(earlier)[0]["value"] == 1.0
    wait_for(lambda: not alive(int(started.read_text())))
