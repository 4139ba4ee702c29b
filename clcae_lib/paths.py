"""Where things lie on disk: the repository, the worlds' data and the results of runs.

Each place can be moved with an environment variable (`CLCAE_ROOT`, `CLCAE_DATA`, `CLCAE_RESULTS`,
`CLCAE_CACHE`); without one, everything lies in the checkout the package was installed from.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _place(variable: str, default: Path) -> Path:
    """The folder an environment variable names, else the default."""
    named = os.environ.get(variable)
    return Path(named).expanduser().resolve() if named else default


def root() -> Path:
    """The checkout, which holds `notebooks/` and `data/`; the working directory for a plain installation."""
    checkout = Path(__file__).resolve().parent.parent
    return _place("CLCAE_ROOT", checkout if (checkout / "pyproject.toml").is_file() else Path.cwd())


def notebooks_dir() -> Path:
    """The ordered notebooks, with their list `suite.yaml` and their `profiles/`."""
    return root() / "notebooks"


def data_dir() -> Path:
    """The worlds' weights and photographs, one folder a world (`CLCAE_DATA`)."""
    return _place("CLCAE_DATA", root() / "data")


@contextmanager
def using_data_dir(folder: Path | str) -> Iterator[None]:
    """Inside, `data_dir` is this folder, in this process and in those that it starts."""
    before = os.environ.get("CLCAE_DATA")
    os.environ["CLCAE_DATA"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CLCAE_DATA"]
        else:
            os.environ["CLCAE_DATA"] = before


def world_dir(name: str) -> Path:
    """The folder of one world, for example `data/portraits`; it need not exist."""
    return data_dir() / name


def results_dir() -> Path:
    """What runs and sweeps write (`CLCAE_RESULTS`)."""
    return _place("CLCAE_RESULTS", root() / "results")


STATE = "CLCAE_STATE"


def state_dir(default: str | Path) -> Path:
    """Where a notebook keeps what an interrupted training resumes from: a sweep names it, else `default`.

    A sweep gives each run a folder that belongs to its key, and removes it when the run is complete.
    """
    return _place(STATE, Path(default))


def cache_dir() -> Path:
    """What can be made again at any time, such as rendered images (`CLCAE_CACHE`)."""
    return _place("CLCAE_CACHE", results_dir() / "cache")
