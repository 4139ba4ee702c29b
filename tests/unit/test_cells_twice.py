"""The tool that executes every cell twice, on tiny notebooks; on the real ones in `tests/notebooks`."""

import runpy
import sys

import nbformat
import pytest

from clcae_lib.suite import execute
from tests.cells_twice import failures
from tests.notebooks_in_small import record


def test_what_a_cell_raises_the_second_time_is_found_and_ends_no_run(suite, tmp_path, monkeypatch, capsys):
    rebound = "seed = str(seed) if isinstance(seed, int) else seed + 1"
    suite({"01_a": [record("01_a", "1"), "count = 1", rebound, "count += 1\ncount"]})
    monkeypatch.setattr(execute, "NotebookClient", execute.NotebookClient)  # the tool puts its own there
    monkeypatch.setattr(sys, "argv", ["cells_twice", "run"])
    monkeypatch.delitem(sys.modules, "tests.cells_twice")  # else runpy warns
    with pytest.raises(SystemExit) as done:
        runpy.run_module("tests.cells_twice", run_name="__main__")
    assert not done.value.code
    assert "failed when run again: # Title of 01_a, TypeError" in capsys.readouterr().err
    executed = tmp_path / "results" / "quick" / "01_a" / "01_a.ipynb"
    (found,) = failures(executed)
    assert found.startswith("TypeError")
    assert found.endswith(rebound)
    cells = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    assert cells[-1].outputs[0].data["text/plain"] == "2", "the copy shows the first run"
    assert [cell.execution_count for cell in cells] == [1, 3, 5, 7, 9, 11], "each was executed twice"
