"""The results of a notebook: numbers, figures and tables, and the record of a complete run.

`metrics.json` holds one row for each number, `figures.json` one for each figure and table, `run.json` the
record. The runner adds the origin of the numbers (seed, device, commit, versions). The report shows headlines
first.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, SupportsFloat

from PIL import Image
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from clcae_lib import paths
from clcae_lib.errors import ClcaeError
from clcae_lib.files import atomic_path, write_text
from clcae_lib.provenance import commit, device_text, versions
from clcae_lib.settings import explain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

RECORD = "run.json"


class SuiteError(ClcaeError):
    """The suite cannot start: a list, a profile or a parameter is wrong."""


class NotebookError(ClcaeError):
    """A notebook failed while running.

    Args:
        reason: one line for the report.
        details: the traceback, stored next to the executed copy.
    """

    def __init__(self, reason: str, *, details: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details or reason


class Metric(BaseModel, strict=True):
    """One number, as `metrics.json` holds it; see `Recorder.metric`."""

    notebook: str
    metric: str
    subject: str | None = ""
    value: FiniteFloat
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    unit: str | None = ""
    source: Literal["live", "reference"]
    headline: bool | None = False
    better: Literal["higher", "lower", ""] | None = ""


class Figure(BaseModel, strict=True):
    """One image or table, as `figures.json` holds it."""

    file: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    caption: str = ""
    headline: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it is an image."""
        return self.file.endswith(".png")

    @property
    def title(self) -> str:
        """The caption, or the file's name for readers if there is none."""
        return self.caption or Path(self.file).stem.replace("_", " ").capitalize()


class Record(BaseModel, frozen=True):
    """The facts of a complete run; the file is written last, so a run that has it is complete."""

    notebook: str
    profile: str
    key: str
    parameters: dict[str, Any]
    started: str
    seconds: float
    device: str
    commit: str
    versions: str

    @classmethod
    def of_run(cls, began: float, *, device: str, **facts: Any) -> "Record":
        """Return the record of a run that began at `began` (`time.monotonic()`) and ends now."""
        seconds = time.monotonic() - began
        return cls(
            started=(datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            device=device_text(device),
            commit=commit(),
            versions=versions(),
            **facts,
        )

    def write(self, folder: Path) -> None:
        """Write the record of a complete run into its folder."""
        _write(folder / RECORD, self)


class Recorder:
    """Collects a notebook's results in its output folder.

    Args:
        notebook: its name, such as "01_contrastive_alignment".
        output_dir: the notebook's parameter; a relative path starts at the repository's root. The folder is
            created; rows of an earlier execution are removed.
    """

    def __init__(self, notebook: str, output_dir: str | Path) -> None:
        self.notebook = notebook
        self.folder = paths.root() / Path(output_dir).expanduser()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._metrics: dict[tuple[str, str, str], tuple[Metric, int | None]] = {}
        self._figures: dict[str, Figure] = {}
        for stale in ("metrics.json", "figures.json"):
            (self.folder / stale).unlink(missing_ok=True)

    def metric(
        self,
        metric: str,
        value: SupportsFloat,
        *,
        source: str,
        subject: str = "",
        low: SupportsFloat | None = None,
        high: SupportsFloat | None = None,
        unit: str = "",
        better: str = "",
        headline: bool = False,
    ) -> float:
        """Record one number and return it as a plain float.

        A cell that is run again replaces the numbers that it recorded before.

        Args:
            metric: the quantity, such as "PSNR".
            value: a finite number, or a tensor or array of one element.
            source: "live" if it comes from this run's training, "reference" if from shipped weights.
            subject: the measured thing, such as "W+" or "smile".
            low: the lower end of its confidence interval.
            high: the upper end of its confidence interval.
            unit: such as "dB" or "%".
            better: "higher" or "lower", if one of them is better.
            headline: whether it belongs to the report's main table.

        Raises:
            ValueError: a value is not finite, a word is not allowed, or one run of a cell records the number
                twice.
        """
        row = {"notebook": self.notebook, "metric": metric, "subject": subject, "value": float(value)}
        row |= {"low": None if low is None else float(low), "high": None if high is None else float(high)}
        row |= {"unit": unit, "source": source, "better": better, "headline": bool(headline)}
        try:
            recorded = Metric(**row)
        except ValidationError as error:
            raise ValueError(
                f"{metric} is not a valid result ({explain(error)}); find the cause before recording it"
            ) from error
        key, execution = (metric, subject, source), _execution()
        if key in self._metrics and self._metrics[key][1] == execution:
            raise ValueError(f"{metric} of {subject!r} ({source}) is recorded already; give another subject")
        self._metrics[key] = recorded, execution
        _write(self.folder / "metrics.json", [found for found, _ in self._metrics.values()])
        return recorded.value

    def metrics(
        self, frame: "pd.DataFrame", measures: Mapping[str, tuple[str, str, str]], **fields: Any
    ) -> None:
        """Record the numbers of a table: each row of a long one, or each row and measure of a wide one.

        Args:
            frame: table with the columns `metric`, `value` and perhaps `low` and `high`, as
                `evaluation.summarise` returns it; or with one column for each measure and perhaps
                `..._low` and `..._high`, as `evaluation.at_equal_response` does. Columns with the name of
                another keyword of `metric`, such as `subject`, count as well.
            measures: name, unit and better direction of each measure, such as `evaluation.FIDELITY`; others
                are left out.
            fields: keywords of `metric`, one value or one for each row; `suffix` is added to the name.

        Raises:
            ValueError: as in `metric`.
        """
        for row in frame.assign(**fields).to_dict("records"):
            tidy = "metric" in row
            for measure in [row["metric"]] if tidy else measures:
                columns = ("value", "low", "high") if tidy else (measure, f"{measure}_low", f"{measure}_high")
                if measure in measures and columns[0] in row:
                    name, unit, better = measures[measure]
                    value, *ends = (row.get(column) for column in columns)
                    low, high = (None if end != end else end for end in ends)  # nan: no interval
                    about = {key: row[key] for key in ("subject", "source", "headline") if key in row}
                    about |= {"low": low, "high": high, "unit": unit, "better": better}
                    self.metric(name + row.get("suffix", ""), value, **about)

    def figure(
        self, figure: "Drawing", name: str, *, caption: str = "", headline: bool = False, dpi: int = 130
    ) -> Path:
        """Save a matplotlib figure as `<name>.png` and return its path; the figure stays open."""
        with atomic_path(self.folder / f"{name}.png") as partial:
            figure.savefig(partial, dpi=dpi, bbox_inches="tight", facecolor="white", format="png")
        return self._add(f"{name}.png", caption, headline)

    def table(self, frame: "pd.DataFrame", name: str, *, caption: str = "", headline: bool = False) -> Path:
        """Save a table as `<name>.csv` and return its path.

        With `headline` the report shows the table at its top; otherwise it has a link to it.
        """
        write_text(self.folder / f"{name}.csv", frame.to_csv(index=frame.index.name is not None))
        return self._add(f"{name}.csv", caption, headline)

    def records(self, frame: "pd.DataFrame", name: str = "records") -> Path:
        """Save the measures of each image as `<name>.parquet` and return its path.

        A sweep joins the records of its runs.
        """
        path = self.folder / f"{name}.parquet"
        with atomic_path(path) as partial:
            frame.to_parquet(partial, index=False)
        return path

    def _add(self, file: str, caption: str, headline: bool) -> Path:
        self._figures.pop(file, None)
        self._figures[file] = Figure(file=file, caption=caption, headline=bool(headline))
        _write(self.folder / "figures.json", list(self._figures.values()))
        return self.folder / file


def _execution() -> int | None:
    """Return Jupyter's execution count of the running cell; None outside of Jupyter."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell.execution_count if shell else None


def _write(path: Path, content: BaseModel | list[Any]) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=BaseModel.model_dump) + "\n")


def read_metrics(folder: Path) -> list[Metric]:
    """Return the numbers that a notebook recorded in `metrics.json`.

    Raises:
        NotebookError: there is no such file, it is empty, or a row is wrong.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise NotebookError("it recorded no metrics: output_dir holds no metrics.json")
    rows = _read_list(path, Metric)
    if not rows:
        raise NotebookError("its metrics.json holds no rows")
    return rows


def read_figures(folder: Path) -> list[Figure]:
    """Return the images and tables in a notebook's folder: the recorded ones, then others by name.

    Raises:
        NotebookError: `figures.json` is wrong, or a file is outside the folder.
    """
    path = folder / "figures.json"
    listed = _read_list(path, Figure) if path.is_file() else []
    known = {figure.file for figure in listed}
    rest = [Figure(file=file.name) for file in sorted(folder.glob("*.png")) if file.name not in known]
    home = folder.parent.resolve() / folder.name  # the folder itself may be a link
    for name in [path.name, *(figure.file for figure in [*listed, *rest])]:
        if not (folder / name).resolve().is_relative_to(home):
            raise NotebookError(f"{path}: {name[:100]!r} is not a file of {folder}; remove it")
    return [figure for figure in [*listed, *rest] if os.path.isfile(folder / figure.file)]


def _read_list(path: Path, row: type[BaseModel]) -> list[Any]:
    try:
        return TypeAdapter(list[row]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise NotebookError(f"its {path.name} is not valid: {explain(error)}") from error


def check_results(folder: Path) -> None:
    """Check a notebook's results by reading them as the report does.

    Raises:
        NotebookError: there are no metrics, or metrics, figures or images cannot be read.
    """
    read_metrics(folder)
    for figure in filter(lambda figure: figure.is_image, read_figures(folder)):
        try:
            with Image.open(folder / figure.file) as image:
                image.verify()
        except (OSError, SyntaxError) as error:
            raise NotebookError(f"its image {figure.file} cannot be read: {error}") from error


def read_record(folder: Path) -> Record | None:
    """Return the record of the complete run that a folder holds, or None."""
    try:
        return Record.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return None


def complete_record(folder: Path) -> Record | None:
    """Return the record of a folder's complete run; None if there is none or its results are damaged."""
    record = read_record(folder)
    try:
        if record is not None:
            check_results(folder)
    except NotebookError:
        return None
    return record
