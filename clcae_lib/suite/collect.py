"""Join the results that notebooks recorded into one table, each number with its origin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clcae_lib import paths
from clcae_lib.suite.record import Record, SuiteError, read_metrics, read_record

COLUMNS = (
    *("notebook", "metric", "subject", "value", "low", "high", "unit", "source", "better"),
    *("headline", "profile", "seed", "world", "device", "commit", "versions", "seconds"),
)
SWEEP_COLUMNS = ("variant", *COLUMNS)
COMMITTED = {"reference": "ablations"} | {f"{n} steps": f"ablations_{n}" for n in (1500, 600, 160)}
"""Folders of the committed ablations under reference/sweeps, by origin; claims use the first one."""


def provenance_rows(folder: Path, record: Record, **extra: Any) -> list[dict[str, Any]]:
    """Return a folder's rows, each with the provenance of its run's record."""
    shared = {name: getattr(record, name) for name in ("profile", "device", "commit", "versions", "seconds")}
    shared |= {name: record.parameters[name] for name in ("seed", "world")} | extra
    return [metric.model_dump() | shared for metric in read_metrics(folder)]


def table(rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> pd.DataFrame:
    """Return rows as a table with these columns and one type for each column."""
    frame = pd.DataFrame(rows, columns=list(columns))
    for name in ("value", "low", "high", "seconds"):
        frame[name] = frame[name].astype("float64")
    for name in ("subject", "unit", "better"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "")
    return frame


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Return a table from a CSV file, as pandas reads it; raise a SuiteError if it is damaged."""
    try:
        return pd.read_csv(path, **options)
    except (ValueError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise SuiteError(f"{path}: cannot be read as a table ({reason}); make it again") from error


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return these columns of a table that `table` made and that was written as CSV.

    Raises:
        SuiteError: it is damaged, a column is missing, or a value is not a finite number.
    """
    numbers = dict.fromkeys(("value", "low", "high", "seconds"), "float64")
    empty = {name: [""] for name in ("low", "high", "seconds")}
    frame = read_csv(path, keep_default_na=False, na_values=empty, dtype=numbers)
    if missing := [name for name in columns if name not in frame.columns]:
        raise SuiteError(f"{path} lacks the columns {', '.join(missing)}; make it again with --force")
    if not np.isfinite(frame["value"]).all():
        raise SuiteError(f"{path}: a value is not a finite number; make it again")
    return frame[list(columns)]


def read_runs(folder: str | Path) -> pd.DataFrame:
    """Return the runs of a sweep from `runs.csv` in its folder; raise a SuiteError if the file is missing."""
    path = Path(folder) / "runs.csv"
    if not path.is_file():
        raise SuiteError(f"{path} does not exist; `clcae sweep ablations` makes it")
    return read_table(path, SWEEP_COLUMNS)


def ablation_runs(output_dir: str | Path) -> pd.DataFrame:
    """Return all existing runs of the ablation, labelled by `origin`; the table may be empty.

    The columns are those of `runs.csv` and `origin`: "reference" for the committed runs, "600 steps" and its
    like for committed runs of fewer steps, "sweep" for this machine's sweep, "live" for the current run's
    ablation, whose folder is next to `output_dir`, the report notebook's output folder.
    """
    folders = {origin: _sweep_folder("reference", name) for origin, name in COMMITTED.items()}
    folders["sweep"] = _sweep_folder("sweep", "ablations")
    there = {origin: folder for origin, folder in folders.items() if (folder / "runs.csv").is_file()}
    frames = [read_runs(folder).assign(origin=origin) for origin, folder in there.items()]
    own = paths.root() / Path(output_dir).parent / "05_metric_ablations"
    record = read_record(own)
    rows = provenance_rows(own, record, variant=record.parameters.get("variant", "")) if record else []
    frames.append(table(rows, SWEEP_COLUMNS).assign(origin="live"))
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[-1]


def sweep_tables(name: str, *, origins: Sequence[str] = ("sweep", "reference")) -> dict[str, pd.DataFrame]:
    """Return the joined Parquet tables of a sweep, by name: this machine's sweep, or else the committed one.

    Each has the column `origin`, "sweep" or "reference"; the first of `origins` with tables is used. The
    result may be empty.
    """
    for origin in origins:
        files = sorted(_sweep_folder(origin, name).glob("*.parquet"))
        found = [path for path in files if path.stem != "runs"]
        if found:
            return {path.stem: pd.read_parquet(path).assign(origin=origin) for path in found}
    return {}


def _sweep_folder(origin: str, name: str) -> Path:
    return paths.results_dir() / ("" if origin == "sweep" else origin) / "sweeps" / name
