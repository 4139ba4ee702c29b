"""The committed reference: keep a run's report there, and check later runs against it.

A check requires that headline measures are inside the committed intervals, which are over test images. A run
of the same code, seed and kind of machine gives the same numbers; on other hardware they differ by far less
than an interval; those of a broken method are outside.
"""

import base64
import io
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
from PIL import Image, ImageChops, ImageStat

from clcae_lib import paths
from clcae_lib.files import atomic_path, write_text
from clcae_lib.suite.collect import COLUMNS, COMMITTED, read_runs, read_table
from clcae_lib.suite.record import SuiteError
from clcae_lib.suite.report import read_run, write_report

_KEPT = (".png", ".csv", ".json")
_LARGEST_NOTEBOOK = 2_000_000
"""Largest size of a kept notebook in bytes; web pages of repositories show larger ones slowly or not."""
_SIZES = ((90, 1), (80, 1), (70, 1), (70, 0.7), (70, 0.5), (70, 0.35))
"""Quality and scale of a kept notebook's images; the first pair that makes it small enough is used."""
_LINK = re.compile(r"\]\((?:\.\./)+(?:[^)\s]+/)?(notebooks/figures|docs)/")
"""The start of a link to the repository from an executed notebook, which may be on another disk."""
_CHART = 0.5
"""An image is a chart if a palette of 256 colours changes it by less than this on average, of 255."""
_SETTING = "training steps"
_SLACK = 1e-9
"""Relative change of a number by printing and reading it."""


def keep_report(source: Path) -> Path:
    """Copy a complete run's report to results/reference and return the new page.

    The folders of the run's notebooks are replaced, and the executed notebooks are stored in `notebooks`,
    with smaller images. Runs of sweeps, if there are any, become the committed reference runs. A SuiteError
    is raised unless every notebook of the run has results.
    """
    status, _ = read_run(source)
    bad = [outcome.notebook for outcome in status.notebooks if not outcome.good]
    if bad:
        raise SuiteError(f"{source} is not complete: {', '.join(bad)}; only a whole run is kept")
    target = paths.results_dir() / "reference"
    files = [source / "metrics.csv", source / "status.json"]
    for notebook in [outcome.notebook for outcome in status.notebooks]:
        shutil.rmtree(target / notebook, ignore_errors=True)
        files += sorted((source / notebook).iterdir())
        name = f"{notebook}.ipynb"
        _keep_notebook(source / notebook / name, target / "notebooks" / name)
    swept = [path for path in (source.parent / "sweeps").glob("*/*") if path.name != "runs.parquet"]
    own = [path for path in files if path.suffix in _KEPT and not path.is_symlink()]
    copies = {path: target / path.relative_to(source) for path in own}
    copies |= {
        path: target / path.relative_to(source.parent)
        for path in swept
        if path.suffix in (".csv", ".parquet")
    }
    for path, copy in copies.items():
        with atomic_path(copy) as partial:
            shutil.copyfile(path, partial)
    return write_report(target)


def _keep_notebook(source: Path, target: Path) -> None:
    """Write an executed notebook in at most `_LARGEST_NOTEBOOK` bytes.

    Widgets, which do not work without a kernel, are replaced by a sentence; paths of this machine are
    removed, and links are relative to this place.
    """
    if not source.is_file():
        return
    text = _LINK.sub(r"](../../../\1/", source.read_text(encoding="utf-8"))
    for quality, share in _SIZES:
        notebook = nbformat.reads(text, as_version=4)
        notebook.metadata.pop("widgets", None)
        for place in ("input_path", "output_path"):
            notebook.metadata.get("papermill", {}).pop(place, None)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        for data in (output["data"] for output in outputs if "data" in output):
            if data.pop("application/vnd.jupyter.widget-view+json", None):
                data["text/plain"] = "A widget: run the notebook to use it."
            if "image/png" in data:
                data |= _compact(data.pop("image/png"), quality, share)
        small = nbformat.writes(notebook)
        if len(small) <= _LARGEST_NOTEBOOK:
            break
    write_text(target, small + "\n")


def _compact(png: str, quality: int, share: float) -> dict[str, str]:
    """Return an image in base64, by its media type, with this share of its width and height.

    A chart becomes a PNG of 256 colours. Images of faces become a JPEG of this quality, because such a
    palette would change the colours of eyes and lips.
    """
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        size = tuple(max(1, round(side * share)) for side in image.size)
        scaled = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    reduced, buffer = scaled.quantize(256), io.BytesIO()
    change = np.mean(ImageStat.Stat(ImageChops.difference(scaled, reduced.convert("RGB"))).mean)
    if change < _CHART:
        reduced.save(buffer, format="PNG", optimize=True)
    else:
        scaled.save(buffer, format="JPEG", quality=quality, subsampling=0)
    return {"image/png" if change < _CHART else "image/jpeg": base64.b64encode(buffer.getvalue()).decode()}


@dataclass(frozen=True)
class Check:
    """How many headline measures were compared, and a line for each that left its interval or is missing."""

    compared: int
    deviations: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether every measure is inside its interval."""
        return not self.deviations


def check_runs(
    results: Path, against: Path, *, variants: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Check:
    """Compare the results of a sweep, or of a run, with those kept in the folder `against`.

    In a sweep, the named variants and seeds must exist; if none are named, those that both have are compared.

    Raises:
        SuiteError: a file is missing, nothing can be compared, or the trainings have other lengths.
    """
    if (results / "runs.csv").is_file():
        names = ["variant", "seed", "metric", "subject", "source"]
        fresh = read_runs(results)
        stored = _stored_runs(against, fresh, variants, seeds)
    else:
        names = ["notebook", "metric", "subject", "source"]
        stored, fresh = _read_metrics(against), _read_metrics(results)
    _check_lengths(stored, fresh, names)
    marked = stored["headline"].astype(str) == "True"
    headlines = stored[marked & stored["low"].notna() & stored["high"].notna()]
    if headlines.empty:
        raise SuiteError(f"{results} and {against} have no headline measure with an interval in common")
    values = fresh.drop_duplicates(names).set_index(names)["value"].to_dict()
    deviations = []
    for row in headlines.to_dict("records"):
        at, low, high = tuple(row[name] for name in names), row["low"], row["high"]
        value, slack = values.get(at), _SLACK * max(1.0, abs(low), abs(high))
        name = " ".join(str(part) for part in at[:-1] if part != "")
        if value is None:
            deviations.append(f"{name}: not measured, kept [{low:.4g}, {high:.4g}]")
        elif not low - slack <= value <= high + slack:
            side = "below" if value < low else "above"
            deviations.append(f"{name}: {value:.4g} is {side} [{low:.4g}, {high:.4g}]")
    return Check(len(headlines), deviations)


def _stored_runs(
    against: Path, fresh: pd.DataFrame, variants: Sequence[str], seeds: Sequence[int]
) -> pd.DataFrame:
    """Return runs of the committed ablation with trainings of the same length, or else of the main one."""
    lengths = fresh.loc[fresh["metric"] == _SETTING, ["metric", "value"]].drop_duplicates()
    main, *others = [against / "sweeps" / name for name in COMMITTED.values()]
    kept = [read_runs(folder) for folder in (main, *filter(Path.is_dir, others))]
    stored = next((runs for runs in kept if len(runs.merge(lengths))), kept[0])
    if not (variants or seeds):
        return stored.merge(fresh[["variant", "seed"]].drop_duplicates())
    of_variants = stored["variant"].isin(variants) | (not variants)
    return stored[of_variants & (stored["seed"].isin(seeds) | (not seeds))]


def _check_lengths(stored: pd.DataFrame, fresh: pd.DataFrame, names: Sequence[str]) -> None:
    both = pd.merge(*(f[f["metric"] == _SETTING][[*names, "value"]] for f in (stored, fresh)), on=list(names))
    other = both[both["value_x"] != both["value_y"]]
    if len(other):
        row = other.iloc[0]
        raise SuiteError(
            f"{row.iloc[0]}: trained for {row['value_y']:.0f} steps, the reference for {row['value_x']:.0f}; "
            "run it with the reference's profile"
        )


def _read_metrics(folder: Path) -> pd.DataFrame:
    if not (folder / "metrics.csv").is_file():
        raise SuiteError(
            f"{folder} holds neither runs.csv nor metrics.csv; `clcae run` or `clcae sweep` makes them"
        )
    return read_table(folder / "metrics.csv", COLUMNS)
