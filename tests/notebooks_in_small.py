"""Tiny notebooks for the tests of the runner; the real ones run in `tests/notebooks`."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import nbformat

PARAMETERS = 'world = "tiny"\nseed = 0\ndevice = "cpu"\noutput_dir = "results/interactive/x"\n'

RECORD = """
import json, pathlib
rows = [{{"notebook": "{name}", "metric": "count", "value": {value}, "source": "live", "headline": True}}]
pathlib.Path(output_dir, "metrics.json").write_text(json.dumps(rows))
"""
"""Records one number as the `Recorder` does, but imports nothing heavy."""


def record(name: str, value: object) -> str:
    """The code of a cell that records one number, an expression."""
    return RECORD.format(name=name, value=value)


def write_notebook(path: Path, *cells: str, parameters: str = PARAMETERS) -> None:
    """Write a notebook with a title, a parameters cell and the given code cells."""
    node = nbformat.v4.new_notebook()
    node.cells = [
        nbformat.v4.new_markdown_cell(f"# Title of {path.stem}"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *(nbformat.v4.new_code_cell(cell) for cell in cells),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, path)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait as long as it takes; pytest ends what hangs."""
    while not condition():
        time.sleep(0.1)


def alive(process: int) -> bool:
    """Whether a process is still there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
