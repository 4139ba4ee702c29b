"""What all tests share: one place for temporary suites, few threads, no windows."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
import yaml

import clcae_lib.suite  # noqa: F401  (before nbformat, which then needs a second less)
from tests.notebooks_in_small import write_notebook

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import the tests without garbage collection, which would take a third of the time.

    Later collections leave out what the imports made: it stays until the process ends.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="module")
def _renders_of_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def shared_renders(_renders_of_module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache of renders, in small blocks, for the tests of a file that one worker runs."""
    monkeypatch.setenv("CLCAE_CACHE", str(_renders_of_module))
    monkeypatch.setattr("clcae_lib.worlds.portraits.dataset._BLOCK_AT_64", 32)  # no more than is asked for


@pytest.fixture
def repository() -> Path:
    """The checkout under test."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that makes a suite in a temporary repository and returns its notebooks folder.

    It takes the code cells of each notebook by name, what each needs, and the profile's content.
    """
    for variable in ("CLCAE_DATA", "CLCAE_RESULTS", "CLCAE_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CLCAE_ROOT", str(tmp_path))

    def make(cells: dict[str, list[str]], *, needs: dict | None = None, profile: dict | None = None) -> Path:
        folder = tmp_path / "notebooks"
        for name, sources in cells.items():
            write_notebook(folder / f"{name}.ipynb", *sources)
        entries = [{"name": name, "needs": (needs or {}).get(name, [])} for name in cells]
        (folder / "suite.yaml").write_text(yaml.safe_dump({"notebooks": entries}))
        (folder / "profiles").mkdir(exist_ok=True)
        (folder / "profiles" / "quick.yaml").write_text(yaml.safe_dump(profile or {"about": "a test"}))
        return folder

    return make
