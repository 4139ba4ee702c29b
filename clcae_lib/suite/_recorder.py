"""What a notebook leaves behind: metrics, figures and tables, written as they come.

`metrics.json` holds one row a number, `figures.json` one row a picture. The runner adds where the numbers
come from (seed, device, commit, versions) and the report shows what is marked as a headline first.
"""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.images import save_image

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SOURCES = ("live", "reference")
_BETTER = ("higher", "lower", "")


class Recorder:
    """Collects a notebook's results in its output folder.

    Args:
        notebook: its name, such as "01_contrastive_alignment".
        output_dir: the notebook's parameter; a relative path counts from the repository's root. The folder is
            created; rows that an earlier execution left there are dropped.
    """

    def __init__(self, notebook: str, output_dir: str | Path) -> None:
        self.notebook = notebook
        self.folder = paths.root() / Path(output_dir).expanduser()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._metrics: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._recorded_in: dict[tuple[str, str, str], int | None] = {}
        self._figures: list[dict[str, Any]] = []
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
            value: a finite number; a tensor or array of one element will do.
            source: "live" if it comes from this run's own training, "reference" if from shipped weights.
            subject: what it is of, such as "W+" or "smile".
            low, high: ends of its confidence interval.
            unit: such as "dB" or "%".
            better: "higher" or "lower", if either is.
            headline: whether it belongs to the report's main table.

        Raises:
            ValueError: a value is not finite, a word is not one of the allowed, or the same run of a cell
                records the number twice.
        """
        row = {"notebook": self.notebook, "metric": metric, "subject": subject}
        row |= {
            "value": _finite(metric, value),
            "low": _optional(metric, low),
            "high": _optional(metric, high),
        }
        row |= {"unit": unit, "source": _choice("source", source, _SOURCES)}
        row |= {"headline": bool(headline), "better": _choice("better", better, _BETTER)}
        key, execution = (metric, subject, source), _execution()
        if key in self._metrics and self._recorded_in[key] == execution:
            raise ValueError(f"{metric} of {subject!r} ({source}) is recorded already; give another subject")
        self._metrics[key], self._recorded_in[key] = row, execution
        _write(self.folder / "metrics.json", list(self._metrics.values()))
        return row["value"]

    def figure(
        self, figure: "Figure", name: str, *, caption: str = "", headline: bool = False, dpi: int = 130
    ) -> Path:
        """Save a matplotlib figure as `<name>.png` and return its path; the figure stays open."""
        with atomic_path(self.folder / f"{name}.png") as partial:
            figure.savefig(partial, dpi=dpi, bbox_inches="tight", facecolor="white", format="png")
        return self._add_figure(name, caption, headline)

    def image(self, image: Any, name: str, *, caption: str = "", headline: bool = False) -> Path:
        """Save a picture, a `[3, H, W]` tensor in [-1, 1] or a PIL image, as `<name>.png`; its path."""
        path = self.folder / f"{name}.png"
        if hasattr(image, "save"):
            with atomic_path(path) as partial:
                image.save(partial, format="PNG")
        else:
            save_image(path, image)
        return self._add_figure(name, caption, headline)

    def table(self, frame: "pd.DataFrame", name: str, *, caption: str = "") -> Path:
        """Save a table as `<name>.csv`, linked in the report, and return its path."""
        path = self.folder / f"{name}.csv"
        with atomic_path(path) as partial:
            frame.to_csv(partial, index=frame.index.name is not None)
        self._add({"file": path.name, "caption": caption, "headline": False})
        return path

    def records(self, frame: "pd.DataFrame", name: str = "records") -> Path:
        """Save what was measured of each picture as `<name>.parquet` and return its path.

        A sweep joins the records of its runs.
        """
        path = self.folder / f"{name}.parquet"
        with atomic_path(path) as partial:
            frame.to_parquet(partial, index=False)
        return path

    def _add_figure(self, name: str, caption: str, headline: bool) -> Path:
        self._add({"file": f"{name}.png", "caption": caption, "headline": bool(headline)})
        return self.folder / f"{name}.png"

    def _add(self, entry: dict[str, Any]) -> None:
        self._figures = [other for other in self._figures if other["file"] != entry["file"]] + [entry]
        _write(self.folder / "figures.json", self._figures)


def _finite(metric: str, value: SupportsFloat) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{metric}: {number} is no result; look for what went wrong before recording it")
    return number


def _optional(metric: str, value: SupportsFloat | None) -> float | None:
    return None if value is None else _finite(metric, value)


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")
    return value


def _execution() -> int | None:
    """The number of the cell's run, as Jupyter counts them; None outside of it."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell.execution_count if shell else None


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
