"""The portable page, the kept reference and the check against it."""

import base64
import io
import json
import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.suite import SuiteError
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
methods = pd.DataFrame({"method": ["a", "b"], "dB": [20.123, 9.5], "blank": ["", ""]})
recorder.table(methods, "methods", caption="All of them.", headline=True)
recorder.table(pd.DataFrame({"n": [12.345]}), "counted")
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(2, 1))
recorder.figure(figure, "plain_one")
recorder.figure(figure, "first_one", headline=True, caption="It rises.");
"""
WIDGET = "import ipywidgets; ipywidgets.IntSlider()"
#: All colours, and one small green spot, as the iris of an eye.
COLOURFUL = """
import numpy as np
from PIL import Image as Drawn

x, y = np.meshgrid(np.arange(256), np.arange(256))
colours = np.stack([x, y, 255 - (x + y) // 2], axis=2).astype(np.uint8)
colours[100:104, 40:44] = (0, 200, 0)
Drawn.fromarray(colours)
"""
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
    for runs in reference.glob("sweeps/ablations*/runs.csv"):
        assert check_runs(runs.parent, reference).compared >= 24, runs


def test_links_of_the_kept_notebooks_lead_to_files(repository):
    folder = repository / "results" / "reference" / "notebooks"
    links = {
        (path.name, link)
        for path in folder.glob("*.ipynb")
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "markdown"
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", cell.source)
    }
    assert links
    assert [link for link in links if not (folder / link[1]).exists()] == []


def test_a_run_is_kept_with_small_notebooks_and_sent_as_one_page(suite, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_RESULTS", str(tmp_path / "another" / "disk"))
    path = suite({"01_a": [TABLE, COLOURFUL, WIDGET, SHOWN]}) / "01_a.ipynb"
    node = nbformat.read(path, as_version=4)
    node.cells.insert(0, nbformat.v4.new_markdown_cell("![A line.](figures/line.svg)"))
    nbformat.write(node, path)
    source = run_suite("quick").folder
    target = source.parent / "reference"
    (target / "01_a").mkdir(parents=True)
    (target / "01_a" / "old.png").write_bytes(b"stale")
    page = keep_report(source).read_text()
    files = ["counted.csv", "figures.json", "first_one.png", "methods.csv", "metrics.json", "plain_one.png"]
    assert sorted(file.name for file in (target / "01_a").iterdir()) == [*files, "run.json"]
    first_table = page[page.index("<table") : page.index("</table>")]
    assert "All of them." in first_table
    assert 'data-sort="20.123">20.12<' in first_table
    assert "blank" not in first_table
    assert "12.345" not in page
    assert "<figcaption>It rises." in page
    assert "First one" not in page
    assert "<figcaption>Plain one<" in page
    assert 'href="notebooks/01_a.ipynb"' in page
    assert 'href="01_a/01_a.ipynb"' in (source / "index.html").read_text()
    executed = nbformat.read(target / "notebooks" / "01_a.ipynb", as_version=4)
    assert "widgets" not in executed.metadata
    assert executed.cells[0].source == "![A line.](../../../notebooks/figures/line.svg)"
    (widget,) = executed.cells[-2].outputs
    assert widget.data == {"text/plain": "A widget: run the notebook to use it."}
    assert str(tmp_path) not in (target / "notebooks" / "01_a.ipynb").read_text()
    (shown,) = [output for output in executed.cells[-1].outputs if "data" in output]
    with Image.open(io.BytesIO(base64.b64decode(shown["data"]["image/png"]))) as image:
        assert image.mode == "P"
    (colourful,) = [output for output in executed.cells[-3].outputs if "data" in output]
    with Image.open(io.BytesIO(base64.b64decode(colourful["data"]["image/jpeg"]))) as image:
        assert np.abs(np.subtract(image.getpixel((42, 102)), (0, 200, 0))).max() < 20
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
        for number in ('data-sort="20.123">20.12<', 'data-sort="12.345">12.35<'):
            assert text.count(number) == 1
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


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """A folder for a run that is made once and then copied."""
    return tmp_path_factory.mktemp("sent")


@pytest.fixture
def foreign(suite, tmp_path, sent):
    """The folder of a good run that somebody else sent, beside results that are not theirs."""
    suite({"01_a": [TABLE]})
    folder = tmp_path / "results" / "quick"
    if any(sent.iterdir()):
        shutil.copytree(sent, folder)
    else:
        shutil.copytree(run_suite("quick").folder, sent, dirs_exist_ok=True)
    outside = folder.parent / "outside"
    shutil.copytree(folder / "01_a", outside)
    for name in ("status.json", "metrics.csv"):
        shutil.copy(folder / name, outside)
    (outside / "secret.csv").write_text("a\nsecret\n")
    return folder


def replaced(path, target):
    """Put a link in the place of a file or folder."""
    path.rename(path.with_suffix(".away"))
    path.symlink_to(target)


def renamed(folder, notebook):
    """Let the run list another notebook."""
    status = (folder / "status.json").read_text()
    (folder / "status.json").write_text(status.replace('"01_a"', json.dumps(notebook)))


def listed(folder, file):
    """Let the notebook list another figure."""
    (folder / "01_a" / "figures.json").write_text(json.dumps([{"file": file}]))


OUTSIDE = {
    "a path": lambda folder: listed(folder, "../../outside/secret.csv"),
    "an absolute path": lambda folder: listed(folder, str(folder.parent / "outside" / "secret.csv")),
    "a null byte": lambda folder: listed(folder, "a\0.png"),
    "a link": lambda folder: (
        (folder / "01_a" / "link.csv").symlink_to("../../outside/secret.csv"),
        listed(folder, "link.csv"),
    ),
    "a linked list": lambda folder: replaced(folder / "01_a" / "figures.json", "../../outside/figures.json"),
    "a linked notebook": lambda folder: replaced(folder / "01_a", "../outside"),
    "a linked status": lambda folder: replaced(folder / "status.json", "../outside/status.json"),
    "a linked table": lambda folder: replaced(folder / "metrics.csv", "../outside/metrics.csv"),
    "another notebook": lambda folder: renamed(folder, "../outside"),
    "the folder above": lambda folder: renamed(folder, ".."),
    "a long name": lambda folder: renamed(folder, "a" * 5000),
    "no name": lambda folder: renamed(folder, 3),
}


@pytest.mark.parametrize("how", OUTSIDE)
def test_a_report_of_a_foreign_run_reads_and_removes_nothing_outside_its_folder(foreign, tmp_path, how):
    OUTSIDE[how](foreign)
    before = sorted(tmp_path.rglob("*"))
    said = r"is not a file of|figures\.json is not valid|notebooks\.0\.notebook: "
    for command in (lambda: portable_report(foreign, target=tmp_path / "sent"), lambda: keep_report(foreign)):
        with pytest.raises(SuiteError, match=said) as error:
            command()
        assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


DAMAGED = {
    "status.json": ["{", "[]", "[" * 100_000, '{"notebooks": []}', '{"notebooks": ' + "9" * 5000 + "}"],
    "metrics.csv": ["", "a\n1\n", 'a,b\n1,2,3,4\n"', "\0"],
    "01_a/metrics.json": ["{"],
    "01_a/figures.json": ["{", '[{"file": 3}]'],
    "01_a/methods.csv": ["", "a\n1,2\n1,2,3\n"],
    "01_a/plain_one.png": ["<svg/>"],
}


@pytest.mark.parametrize("file", DAMAGED)
def test_a_damaged_file_of_a_run_is_named_in_one_line(foreign, tmp_path, file):
    for content in DAMAGED[file]:
        (foreign / file).write_text(content)
        done = CliRunner().invoke(app, ["report", "--output", str(tmp_path / "sent")])
        assert done.exit_code == 2, done.exception
        assert done.output.count("\n") == 1
        assert file.rpartition("/")[2] in done.output
        assert str(foreign) in done.output


def test_a_value_of_a_run_that_is_no_number_is_named(foreign):
    table = (foreign / "metrics.csv").read_text()
    for value in ("x", "inf", ""):
        (foreign / "metrics.csv").write_text(table.replace(",21.0,", f",{value},"))
        with pytest.raises(SuiteError, match=r"metrics\.csv"):
            portable_report(foreign)


def test_a_table_may_have_columns_of_any_name(foreign):
    (foreign / "01_a" / "methods.csv").write_text("row,column,value,cell\n1,2,3,4\n")
    cells = pd.read_csv(portable_report(foreign).with_name("tables.csv"))
    assert cells[cells["table"] == "methods"]["column"].tolist() == ["row", "column", "value", "cell"]
