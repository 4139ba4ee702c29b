"""The real notebooks from end to end, headless, with the `smoke` profile: machinery only, tiny sizes.

Each cell is executed twice (see `tests.cells_twice`), as people do in Jupyter. The executed copies show the
first run; files that a cell writes are those of the second.
"""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from clcae_lib.suite.plan import read_suite
from tests.cells_twice import failures

ROOT = Path(__file__).resolve().parents[2]
NAMES = [entry.name for entry in read_suite(ROOT / "notebooks")]
# One worker runs them all, so that the suite runs once. The limit is for what hangs, not for slow machines.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(4 * 3600), pytest.mark.xdist_group("smoke")]


@pytest.fixture(scope="module")
def notebooks() -> list[str]:
    """Names of the suite's notebooks; there must be some."""
    assert NAMES
    return NAMES


@pytest.fixture(scope="module")
def results(notebooks) -> Path:
    """The folder of a fresh smoke run; the run must end well."""
    command = [sys.executable, "-m", "tests.cells_twice", "run", "--profile", "smoke", "--force"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "index.html" in done.stdout
    return ROOT / "results" / "smoke"


def test_one_worker_runs_this_file(request):
    if hasattr(request.config, "workerinput"):
        assert request.node.nodeid.endswith("@smoke"), "pytest and pytest-xdist disagree about groups"


def test_every_notebook_is_done(results, notebooks):
    status = json.loads((results / "status.json").read_text())
    assert {part["notebook"]: part["state"] for part in status["notebooks"]} == dict.fromkeys(
        notebooks, "done"
    )


def test_every_notebook_leaves_numbers_and_pictures(results, notebooks):
    metrics = pd.read_csv(results / "metrics.csv")
    assert set(metrics["notebook"]) == set(notebooks)
    assert metrics["value"].notna().all()
    for name in notebooks:
        assert list((results / name).glob("*.png")), f"{name} drew nothing"
        assert (results / name / f"{name}.html").is_file()


def test_every_cell_was_executed(results, notebooks):
    for name in notebooks:
        node = nbformat.read(results / name / f"{name}.ipynb", as_version=4)
        cells = [cell for cell in node.cells if cell.cell_type == "code" and cell.source.strip()]
        assert all(cell.execution_count for cell in cells), name


def test_no_output_is_a_warning_or_the_repr_of_a_numpy_number(results, notebooks):
    seen = []
    for name in notebooks:
        node = nbformat.read(results / name / f"{name}.ipynb", as_version=4)
        outputs = [out for cell in node.cells if cell.cell_type == "code" for out in cell.outputs]
        texts = [out.get("text", "") or out.get("data", {}).get("text/plain", "") for out in outputs]
        seen += [(name, text) for text in texts if "Warning:" in text or "np.float" in text]
    assert seen == []


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_can_be_run_twice(results, name):
    assert list(failures(results / name / f"{name}.ipynb")) == []


def test_the_report_shows_every_notebook_and_its_links_lead_somewhere(results, notebooks):
    page = (results / "index.html").read_text()
    links = [part.split('"', 1)[0] for part in page.split('href="')[1:]]
    local = [link for link in links if not link.startswith(("#", "data:"))]
    assert not [link for link in local if link.startswith("http")], "the page needs nothing from elsewhere"
    assert not [link for link in local if not (results / link).is_file()]
    for name in notebooks:
        assert f'id="{name}"' in page
