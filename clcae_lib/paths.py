"""Where things are on disk: the repository, the worlds' data and the results of runs.

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
"""What a world or a notebook may be called, so that its name never leads to another folder."""


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
    """Return the folder of the worlds' weights and photographs, one folder a world (`CLCAE_DATA`)."""
    return _place("CLCAE_DATA", root() / "data")


@contextmanager
def environment(variable: str, value: str) -> Iterator[None]:
    """Set a variable of the environment of this process, and of those that it starts, in the block only."""
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

    A name that could be that of another folder is a ClcaeError.
    """
    if not re.fullmatch(NAME, name):
        raise ClcaeError(f"{name[:100]!r} cannot be a world's name: use letters, digits, - and _")
    return data_dir() / name


def results_dir() -> Path:
    """Return the folder that runs and sweeps write to (`CLCAE_RESULTS`)."""
    return _place("CLCAE_RESULTS", root() / "results")


def state_dir(default: str | Path) -> Path:
    """Return where a notebook keeps what an interrupted training resumes from, `default` outside of a sweep.

    A sweep gives each run a folder that belongs to its key, and removes it when the run is complete.
    """
    return _place(STATE, Path(default))


def cache_dir() -> Path:
    """Return the folder of what can be made again at any time, such as rendered images (`CLCAE_CACHE`)."""
    return _place("CLCAE_CACHE", results_dir() / "cache")
