"""The `clcae` command, with every code cell of a notebook executed and then executed once more in one kernel.

    python -m tests.cells_twice run --profile smoke --only 03 --output results/twice --force

The executed copy shows each cell's first run. What a cell raises the second time ends no run: it is printed
at the end, and stands in the copy's metadata (see `failures`).
"""

import copy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient.exceptions import CellExecutionError

from clcae_lib.cli import app
from clcae_lib.suite import execute

_KEY = "failed_when_run_again"
_found: list[str] = []


class _Twice(execute.NotebookClient):
    """Executes each cell twice; only the first time counts.

    Its kernels seldom collect garbage, which would take a quarter of the time of imports.
    """

    def start_new_kernel_client(self) -> Any:
        client = super().start_new_kernel_client()
        client.execute("__import__('gc').set_threshold(100_000)", silent=True)
        return client

    def execute_cell(self, cell: Any, cell_index: int, *arguments: Any, **options: Any) -> Any:
        executed = super().execute_cell(cell, cell_index, *arguments, **options)
        if cell.cell_type == "code" and cell.source.strip():
            try:
                super().execute_cell(copy.deepcopy(cell), cell_index, *arguments, **options)
            except CellExecutionError as error:
                failure = {"cell": cell_index, "error": f"{error.ename}: {error.evalue}"}
                self.nb.metadata.setdefault(_KEY, []).append(failure)
                title = self.nb.cells[0].source.partition("\n")[0]
                _found.append(f"{title}, {failure['error']}, in:\n{cell.source}\n")
            self.nb.cells[cell_index] = executed
        return executed


def failures(executed: Path) -> Iterator[str]:
    """What cells of an executed copy raised when they were run again, each with the cell's source."""
    node = nbformat.read(executed, as_version=4)
    for failure in node.metadata.get(_KEY, []):
        yield f"{failure['error']}, in:\n{node.cells[failure['cell']].source}"


if __name__ == "__main__":
    execute.NotebookClient = _Twice
    try:
        app()
    finally:
        for line in _found:
            print(f"failed when run again: {line}", file=sys.stderr)
