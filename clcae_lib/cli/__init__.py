"""The `clcae` command. Commands import torch and Jupyter only when they run, so that `--help` is fast."""

import io
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from clcae_lib.cli import bench, files, invert, suite, train, worlds
from clcae_lib.cli.common import report_user_errors


class Commands(TyperGroup):
    """A group of commands that report an error of the request in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with report_user_errors():
            return super().invoke(ctx)


app = typer.Typer(
    cls=Commands,
    help="CLCAE: invert images into StyleGAN2, edit them, and measure the edits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(suite.app)
app.add_typer(train.app, name="train")
app.add_typer(worlds.app, name="world")
app.add_typer(worlds.commands)
app.add_typer(files.app)
app.add_typer(invert.app)
app.add_typer(bench.app)


@app.callback()
def own_process() -> None:
    """Switch TF32 off for this process and its kernels, and let it print any character."""
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names and cards may hold any character
