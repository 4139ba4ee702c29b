"""Gathers what notebooks recorded into one table, each number with where it comes from."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from clcae_lib import paths
from clcae_lib.suite._errors import NotebookError, SuiteError
from clcae_lib.suite._record import Record, read_record

COLUMNS = (
    *("notebook", "metric", "subject", "value", "low", "high", "unit", "source", "better"),
    *("headline", "profile", "seed", "world", "device", "commit", "versions", "seconds"),
)
SWEEP_COLUMNS = ("variant", *COLUMNS)
_ROW = {
    "notebook": str,
    "metric": str,
    "subject": str | None,
    "value": int | float,
    "low": int | float | None,
    "high": int | float | None,
    "unit": str | None,
    "source": str,
    "better": str | None,
    "headline": bool | None,
}
"""The types of a row's entries; where None is among them, the entry may be left out."""


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that a notebook recorded in `metrics.json`.

    Raises:
        NotebookError: there is no such file, it is empty, or a row is wrong.
    """
    path = folder / "metrics.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotebookError("it recorded no metrics: output_dir holds no metrics.json") from error
    except ValueError as error:
        raise NotebookError(f"its metrics.json is no JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise NotebookError("its metrics.json holds no rows")
    for row in rows:
        _check_row(row)
    return rows


def _check_row(row: Any) -> None:
    if not isinstance(row, dict):
        raise NotebookError(f"a row of its metrics.json is no object with names and values: {row!r}")
    wrong = [name for name, kind in _ROW.items() if not isinstance(row.get(name), kind)]
    numbers = [row[name] for name in ("value", "low", "high") if row.get(name) is not None]
    if wrong or not all(map(_is_finite, numbers)) or row["source"] not in ("live", "reference"):
        raise NotebookError(
            f"a row of its metrics.json is wrong ({', '.join(wrong) or 'number or source'}): {row}"
        )


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond the largest float
        return False


def read_figures(folder: Path) -> list[dict[str, Any]]:
    """The images and tables in a notebook's folder, as recorded, then the unrecorded by name.

    Raises:
        NotebookError: `figures.json` is wrong.
    """
    path = folder / "figures.json"
    try:
        listed = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except ValueError as error:
        raise NotebookError(f"its figures.json is no JSON: {error}") from error
    if not isinstance(listed, list) or not all(_is_figure(figure) for figure in listed):
        raise NotebookError("its figures.json is no list of objects with a `file`")
    known = {figure["file"] for figure in listed}
    rest = [{"file": file.name} for file in sorted(folder.glob("*.png")) if file.name not in known]
    blank = {"caption": "", "headline": False}
    return [{**blank, **figure} for figure in [*listed, *rest] if (folder / figure["file"]).is_file()]


def _is_figure(figure: Any) -> bool:
    return isinstance(figure, dict) and isinstance(figure.get("file"), str)


def check_results(folder: Path) -> None:
    """Reads what a notebook left as the report will read it.

    Raises:
        NotebookError: there are no metrics, or metrics, figures or images cannot be read.
    """
    read_rows(folder)
    for figure in read_figures(folder):
        if figure["file"].endswith(".png"):
            try:
                with Image.open(folder / figure["file"]) as image:
                    image.verify()
            except (OSError, SyntaxError) as error:
                raise NotebookError(f"its image {figure['file']} cannot be read: {error}") from error


def complete_record(folder: Path) -> Record | None:
    """The record of the complete run that a folder holds; None without one, or if its results are damaged."""
    record = read_record(folder)
    try:
        if record is not None:
            check_results(folder)
    except NotebookError:
        return None
    return record


def provenance_rows(folder: Path, record: Record, **extra: Any) -> list[dict[str, Any]]:
    """A folder's rows, each with the provenance that its run's record gives."""
    shared = {name: getattr(record, name) for name in ("profile", "device", "commit", "versions", "seconds")}
    shared |= {name: record.parameters[name] for name in ("seed", "world")}
    blank = {"subject": "", "low": None, "high": None, "unit": "", "better": "", "headline": False}
    return [{**blank, **row, **shared, **extra} for row in read_rows(folder)]


def table(rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> pd.DataFrame:
    """Rows as a table with these columns and one type a column."""
    frame = pd.DataFrame(rows, columns=list(columns))
    for name in ("value", "low", "high", "seconds"):
        frame[name] = frame[name].astype("float64")
    for name in ("subject", "unit", "better"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "")
    return frame


def read_runs(folder: str | Path) -> pd.DataFrame:
    """The runs of a sweep: what `runs.csv` in its folder holds.

    Raises:
        SuiteError: there is no such file, or a column is missing.
    """
    path = Path(folder) / "runs.csv"
    if not path.is_file():
        raise SuiteError(f"{path} does not exist; `clcae sweep ablations` makes it")
    frame = pd.read_csv(path, keep_default_na=False, na_values={"low": [""], "high": [""], "seconds": [""]})
    missing = [name for name in SWEEP_COLUMNS if name not in frame.columns]
    if missing:
        raise SuiteError(f"{path} lacks the columns {', '.join(missing)}; make it again with --force")
    return frame[list(SWEEP_COLUMNS)]


def ablation_runs(output_dir: str | Path, *, notebook: str = "05_metric_ablations") -> pd.DataFrame:
    """All runs of the ablation that there are, labelled by `origin`.

    Args:
        output_dir: the report notebook's output folder; this run's own ablation lies beside it.
        notebook: the ablation's notebook.

    Returns:
        The columns of `runs.csv` with `origin`: "reference" for the committed runs, "sweep" for this
        machine's sweep, "live" for the run at hand. There may be none of any of them.
    """
    results = paths.results_dir()
    origins = {
        "reference": results / "reference" / "sweeps" / "ablations",
        "sweep": results / "sweeps" / "ablations",
    }
    frames = [
        read_runs(path).assign(origin=origin)
        for origin, path in origins.items()
        if (path / "runs.csv").is_file()
    ]
    frames.append(_live_run(paths.root() / Path(output_dir).parent / notebook))
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[-1]


def sweep_tables(name: str, *, origins: Sequence[str] = ("sweep", "reference")) -> dict[str, pd.DataFrame]:
    """The joined Parquet tables of a sweep, by name: this machine's sweep, or else the committed one.

    Each has the column `origin`, "sweep" or "reference". There may be none.

    Args:
        name: of the sweep.
        origins: which of the two are looked for, the first that has any being taken; another name has none.
    """
    results = paths.results_dir()
    folders = {"sweep": results / "sweeps" / name, "reference": results / "reference" / "sweeps" / name}
    for origin in [name for name in origins if name in folders]:
        found = [path for path in sorted(folders[origin].glob("*.parquet")) if path.stem != "runs"]
        if found:
            return {path.stem: pd.read_parquet(path).assign(origin=origin) for path in found}
    return {}


def _live_run(folder: Path) -> pd.DataFrame:
    """The ablation's one run in this profile, if it is there and complete."""
    record = read_record(folder)
    if record is None:
        return pd.DataFrame(columns=[*SWEEP_COLUMNS, "origin"])
    rows = provenance_rows(folder, record, variant=record.parameters.get("variant", ""))
    return table(rows, SWEEP_COLUMNS).assign(origin="live")
