"""A gate: headline measures must stay inside the intervals that were kept with the reference.

The intervals are over test images. A run of the same code, seed and kind of machine gives the same
numbers; other hardware moves them by far less than an interval; a method that was broken leaves it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clcae_lib.suite._collect import read_runs
from clcae_lib.suite._errors import SuiteError

_SETTING = "training steps"
_SLACK = 1e-9
"""Of a value's size: what printing and reading a number may change."""


@dataclass(frozen=True)
class Deviation:
    """A headline measure outside its interval, or missing."""

    name: str
    value: float | None
    low: float
    high: float

    def __str__(self) -> str:
        """One line for a log."""
        if self.value is None:
            return f"{self.name}: not measured, kept [{self.low:.4g}, {self.high:.4g}]"
        side = "below" if self.value < self.low else "above"
        return f"{self.name}: {self.value:.4g} is {side} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class Check:
    """How many headline measures were compared, and which of them deviate."""

    compared: int
    deviations: tuple[Deviation, ...]

    @property
    def ok(self) -> bool:
        """Whether every measure is inside its interval."""
        return not self.deviations


def check_runs(
    results: Path, against: Path, *, variants: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Check:
    """Compares the runs of a sweep with those kept in the reference.

    Args:
        results: a sweep's folder, or a run's (whose `metrics.csv` is compared with the reference's own).
        against: the reference, such as results/reference.
        variants, seeds: of a sweep, what must be there; none means what both have.

    Raises:
        SuiteError: a file is missing, nothing can be compared, or the trainings were of other lengths.
    """
    swept = (results / "runs.csv").is_file()
    key = ["variant", "seed"] if swept else ["notebook"]
    stored = read_runs(against / "sweeps" / "ablations") if swept else _read_metrics(against)
    fresh = read_runs(results) if swept else _read_metrics(results)
    if swept:
        stored, fresh = _asked(stored, fresh, variants, seeds)
    names = [*key, "metric", "subject", "source"]
    _check_lengths(stored, fresh, names)
    headlines = stored[_marked(stored) & stored["low"].notna() & stored["high"].notna()]
    values = fresh.drop_duplicates(names).set_index(names)["value"]
    deviations = []
    for row in headlines.to_dict("records"):
        at = tuple(row[name] for name in names)
        value = float(values.loc[at]) if at in values.index else None
        slack = _SLACK * max(1.0, abs(row["low"]), abs(row["high"]))
        if value is None or not row["low"] - slack <= value <= row["high"] + slack:
            label = " ".join(str(part) for part in at[:-1] if part != "")
            deviations.append(Deviation(label, value, row["low"], row["high"]))
    if headlines.empty:
        raise SuiteError(f"{results} and {against} have no headline measure with an interval in common")
    return Check(len(headlines), tuple(deviations))


def _asked(
    stored: pd.DataFrame, fresh: pd.DataFrame, variants: Sequence[str], seeds: Sequence[int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The stored runs that are to be there again."""
    pairs = set(zip(fresh["variant"], fresh["seed"], strict=True))
    known = set(zip(stored["variant"], stored["seed"], strict=True))
    asked = {(v, s) for v, s in known if (not variants or v in variants) and (not seeds or s in seeds)}
    wanted = asked if variants or seeds else asked & pairs
    kept = [pair in wanted for pair in zip(stored["variant"], stored["seed"], strict=True)]
    return stored[kept], fresh


def _check_lengths(stored: pd.DataFrame, fresh: pd.DataFrame, names: Sequence[str]) -> None:
    """Trainings of different lengths must not be compared."""
    both = pd.merge(*(f[f["metric"] == _SETTING][[*names, "value"]] for f in (stored, fresh)), on=list(names))
    other = both[both["value_x"] != both["value_y"]]
    if len(other):
        row = other.iloc[0]
        raise SuiteError(
            f"{row.iloc[0]}: trained for {row['value_y']:.0f} steps, the reference for {row['value_x']:.0f}; "
            "run it with the reference's profile"
        )


def _marked(frame: pd.DataFrame) -> pd.Series:
    return frame["headline"].astype(str) == "True"


def _read_metrics(folder: Path) -> pd.DataFrame:
    path = folder / "metrics.csv"
    if not path.is_file():
        raise SuiteError(
            f"{folder} holds neither runs.csv nor metrics.csv; `clcae run` or `clcae sweep` makes them"
        )
    return pd.read_csv(path, keep_default_na=False, na_values={"low": [""], "high": [""]})
