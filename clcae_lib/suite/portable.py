"""A run's report as one page to send to somebody, with every number beside it in one file."""

import json
from pathlib import Path

import pandas as pd

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.suite._collect import read_figures
from clcae_lib.suite._errors import SuiteError
from clcae_lib.suite._report import write_report


def portable_report(source: Path, *, target: Path | None = None, notebooks: Path | None = None) -> Path:
    """Writes `index.html`, which needs no other file, and `tables.csv`; returns the page.

    `tables.csv` holds the metrics and every recorded table, a cell a row: `notebook`, `table`, `row`,
    `column` and `value`.

    Args:
        source: a run's folder, such as results/quick or results/reference.
        target: where the two go; `report` in the run's folder if None.
        notebooks: where the notebooks lie, for their titles.

    Raises:
        SuiteError: there is no run in `source`.
    """
    if not (source / "status.json").is_file() or not (source / "metrics.csv").is_file():
        raise SuiteError(f"{source} holds no run (status.json, metrics.csv); `clcae run` makes one")
    status = json.loads((source / "status.json").read_text(encoding="utf-8"))
    metrics = pd.read_csv(
        source / "metrics.csv", keep_default_na=False, na_values={"low": [""], "high": [""]}
    )
    target = target or source / "report"
    with atomic_path(target / "tables.csv") as partial:
        _cells(source, [outcome["notebook"] for outcome in status["notebooks"]], metrics).to_csv(
            partial, index=False
        )
    place = notebooks or paths.notebooks_dir()
    return write_report(source, status=status, metrics=metrics, notebooks=place, portable=target)


def _cells(source: Path, names: list[str], metrics: pd.DataFrame) -> pd.DataFrame:
    """The metrics, then every table that a notebook recorded, cell by cell."""
    tables = {(name, "metrics"): part for name, part in metrics.groupby("notebook", sort=False)}
    for name in names:
        files = [figure["file"] for figure in read_figures(source / name)]
        tables |= {
            (name, Path(file).stem): pd.read_csv(source / name / file)
            for file in files
            if file.endswith(".csv")
        }
    parts = [
        table.reset_index(drop=True)
        .rename_axis("row")
        .reset_index()
        .melt(id_vars="row", var_name="column", value_name="cell")
        .rename(columns={"cell": "value"})
        .assign(notebook=name, table=title)
        for (name, title), table in tables.items()
    ]
    columns = ["notebook", "table", "row", "column", "value"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)
