"""Keeping a report: a run's page, numbers and pictures as `results/reference/`, small enough to commit."""

import json
import shutil
from pathlib import Path

import pandas as pd

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.suite._errors import SuiteError
from clcae_lib.suite._report import write_report

_KEPT = (".png", ".csv", ".json")  # executed notebooks and their HTML copies stay behind


def keep_report(source: Path, *, target: Path | None = None, notebooks: Path | None = None) -> Path:
    """Copies a complete run's report without the executed notebooks; returns the new page.

    The runs of sweeps, where there are any, become the committed reference runs.

    Args:
        source: a run's folder, such as results/quick.
        target: results/reference if None; its notebooks' folders are replaced.
        notebooks: where the notebooks lie, for their titles.

    Raises:
        SuiteError: there is no run in `source`, or not every notebook of it is good.
    """
    target = target or paths.results_dir() / "reference"
    status = _complete(source)
    for outcome in status["notebooks"]:
        _copy(source / outcome["notebook"], target / outcome["notebook"])
    for name in ("metrics.csv", "status.json"):
        _copy_file(source / name, target / name)
    for path in sorted((source.parent / "sweeps").glob("*/*")):
        if path.is_file() and path.suffix in (".csv", ".parquet") and path.name != "runs.parquet":
            _copy_file(path, target / "sweeps" / path.parent.name / path.name)
    metrics = pd.read_csv(
        target / "metrics.csv", keep_default_na=False, na_values={"low": [""], "high": [""]}
    )
    return write_report(
        target, status=status, metrics=metrics, notebooks=notebooks or paths.root() / "notebooks"
    )


def _complete(source: Path) -> dict:
    path = source / "status.json"
    if not path.is_file():
        raise SuiteError(f"{path} does not exist; `clcae run` makes it")
    status = json.loads(path.read_text(encoding="utf-8"))
    bad = [o["notebook"] for o in status["notebooks"] if o["state"] not in ("done", "unchanged", "earlier")]
    if bad:
        raise SuiteError(f"{source} is not complete: {', '.join(bad)}; only a whole run is kept")
    return status


def _copy(source: Path, target: Path) -> None:
    """Replaces a notebook's kept files by those of this run."""
    shutil.rmtree(target, ignore_errors=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in _KEPT:
            _copy_file(file, target / file.name)


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)
