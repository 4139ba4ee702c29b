"""The open bench: compare an inverter or a finder of directions of another package with known methods.

The measures are those of notebook 07; `docs/bench.md` describes them.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from clcae_lib import paths
from clcae_lib.editing import Direction, cached_directions, calibrate, factor_column
from clcae_lib.evaluation import (
    CODES,
    DETAILS,
    EDITS,
    FIDELITY,
    SETS,
    Bench,
    EditBench,
    Judges,
    at_equal_response,
    cost_table,
    edit_kind,
    measure_curve,
)
from clcae_lib.files import sha256, write_text
from clcae_lib.inversion import METHODS, ClcaeInverter, Inverter, make_inverter
from clcae_lib.plots import show_grid
from clcae_lib.suite.collect import provenance_rows, sweep_tables
from clcae_lib.suite.guests import CheckedInverter, find_checked, load_guest
from clcae_lib.suite.record import Record, Recorder, SuiteError
from clcae_lib.suite.report import Outcome, Status, portable_report, write_run
from clcae_lib.worlds import World, get_world

FACTORS = {factor: edit_kind(factor) for factor in ("yaw", "smile", "age", "glasses")}
"""The edited factors, and whether an edit moves parts of the face or repaints them."""
FINDERS = ("interfacegan", "ganspace", "sefa", "stylespace")
TRIVIAL = ("mean_face", "nearest_code")
RESPONSE = 1.0
"""Movement of the factor, in standard deviations, at which edits are compared."""
PROTOCOL = 2
"""Version of the measures; it is increased when they change."""
INVERSION = FIDELITY | CODES | DETAILS | SETS
COST = ("relative", "peak_mb", "parameters", "images_seen")
_ORIGIN = ("device", "commit", "versions", "seconds", "started", "profile")


@dataclass(frozen=True)
class Sizes:
    """Numbers of images and codes; the committed rows have at least the defaults.

    Attributes:
        images: inverted renders, of which the first `edits` are edited.
        edits: edited renders.
        accessories: renders with an accessory.
        codes: samples whose codes are known.
        labelled: labelled codes that directions are learned from.
        calibrated: codes that the unit of each direction is measured on.
    """

    images: int = 128
    edits: int = 48
    accessories: int = 48
    codes: int = 64
    labelled: int = 1500
    calibrated: int = 32

    def __post_init__(self) -> None:
        if self.edits > self.images:
            raise SuiteError(f"--edits {self.edits}: only {self.images} images are inverted; raise --images")


@dataclass(frozen=True)
class OpenBench:
    """The bench of a world that has a renderer, with its version."""

    world: World
    sizes: Sizes = field(default_factory=Sizes)

    @cached_property
    def bench(self) -> Bench:
        """The images, directions and evaluation networks."""
        counts = {name: getattr(self.sizes, name) for name in ("images", "edits", "accessories", "codes")}
        return Bench.of(self.judges, self.directions("interfacegan"), **counts)

    @cached_property
    def judges(self) -> Judges:
        """The evaluation networks."""
        return Judges.of(self.world, "cpu")

    def directions(self, finder: Any) -> dict[str, Direction]:
        """Return the calibrated directions of one of the library's finders."""
        options = {"samples": self.sizes.labelled, "calibrated_on": self.sizes.calibrated}
        return cached_directions(self.world, list(FACTORS), finder, **options)

    def calibrated(self, directions: Mapping[str, Direction]) -> dict[str, Direction]:
        """Return directions in the bench's unit: strength 1 is one standard deviation of the factor."""
        net, oracle = self.world.generator("cpu"), self.world.oracle("train")
        options, found = {"count": self.sizes.calibrated, "seed": 1}, {}
        for name, direction in directions.items():
            column = factor_column(self.world, name)
            std = self.world.factor_std[column].item()
            found[name] = calibrate(direction, net, oracle, column=column, std=std, **options)
        return found

    @property
    def version(self) -> str:
        """The protocol's number and a digest of all that rows depend on: renderer, networks and sizes."""
        networks = ("generator", "oracle_a", "oracle_b", "identity_b", "perceptual_b")
        digests = [sha256(self.world.weights(name)) for name in networks]
        facts = [self.world.name, self.world.renderer, digests, asdict(self.sizes), FACTORS, RESPONSE]
        return f"{PROTOCOL}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}"

    def measure(self, inverter: Inverter, variant: str, space: str, faces: dict[str, Any]) -> dict[str, Any]:
        """Return the tables of one inverter, with the column `variant`; add its images to `faces`."""
        found = self.bench.measure(inverter, method=variant, space=space)
        faces[variant], faces[f"{variant}, edited"] = found.reconstructions, found.edited
        names = ("records", "curves", "codes", "details", "sets")
        tables = {name: getattr(found, name).assign(variant=variant) for name in names}
        tables["records"] = tables["records"].query("space == @space")
        batch, unit = self.bench.images[:4], ClcaeInverter.load(self.world, device="cpu")
        started = time.perf_counter()
        inverter.invert(batch)
        runs = 5 if time.perf_counter() - started < 2 else 1
        turns, modules = {"unit": unit.invert, variant: inverter.invert}, {variant: _networks(inverter)}
        cost = cost_table(turns, batch, modules=modules, images_seen={}, runs=runs).set_index("method")
        cost["relative"] = cost["ms_per_image"] / cost["ms_per_image"]["unit"]
        return tables | {"cost": cost.loc[[variant]].rename_axis("variant").reset_index()}


def _networks(inverter: Any) -> tuple[nn.Module, ...]:
    guest = getattr(inverter, "guest", inverter)
    held = dict(guest.named_children()) if isinstance(guest, nn.Module) else vars(guest)
    return tuple(part for name, part in held.items() if isinstance(part, nn.Module) and name != "generator")


def summary(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row for each variant: every measure, and those of edits as "factor: measure"."""
    by = "variant"
    rows = tables["records"].groupby(by)[[*FIDELITY]].mean()
    rows = rows.join(tables["codes"].groupby(by)[[*CODES]].mean())
    rows = rows.join(tables["details"].groupby(by)[[*DETAILS]].median())
    rows = rows.join(tables["sets"].groupby(by)[[*SETS]].mean())
    rows = rows.join(tables["cost"].groupby(by)[list(COST)].median())
    return rows.join(edit_summary(tables["curves"]))


def edit_summary(curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each variant with the costs of its edits at equal response, as "factor: measure".

    `reached` is the share of edits of strength 1 that move the factor by half a standard deviation.
    """
    by = ["variant", "factor"]
    read = at_equal_response(curves, response=RESPONSE, by=by, n=1).set_index(by)
    read["reached"] = curves[curves["step"] == 1].groupby(by)["reached"].mean()
    wide = read[[*EDITS, "strength", "reached"]].unstack("factor")
    return wide.set_axis([f"{factor}: {measure}" for measure, factor in wide.columns], axis=1)


def committed(bench: OpenBench, mean_face: pd.Series) -> pd.DataFrame:
    """Return rows of the committed methods for the same images; none if they belong to another bench.

    Of several trainings the first is used, because a guest has one. The committed mean face must equal
    `mean_face`, which was measured now; this shows that images, directions and networks are the same.
    """
    tables, sizes = sweep_tables("methods", origins=["reference"]), bench.sizes
    if not tables or set(tables["records"]["world"]) != {bench.world.name}:
        return pd.DataFrame()
    tables = {name: frame[frame["seed"] == 0] for name, frame in tables.items()}
    names = {"records": [f"test/{k}" for k in range(sizes.images)], "curves": range(sizes.edits)}
    names |= {"details": range(sizes.accessories), "codes": range(sizes.codes)}
    for table, images in names.items():
        same = tables[table][tables[table]["image"].isin(list(images))]
        counts = same.groupby("variant")["image"].nunique()
        tables[table] = same[same["variant"].isin(counts.index[counts == len(images)])]
    if any("mean_face" not in set(tables[table]["variant"]) for table in names):
        return pd.DataFrame()
    tables["sets"] = tables["sets"][tables["sets"]["count"] == sizes.edits * len(FACTORS)]
    rows = summary(tables)
    shared = [name for name in rows if name not in (*COST, *SETS)]
    known = rows.loc["mean_face", shared].to_numpy(float)
    if not np.allclose(known, mean_face[shared].to_numpy(float), rtol=0.02, atol=2e-3, equal_nan=True):
        return pd.DataFrame()
    if "clcae_reference" in rows.index:
        rows.loc["clcae_reference", "images_seen"] = np.nan  # the number is on its card
    return rows.drop(index="mean_face").assign(origin="committed")


def submitted(version: str) -> pd.DataFrame:
    """Return the rows in results/reference/bench/ that were measured by this version of the bench."""
    files = sorted((paths.results_dir() / "reference" / "bench").glob("*.csv"))
    frames = [pd.read_csv(file, index_col="variant").assign(origin="submitted") for file in files]
    same = [frame[frame["bench"] == version].rename(index="{} (submitted)".format) for frame in frames]
    return pd.concat([pd.DataFrame(), *same])


def bench_inverter(
    name: str,
    *,
    weights: Path | None = None,
    world: str = "portraits",
    sizes: Sizes | None = None,
    images_seen: int | None = None,
    output: Path | None = None,
) -> str:
    """Compare an inverter with the committed methods, write its row and a report, and return the tables.

    The arguments are those of `clcae bench`. An inverter that breaks the protocol raises a GuestError, a
    world that lacks a renderer or a network a WorldError.
    """
    began, bench = time.monotonic(), OpenBench(get_world(world), sizes or Sizes())
    inverter = CheckedInverter.load(name, bench.judges.world, weights=weights)
    space = inverter.check_repeatable(bench.world.images("test", 4).images(range(4)))
    title, faces = _title(name), {"portrait": bench.bench.images[: min(8, bench.sizes.edits)]}
    found = [bench.measure(inverter, title, space, faces)]
    found[0]["cost"]["images_seen"] = float("nan") if images_seen is None else images_seen

    def add(method: str) -> pd.DataFrame:
        trivial = make_inverter(method, bench.world, device="cpu")
        found.append(bench.measure(trivial, method, METHODS[method].space, faces))
        return summary({name: pd.concat([one[name] for one in found]) for name in found[0]})

    rows = add("mean_face")
    known = committed(bench, rows.loc["mean_face"])
    rows = (add("nearest_code") if known.empty else rows).assign(origin="here")
    others = pd.concat([known, submitted(bench.version)])
    rows = pd.concat([rows, others[[column for column in rows if column in others]]])
    first = [title, *TRIVIAL]
    rest = rows.drop(index=first).sort_values("psnr", ascending=False)
    rows = pd.concat([rows.loc[first], rest])
    tables = {"inversion": rows[["origin", *INVERSION, *COST]], "edits at equal response": _edits(rows)}
    facts = {"weights": sha256(weights) if weights else "", "space": space}
    return _write(bench, name, tables, rows, began, output=output, faces=faces, **facts)


def bench_directions(
    name: str, *, world: str = "portraits", sizes: Sizes | None = None, output: Path | None = None
) -> str:
    """Compare a finder of directions with the library's, write its row and a report, and return the table.

    Directions edit the codes of the shipped CLCAE encoder. The baselines are trivial inverters and random
    directions. Arguments and errors are those of `bench_inverter`.
    """
    began, bench = time.monotonic(), OpenBench(get_world(world), sizes or Sizes())
    judges, title = bench.judges, _title(name)
    directions = find_checked(load_guest(name, "clcae.finders"), name, judges.world, list(FACTORS))
    net = bench.world.generator("cpu")
    seeds = torch.Generator().manual_seed(0)
    random = {factor: Direction(torch.randn(net.style_dim, generator=seeds), factor) for factor in FACTORS}
    own = bench.calibrated(directions)
    plan = [(title, "clcae", own), *((f"{title}, {method}", method, own) for method in TRIVIAL)]
    plan += [("random", "clcae", bench.calibrated(random))]
    plan += [(finder, "clcae", bench.directions(finder)) for finder in FINDERS]
    curves = []
    for variant, method, found in plan:
        inverter = make_inverter(method, bench.world, device="cpu")
        edits = slice(bench.sizes.edits)
        images, factors = bench.bench.images[edits], bench.bench.factors[edits]
        measured = EditBench(inverter, images, factors, judges, space=METHODS[method].space)
        curve = measure_curve(measured, found, strengths=bench.bench.strengths)
        curves.append(curve.assign(variant=variant))
    order = [variant for variant, _, _ in plan]
    rows = edit_summary(pd.concat(curves)).loc[order].assign(origin="here")
    return _write(bench, name, {"edits at equal response": _edits(rows)}, rows, began, output=output)


def _title(name: str) -> str:
    """Return the guest's name for tables, marked if a method of the library has the same name."""
    title = name.rpartition(":")[2]
    return f"{title} (guest)" if title in {*METHODS, *FINDERS, "clcae_reference", "random"} else title


def _edits(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each factor and method, geometric edits first."""
    parts = []
    for factor, kind in FACTORS.items():
        part = rows.filter(regex=f"^{factor}: ").rename(columns=lambda column: column.split(": ")[1])
        parts.append(part.assign(kind=kind, factor=factor).rename_axis("method").reset_index())
    joined = pd.concat(parts)
    return joined.set_index(["kind", "factor", "method"])[[*EDITS, "strength", "reached"]]


def _remark(rows: pd.DataFrame) -> str:
    """Return a sentence on the measures in which the first row does not beat the trivial ones."""
    of_edits = {f"{factor}: {name}": measure for factor in FACTORS for name, measure in EDITS.items()}
    measures = {name: measure for name, measure in (INVERSION | of_edits).items() if name in rows}
    signed = rows[[*measures]] * [measure.sign for measure in measures.values()]
    floor = signed[signed.index.str.endswith((*TRIVIAL, "random"))].max()
    lost = signed.columns[floor >= signed.iloc[0]]
    return f"A trivial method is as good or better in: {', '.join(lost) or 'no measure'}."


def _write(
    bench: OpenBench,
    name: str,
    tables: Mapping[str, pd.DataFrame],
    rows: pd.DataFrame,
    began: float,
    *,
    output: Path | None,
    faces: Mapping[str, Any] | None = None,
    **facts: Any,
) -> str:
    """Write the guest's row, which is the first, and the report; return the text to print."""
    title, remark = str(rows.index[0]), _remark(rows)
    folder = (output or paths.results_dir() / "bench" / title).resolve()
    recorder = Recorder("bench", folder / "bench")
    for caption, table in tables.items():
        recorder.table(table.reset_index(), caption.replace(" ", "_"), caption=caption)
    for measure, value in rows.iloc[0].drop("origin").dropna().items():
        recorder.metric(measure, value, subject=title, source="live")
    if faces:
        figure = show_grid(list(faces.values()), list(faces), size=1.0)
        recorder.figure(figure, "faces", caption="Reconstructions, and edits of yaw.", headline=True)
    parameters = {"seed": 0, "world": bench.world.name, "name": name, **facts, **asdict(bench.sizes)}
    run = {"notebook": "bench", "profile": "bench", "key": bench.version, "parameters": parameters}
    record = Record.of_run(began, device="cpu", **run)
    about = f"{name} on version {bench.version} of the bench"
    outcome = Outcome(notebook="bench", state="done", seconds=record.seconds, reason=remark)
    record.write(folder / "bench")
    origin = {fact: getattr(record, fact) for fact in _ORIGIN}
    row = rows.iloc[[0]].drop(columns="origin").assign(bench=bench.version, **parameters, **origin)
    write_text(folder / "row.csv", row.rename_axis("variant").to_csv())
    status = Status(profile="bench", about=about, notebooks=[outcome])
    write_run(folder, status, provenance_rows(folder / "bench", record))
    page = portable_report(folder, target=folder)
    shown = [f"{k}\n\n{t.to_string(float_format='{:.3g}'.format, na_rep='-')}" for k, t in tables.items()]
    return "\n\n".join([*shown, remark, f"row: {folder / 'row.csv'}\nreport: {page}"])
