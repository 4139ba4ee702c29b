"""Run the `clcae` command with `python -m clcae_lib.cli`."""

from clcae_lib.cli import app

app(prog_name="clcae")
