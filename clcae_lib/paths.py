"""Paths on disk: the repository, the worlds' data and the results of runs.

Each place can be moved with an environment variable (`CLCAE_ROOT`, `CLCAE_DATA`, `CLCAE_RESULTS`,
`CLCAE_CACHE`); without one, everything is in the checkout the package was installed from.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clcae_lib.errors import ClcaeError

STATE = "CLCAE_STATE"
NAME = r"\w[\w-]{0,99}"
"""Pattern of names of worlds and notebooks; no such name is a path to another folder."""


def _place(variable: str, default: Path) -> Path:
    named = os.environ.get(variable)
    return Path(named).expanduser().resolve() if named else default


def root() -> Path:
    """Return the checkout, which holds `notebooks/` and `data/`; without one, the working directory."""
    checkout = Path(__file__).resolve().parent.parent
    return _place("CLCAE_ROOT", checkout if (checkout / "pyproject.toml").is_file() else Path.cwd())


def notebooks_dir() -> Path:
    """Return the folder of the notebooks, with their list `suite.yaml` and their `profiles/`."""
    return root() / "notebooks"


def data_dir() -> Path:
    """Return the folder of the worlds' weights and photographs, one folder per world (`CLCAE_DATA`)."""
    return _place("CLCAE_DATA", root() / "data")


@contextmanager
def environment(variable: str, value: str) -> Iterator[None]:
    """Set an environment variable of this process and of those that it starts, inside the block only."""
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        yield
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before


def world_dir(name: str) -> Path:
    """Return the folder of one world, for example `data/portraits`; it need not exist.

    A name that could lead to another folder raises a ClcaeError.
    """
    if not re.fullmatch(NAME, name):
        raise ClcaeError(f"{name[:100]!r} cannot be a world's name: use letters, digits, - and _")
    return data_dir() / name


def results_dir() -> Path:
    """Return the folder that runs and sweeps write to (`CLCAE_RESULTS`)."""
    return _place("CLCAE_RESULTS", root() / "results")


def state_dir(default: str | Path) -> Path:
    """Return the folder for the checkpoints of a notebook's training: `default`, or a run's own in a sweep.

    A sweep names the folder by the run's key and removes it when the run is complete.
    """
    return _place(STATE, Path(default))


def cache_dir() -> Path:
    """Return the folder of results that can be computed again, such as rendered images (`CLCAE_CACHE`)."""
    return _place("CLCAE_CACHE", results_dir() / "cache")
