"""Run the `clcae` command with `python -m clcae_lib.cli`."""

from clcae_lib.cli import app

if __name__ == "__main__":  # a spawned process imports this module too
    app(prog_name="clcae")
