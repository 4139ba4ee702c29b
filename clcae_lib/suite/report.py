"""The report: one page with numbers and images first, and links to the notebooks."""

import base64
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import nbformat
import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from clcae_lib import paths
from clcae_lib.files import write_text
from clcae_lib.settings import explain
from clcae_lib.suite.collect import COLUMNS, read_csv, read_table, table
from clcae_lib.suite.record import Figure, NotebookError, SuiteError, check_results, read_figures

_FIRST = 8  # rows of the main table if no notebook marked a headline
_LONGEST = 200  # rows of a recorded table in the page


class Outcome(BaseModel, strict=True, frozen=True):
    """The outcome of one notebook.

    `done`: run now; `unchanged`: nothing it depends on changed; `earlier`: not selected, has earlier results;
    `failed`; `stopped`: a notebook it needs failed; `absent`: not selected, has no results.
    """

    notebook: Annotated[str, Field(pattern=f"^{paths.NAME}$")]
    state: Literal["done", "unchanged", "earlier", "failed", "stopped", "absent"]
    seconds: FiniteFloat = 0.0
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether the notebook has results."""
        return self.state in ("done", "unchanged", "earlier")

    @property
    def note(self) -> str:
        """The time and the reason, if there are any."""
        time_text = f"{self.seconds:.0f} s" if self.state in ("done", "failed") else ""
        return "  ".join(filter(None, [time_text, self.reason]))


class Status(BaseModel, strict=True):
    """The outcome of a run, as `status.json` holds it; `finished` is a time in UTC."""

    profile: str
    about: str
    notebooks: list[Outcome]
    finished: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


def write_run(folder: Path, status: Status, rows: list[dict[str, Any]]) -> None:
    """Write `metrics.csv`, of rows with their provenance, and `status.json` into a run's folder."""
    write_text(folder / "metrics.csv", table(rows).to_csv(index=False))
    write_text(folder / "status.json", status.model_dump_json(indent=1) + "\n")


def read_run(source: Path) -> tuple[Status, pd.DataFrame]:
    """Return what `status.json` and `metrics.csv` of a run's folder hold.

    Raises:
        SuiteError: there is no run in `source`, it is damaged, or a path leads out of `source`.
    """
    files = [source / "status.json", source / "metrics.csv"]
    if not all(map(os.path.isfile, files)):
        raise SuiteError(f"{source} holds no run (status.json, metrics.csv); `clcae run` makes one")
    for path in files:
        if path.resolve().parent != source.resolve():
            raise SuiteError(f"{path} is not a file of {source}; remove it")
    try:
        status = Status.model_validate_json(files[0].read_bytes())
    except ValidationError as error:
        raise SuiteError(f"{files[0]}: {explain(error)}; make it again with `clcae run`") from error
    for folder in [source / outcome.notebook for outcome in status.notebooks if outcome.good]:
        try:
            check_results(folder)
        except NotebookError as error:
            raise SuiteError(f"{folder}: {error}") from error
    return status, read_table(files[1], COLUMNS)


def write_report(source: Path, *, portable: Path | None = None) -> Path:
    """Write `index.html` into a run's folder and return its path.

    With `portable`, another folder for the page, every image and table is embedded in the page, and its only
    link is to `tables.csv` in the same folder. Without a run in `source`, a SuiteError is raised.
    """
    status, metrics = read_run(source)
    environment = Environment(
        loader=PackageLoader("clcae_lib.suite"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    inline = portable is not None
    chapters = [_chapter(source, outcome, metrics, inline) for outcome in status.notebooks]
    marked = metrics[metrics["headline"].astype(bool)]
    provenance = ("world", "seed", "device", "commit", "versions") if len(metrics) else ()
    page = environment.get_template("report.html.j2").render(
        status=status,
        chapters=chapters,
        main=compare(marked if len(marked) else metrics.head(_FIRST)),
        frames=[frame for chapter in chapters for frame in chapter["frames"] if frame["headline"]],
        images=[image for chapter in chapters for image in chapter["headlines"]],
        provenance=[(name, "; ".join(dict.fromkeys(map(str, metrics[name])))) for name in provenance],
        bad=[chapter for chapter in chapters if chapter["state"] in ("failed", "stopped")],
        portable=inline,
        log=not inline and (source / "run.log").is_file(),
        minutes=sum(outcome.seconds for outcome in status.notebooks) / 60,
    )
    return write_text((portable or source) / "index.html", page)


def _chapter(source: Path, outcome: Outcome, metrics: pd.DataFrame, inline: bool) -> dict[str, Any]:
    """Return the content of the page for one notebook; with `inline` it has no links.

    Headline tables, and with `inline` all tables, are shown; the others are links.
    """
    name, good = outcome.notebook, outcome.good
    figures = read_figures(source / name) if good else []
    images = [_image(source, name, figure, inline) for figure in figures if figure.is_image]
    tables = [figure for figure in figures if not figure.is_image]
    return {
        **outcome.model_dump(),
        "title": _title(paths.notebooks_dir() / f"{name}.ipynb"),
        "links": [] if inline else _links(source, name, good),
        "tables": [] if inline else [{"file": t.file, "path": f"{name}/{t.file}"} for t in tables],
        "frames": [_frame(source, name, table) for table in tables if inline or table.headline],
        "images": [image for image in images if not image["headline"]],
        "headlines": [image for image in images if image["headline"]],
        "rows": compare(metrics[metrics["notebook"] == name]) if good else [],
    }


def _image(source: Path, name: str, figure: Figure, inline: bool) -> dict[str, Any]:
    """Return an image with its file; a headline's image is embedded in the page."""
    path = f"{name}/{figure.file}"
    with Image.open(source / path) as image:
        wide = image.width > 1.7 * image.height
    src = path
    if inline or figure.headline:
        src = f"data:image/png;base64,{base64.b64encode((source / path).read_bytes()).decode()}"
    shown = {"path": path, "src": src, "title": figure.title, "chapter": name, "wide": wide}
    return shown | {"headline": figure.headline}


def _frame(source: Path, name: str, figure: Figure) -> dict[str, Any]:
    """Return a recorded table for the page, without empty columns.

    Numbers are rounded for display, and sorted by exact value.
    """
    frame = read_csv(source / name / figure.file)
    frame = frame.dropna(axis="columns", how="all") if len(frame) else frame
    rows = [[_plain(value) for value in row] for row in frame.head(_LONGEST).itertuples(index=False)]
    cut = f" The first {_LONGEST} of {len(frame):,} rows." if len(frame) > _LONGEST else ""
    return {
        "title": figure.title + cut,
        "name": Path(figure.file).stem,
        "path": f"{name}/{figure.file}",
        "chapter": name,
        "headline": figure.headline,
        "columns": list(frame.columns),
        "rows": rows,
    }


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {"text": str(value), "sort": None}
    return {"text": "", "sort": ""} if pd.isna(value) else {"text": number(value), "sort": value}


def _links(source: Path, name: str, good: bool) -> list[tuple[str, str]]:
    """Return texts and paths of the files there are: the executed notebook, and the traceback of a failure.

    A kept run (`reference.keep_report`) has its executed notebooks in the folder `notebooks`.
    """
    folder = name if good else f"failed/{name}"
    links = [("read", f"{folder}/{name}.html"), ("executed notebook", f"{folder}/{name}.ipynb")]
    links += [("executed notebook", f"notebooks/{name}.ipynb")] if good else []
    links += [("traceback", f"{folder}/traceback.txt")]
    return [(text, path) for text, path in links if (source / path).is_file()]


def _title(notebook: Path) -> str:
    """Return the notebook's first heading, or the file's name if it has none or is not a notebook."""
    if not notebook.is_file():
        return notebook.stem
    for cell in nbformat.read(notebook, as_version=4).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else []:
            if line.startswith("# "):
                return line[2:].strip()
    return notebook.stem


def compare(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows of a table with the live and reference values of each quantity side by side."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in metrics.to_dict("records"):
        key = (record["notebook"], record["metric"], record["subject"])
        row = rows.setdefault(key, {**record, "live": None, "reference": None})
        known = not (pd.isna(record["low"]) or pd.isna(record["high"]))
        interval = f"{number(record['low'])} to {number(record['high'])}" if known else ""
        value = record["value"]
        row[record["source"]] = {"value": number(value), "interval": interval, "sort": value}
    return list(rows.values())


def number(value: float) -> str:
    """Return a number with three significant digits, or as an integer if it is large."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def portable_report(source: Path, *, target: Path | None = None) -> Path:
    """Write `index.html`, which needs no other file, and `tables.csv`; return the page.

    `tables.csv` holds the metrics and every recorded table, one row per cell: `notebook`, `table`, `row`,
    `column` and `value`. Both are written to `target`, or to `report` in the run's folder `source`.
    """
    status, metrics = read_run(source)
    tables = {(name, "metrics"): part for name, part in metrics.groupby("notebook", sort=False)}
    for name in [outcome.notebook for outcome in status.notebooks if outcome.good]:
        files = [source / name / figure.file for figure in read_figures(source / name)]
        tables |= {(name, file.stem): read_csv(file) for file in files if file.suffix == ".csv"}
    parts = [
        pd.DataFrame(
            {
                "notebook": name,
                "table": title,
                "row": np.tile(np.arange(len(frame)), frame.shape[1]),
                "column": np.repeat(frame.columns.to_numpy(), len(frame)),
                "value": frame.astype(object).to_numpy().ravel("F"),
            }
        )
        for (name, title), frame in tables.items()
    ]
    columns = ["notebook", "table", "row", "column", "value"]
    cells = pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)
    target = target or source / "report"
    write_text(target / "tables.csv", cells.to_csv(index=False))
    return write_report(source, portable=target)
