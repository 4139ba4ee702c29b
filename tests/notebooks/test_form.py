"""What every notebook keeps to, so that a student meets the same shape in each; nothing is run here."""

import ast
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONGEST = 25


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request):
    return nbformat.read(request.param, as_version=4).cells


def code(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


def test_it_opens_with_its_only_title_then_goal_neighbours_and_run_time(cells):
    lines = [line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    assert cells[0].source.startswith("# ")
    assert len([line for line in lines if line.startswith("# ")]) == 1
    opening = "\n".join(cell.source for cell in cells[:5])
    assert all(f"**{word}.**" in opening for word in ("Goal", "Neighbours", "Run time"))


def test_one_cell_has_the_parameters_and_they_are_literals(cells):
    (parameters,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    statements = ast.parse(parameters.source).body
    assert all(isinstance(statement, ast.Assign) for statement in statements)
    values = {statement.targets[0].id: ast.literal_eval(statement.value) for statement in statements}
    assert {"world", "seed", "device", "output_dir"} <= values.keys()


def test_code_cells_are_short(cells):
    lengths = [len(cell.source.splitlines()) for cell in code(cells)]
    assert max(lengths) <= LONGEST
    assert sorted(lengths)[len(lengths) // 2] <= 10


def test_a_step_is_explained_before_it_is_taken(cells):
    bare = [
        after.source.splitlines()[0]
        for before, after in pairwise(cells)
        if before.cell_type == after.cell_type == "code"
    ]
    assert bare == []


def test_it_is_committed_without_outputs(cells):
    assert all(not cell.outputs and cell.execution_count is None for cell in code(cells))


def test_it_ends_with_exercises_and_their_solutions(cells):
    assert any("## Exercises" in cell.source for cell in cells)
    assert any("solution" in cell.metadata.get("tags", []) for cell in cells)
