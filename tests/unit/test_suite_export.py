"""Pages of executed notebooks need no network."""

import re
from pathlib import Path

import nbformat
import pytest

from clcae_lib.suite.export import to_html

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_equations_are_mathml_and_nothing_is_fetched(path):
    notebook = nbformat.read(path, as_version=4)
    html = to_html(notebook, str(path.parent))
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert html.count('display="block"') == len(re.findall(r"\$\$.+?\$\$", text, re.DOTALL))
    assert "mathjax" not in html.lower()
    assert re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="http[^"]*', html) == []


def test_a_dollar_in_code_is_no_equation():
    cell = nbformat.v4.new_markdown_cell("Pay `$5` or `$6`, and $x^2$.")
    assert to_html(nbformat.v4.new_notebook(cells=[cell]), ".").count("<math") == 1
