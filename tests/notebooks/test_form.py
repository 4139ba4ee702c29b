"""What every notebook keeps to, so that a student meets the same shape in each; nothing is run here."""

import ast
import re
import symtable
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONGEST, USUAL = 25, 14


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request):
    return nbformat.read(request.param, as_version=4).cells


def code(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


OPENING = ("**After this notebook you can**", "**Prerequisites.**", "**Related notebooks.**", "**Time.**")


def test_it_opens_with_its_only_title_then_objectives_prerequisites_and_time(cells):
    lines = [line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    assert cells[0].source.startswith("# ")
    assert len([line for line in lines if line.startswith("# ")]) == 1
    opening = "\n".join(cell.source for cell in cells[:5])
    assert [part for part in OPENING if part not in opening] == []


def test_a_figure_comes_before_the_first_code(cells):
    assert re.search(r"!\[.+\]\(figures/.+\)", "\n".join(cell.source for cell in cells[:3]))


def names(cell):
    """Names that a cell takes from other cells, and names that it assigns."""
    taken, bound, assigned = set(), set(), set()
    for statement in ast.parse(cell.source).body:
        module = symtable.symtable(ast.unparse(statement), cell.id, "exec")
        own = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned()}
        read, tables = set(), [module]
        while tables:
            table = tables.pop()
            tables += table.get_children()
            inner = table is not module
            read |= {
                s.get_name()
                for s in table.get_symbols()
                if s.is_referenced() and (s.is_global() or not inner)
            }
        if isinstance(statement, ast.AugAssign):
            read.add(ast.unparse(statement.target))
        at_once = isinstance(
            statement, ast.Assign | ast.AugAssign
        )  # its value is read before its target is bound
        taken |= read - bound if at_once else read - bound - own
        imported = {s.get_name() for s in module.get_symbols() if s.is_imported()}
        bound, assigned = bound | own | imported, assigned | own
    return taken, assigned


def test_a_parameter_is_not_bound_again(cells):
    (parameters,) = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    _, wanted = names(parameters)
    again = {cell.id: wanted & names(cell)[1] for cell in code(cells) if cell is not parameters}
    assert {cell: sorted(found) for cell, found in again.items() if found} == {}


def test_a_name_that_cells_share_is_bound_by_one_of_them(cells):
    """Else a cell that is run again, or a section out of order, finds what another cell put there."""
    binders, takers = defaultdict(list), defaultdict(list)
    for cell in code(cells):
        taken, assigned = names(cell)
        for name in assigned:
            binders[name].append(cell.id)
        for name in taken:
            takers[name].append(cell.id)
    shared = {
        name: (cells, takers[name]) for name, cells in binders.items() if name in takers and len(cells) > 1
    }
    assert shared == {}


def test_code_cells_are_short(cells):
    lengths = [len(cell.source.splitlines()) for cell in code(cells)]
    assert max(lengths) <= LONGEST
    assert sorted(lengths)[len(lengths) // 2] <= USUAL


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
    solutions = [cell for cell in cells if "solution" in cell.metadata.get("tags", [])]
    assert solutions
    assert all(cell.metadata.jupyter.source_hidden for cell in solutions)
