"""The report: one page that needs nothing else, numbers and pictures first, the notebooks behind links."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from clcae_lib.files import atomic_path
from clcae_lib.suite._collect import read_figures

_FIRST = 8  # rows of the main table, where no notebook marked a headline
_LONGEST = 200  # rows of a recorded table in a portable page
_GOOD = ("done", "unchanged", "earlier")


def write_report(
    target: Path,
    *,
    status: Mapping[str, Any],
    metrics: pd.DataFrame,
    notebooks: Path,
    portable: Path | None = None,
) -> Path:
    """Writes `index.html` into a run's folder and returns its path.

    Args:
        target: the run's folder, which holds a folder for each notebook.
        status: the run as `status.json` tells it.
        metrics: the run's metrics, as in `metrics.csv`.
        notebooks: where the notebooks lie, for their titles.
        portable: another folder for the page; every picture and table then goes into the page itself, and
            nothing is linked but `tables.csv` beside it.
    """
    environment = Environment(
        loader=PackageLoader("clcae_lib.suite"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    chapters = [_chapter(target, outcome, metrics, notebooks) for outcome in status["notebooks"]]
    if portable is not None:
        chapters = [_portable(target, chapter) for chapter in chapters]
    page = environment.get_template("report.html.j2").render(
        status=status,
        chapters=chapters,
        main=compare(_headlines(metrics)),
        pictures=[picture for chapter in chapters for picture in chapter["headlines"]],
        provenance=_provenance(metrics),
        bad=[chapter for chapter in chapters if chapter["state"] in ("failed", "stopped")],
        portable=portable is not None,
        log=portable is None and (target / "run.log").is_file(),
        minutes=sum(outcome["seconds"] for outcome in status["notebooks"]) / 60,
    )
    place = (portable or target) / "index.html"
    with atomic_path(place) as partial:
        partial.write_text(page, encoding="utf-8")
    return place


def _portable(target: Path, chapter: dict[str, Any]) -> dict[str, Any]:
    """A chapter with every picture's bytes and every table's rows in it, and without links."""
    pictures = {
        part: [picture | {"src": _inline(target / picture["path"])} for picture in chapter[part]]
        for part in ("pictures", "headlines")
    }
    frames = [_frame(target, figure) for figure in chapter["tables"]]
    return chapter | pictures | {"frames": frames, "tables": [], "links": []}


def _inline(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _frame(target: Path, figure: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded table for the page; numbers are rounded as they are shown, and sorted as they are."""
    table = pd.read_csv(target / figure["path"])
    rows = [[_plain(value) for value in row] for row in table.head(_LONGEST).itertuples(index=False)]
    cut = f" The first {_LONGEST} of {len(table):,} rows." if len(table) > _LONGEST else ""
    title, caption = Path(figure["file"]).stem.replace("_", " "), figure["caption"] + cut
    return {"title": title, "caption": caption, "columns": list(table.columns), "rows": rows}


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return {"text": str(value), "sort": None}
    return {"text": "", "sort": ""} if pd.isna(value) else {"text": number(value), "sort": value}


def _headlines(metrics: pd.DataFrame) -> pd.DataFrame:
    marked = metrics[metrics["headline"].astype(bool)]
    return marked if len(marked) else metrics.head(_FIRST)


def compare(metrics: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for a table in which live and reference values of one quantity stand side by side."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in metrics.to_dict("records"):
        key = (record["notebook"], record["metric"], record["subject"])
        row = rows.setdefault(key, {**record, "live": None, "reference": None})
        row[record["source"]] = _cell(record)
    return list(rows.values())


def _cell(record: Mapping[str, Any]) -> dict[str, Any]:
    """A value and its interval as they are printed."""
    known = not (pd.isna(record["low"]) or pd.isna(record["high"]))
    interval = f"{number(record['low'])} to {number(record['high'])}" if known else ""
    return {"value": number(record["value"]), "interval": interval, "sort": record["value"]}


def number(value: float) -> str:
    """A number with as many digits as it deserves: three significant ones, or whole thousands."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _chapter(
    target: Path, outcome: Mapping[str, Any], metrics: pd.DataFrame, notebooks: Path
) -> dict[str, Any]:
    """What the page says of one notebook."""
    name, good = outcome["notebook"], outcome["state"] in _GOOD
    figures = read_figures(target / name) if good else []
    pictures = [_picture(target, name, figure) for figure in figures if figure["file"].endswith(".png")]
    return {
        **outcome,
        "title": _title(notebooks / f"{name}.ipynb"),
        "links": _links(target, name, good),
        "tables": [
            figure | {"path": f"{name}/{figure['file']}"}
            for figure in figures
            if not figure["file"].endswith(".png")
        ],
        "frames": [],
        "pictures": [picture for picture in pictures if not picture["headline"]],
        "headlines": [picture for picture in pictures if picture["headline"]],
        "rows": compare(metrics[metrics["notebook"] == name]) if good else [],
    }


def _picture(target: Path, name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    """A figure with its file; a headline's bytes go into the page itself."""
    path = f"{name}/{figure['file']}"
    title = Path(figure["file"]).stem.replace("_", " ")
    with Image.open(target / path) as image:
        wide = image.width > 1.7 * image.height
    shown = {"path": path, "src": path, "title": title, "chapter": name, "wide": wide, **figure}
    if figure["headline"]:
        shown["src"] = _inline(target / path)
    return shown


def _links(target: Path, name: str, good: bool) -> list[tuple[str, str]]:
    """Texts and relative addresses of what a notebook left."""
    folder = name if good else f"failed/{name}"
    files = {
        "read": f"{folder}/{name}.html",
        "executed notebook": f"{folder}/{name}.ipynb",
        "traceback": f"{folder}/traceback.txt",
    }
    return [(text, path) for text, path in files.items() if (target / path).is_file()]


def _title(notebook: Path) -> str:
    """The notebook's first heading, or its name."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else []:
            if line.startswith("# "):
                return line[2:].strip()
    return notebook.stem


def _provenance(metrics: pd.DataFrame) -> list[tuple[str, str]]:
    """Where the numbers come from: each different value of each column once."""
    names = ("world", "seed", "device", "commit", "versions")
    return [(name, "; ".join(dict.fromkeys(map(str, metrics[name])))) for name in names if len(metrics)]
