"""The open bench: other people's inverters and finders beside the committed methods."""

import re
import sys
from functools import partial
from importlib.metadata import EntryPoint

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from clcae_lib import cli, paths
from clcae_lib.editing import Direction
from clcae_lib.inversion import Inversion, MeanFaceInverter, make_inverter
from clcae_lib.suite import guests, sweep_tables
from clcae_lib.suite.bench import OpenBench, Sizes, bench_directions, summary
from clcae_lib.suite.bench import committed as committed_rows
from clcae_lib.suite.guests import CheckedInverter, GuestError, find_checked, load_guest
from clcae_lib.worlds import get_world

pytestmark = pytest.mark.xdist_group("bench")  # what these tests share is made once, in one worker

COUNTS = {"images": 8, "edits": 4, "accessories": 4, "codes": 4}
TINY = [text for name, count in COUNTS.items() for text in (f"--{name}", str(count))]
SIZES = Sizes(**COUNTS, labelled=200, calibrated=4)


class Bad(MeanFaceInverter):
    """The mean face with a fault."""

    fault, calls = "", 0

    def invert(self, images):
        found, self.calls = super().invert(images), self.calls + 1
        if self.fault == "changes":
            images.mul_(0.5)
        if self.fault == "tensor":
            return found.w
        if self.fault == "finite":
            found.w_plus[0, 3, 5] = float("nan")
        if self.fault == "repeat":
            return Inversion.from_w(found.w + 0.1 * self.calls, self.generator)
        if self.fault == "width":
            return Inversion(found.w[:, 1:], found.w_plus[..., 1:])
        if self.fault == "layers":
            return Inversion(found.w, found.w_plus[:, 1:])
        if self.fault == "feature":
            return Inversion(found.w, found.w_plus, torch.zeros(len(images), 5, 16, 16))
        return found


@pytest.fixture(scope="module")
def world():
    return get_world("portraits")


def example(page, number):
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[number]


@pytest.fixture
def page(repository):
    return (repository / "docs" / "bench.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def committed(world, tmp_path_factory):
    """Results with committed rows that repeat the mean face's measures of here, and submitted ones."""
    folder, bench = tmp_path_factory.mktemp("results"), OpenBench(world, SIZES)
    mean_face = bench.measure(make_inverter("mean_face", world, device="cpu"), "mean_face", "w", {})
    sweep = folder / "reference" / "sweeps" / "methods"
    sweep.mkdir(parents=True)
    for name, table in mean_face.items():
        variants = [table.assign(variant=variant) for variant in ("mean_face", "nearest_code", "psp")]
        pd.concat(variants).assign(seed=0, world=world.name).to_parquet(sweep / f"{name}.parquet")
    (folder / "reference" / "bench").mkdir()
    row = pd.DataFrame({"variant": ["theirs"], "psnr": 20.0})
    for name, version in (("a", bench.version), ("b", "0-another")):
        row.assign(bench=version).to_csv(folder / "reference" / "bench" / f"{name}.csv", index=False)
    return folder


@pytest.mark.slow
def test_the_documented_inverter_beats_the_trivial_ones_beside_committed_and_submitted_rows(
    page, committed, tmp_path, monkeypatch
):
    code = example(page, 0)
    assert len([line for line in code.splitlines() if line]) <= 20
    (tmp_path / "linear_inverter.py").write_text(code.replace("1024", "512"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr("clcae_lib.suite.bench.Sizes", partial(Sizes, labelled=200, calibrated=4))
    monkeypatch.setenv("CLCAE_CACHE", str(paths.cache_dir()))
    monkeypatch.setenv("CLCAE_RESULTS", str(committed))
    arguments = ["bench", "linear_inverter:LinearInverter", *TINY, "--images-seen", "1024", "--output", "out"]
    found = CliRunner().invoke(cli.app, arguments)
    assert found.exit_code == 0, found.output
    rows = pd.read_csv(tmp_path / "out" / "bench" / "inversion.csv", index_col="variant")
    assert rows["origin"].to_dict() == {
        **{"LinearInverter": "here", "mean_face": "here"},
        **{"nearest_code": "committed", "psp": "committed", "theirs (submitted)": "submitted"},
    }
    assert rows.loc["LinearInverter", "psnr"] > rows.loc["mean_face", "psnr"] + 1
    assert rows.loc["LinearInverter", "images_seen"] == 1024
    edits = pd.read_csv(tmp_path / "out" / "bench" / "edits_at_equal_response.csv")
    kinds = {"yaw": "geometric", "smile": "geometric", "age": "appearance", "glasses": "appearance"}
    assert dict(zip(edits["factor"], edits["kind"], strict=True)) == kinds
    row = pd.read_csv(tmp_path / "out" / "row.csv")
    assert row[["name", "world", "images"]].iloc[0].tolist() == [arguments[1], "portraits", 8]
    assert re.fullmatch(r"2-[0-9a-f]{12}", row["bench"].item())
    assert "LinearInverter" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    for text in ("edits at equal response", "A trivial method is as good or better in:", "row.csv"):
        assert text in found.output


def test_committed_rows_of_another_bench_are_not_taken(committed, world, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_RESULTS", str(committed))
    tables, bench = sweep_tables("methods"), OpenBench(world, SIZES)
    mean_face = summary(tables).loc["mean_face"]
    assert set(committed_rows(bench, mean_face).index) == {"nearest_code", "psp"}
    assert committed_rows(bench, mean_face + 1).empty, "the mean face has other values here"
    assert committed_rows(OpenBench(world, Sizes()), mean_face).empty, "not as many images"
    monkeypatch.setenv("CLCAE_RESULTS", str(tmp_path))
    assert committed_rows(bench, mean_face).empty, "there are none"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("changes", "changes the images"),
        ("tensor", "returns Tensor; return clcae_lib.inversion.Inversion"),
        ("finite", "not finite"),
        ("repeat", "other codes for the same images in a second call"),
        ("width", r"returns w of shape \(4, 127\); it must be \(4, 128\)"),
        ("layers", r"returns w_plus of shape \(4, 9, 128\); it must be \(4, 10, 128\)"),
        ("feature", r"returns feature of shape \(4, 5, 16, 16\); it must be \(4, 96, 16, 16\)"),
    ],
)
def test_what_does_not_keep_to_the_protocol_is_refused(world, monkeypatch, fault, message):
    monkeypatch.setattr(Bad, "fault", fault)
    inverter = CheckedInverter.load(f"{__name__}:Bad", world)
    with pytest.raises(GuestError, match=message):
        inverter.check_repeatable(torch.full((4, 3, 64, 64), 0.5))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_here:A", "there is no module 'no_such_module_here'"),
        ("clcae_lib.inversion:Nothing", "does not define 'Nothing'"),
        ("nothing", "neither package.module:Name nor an entry point of clcae.inverters"),
        ("clcae_lib.inversion:Inversion", "not a class with a method invert"),
    ],
)
def test_a_wrong_name_is_one_line(name, message):
    found = CliRunner().invoke(cli.app, ["bench", name, *TINY])
    assert (found.exit_code, len(found.output.splitlines())) == (2, 1)
    assert message in found.output


def test_missing_weights_and_more_edits_than_images_are_one_line():
    for extra, message in {
        ("--weights", "none.pt"): "--weights none.pt: there is no such file",
        ("--edits", "9"): "--edits 9: only 8 images are inverted",
    }.items():
        found = CliRunner().invoke(cli.app, ["bench", f"{__name__}:Bad", *TINY, *extra])
        assert (found.exit_code, len(found.output.splitlines())) == (2, 1)
        assert message in found.output


def test_weights_reach_the_class(world, tmp_path, monkeypatch):
    class Weighted(MeanFaceInverter):
        def __init__(self, generator, weights):
            super().__init__(generator)
            self.read = weights.read_text()

    monkeypatch.setattr(sys.modules[__name__], "Weighted", Weighted, raising=False)
    (tmp_path / "w.txt").write_text("seven")
    loaded = CheckedInverter.load(f"{__name__}:Weighted", world, weights=tmp_path / "w.txt")
    assert loaded.guest.read == "seven"
    assert loaded.generator is not loaded.guest.generator
    with pytest.raises(GuestError, match=r"missing a required argument: 'weights'.*--weights"):
        CheckedInverter.load(f"{__name__}:Weighted", world)
    with pytest.raises(GuestError, match=r"too many positional arguments.*--weights"):
        CheckedInverter.load(f"{__name__}:Bad", world, weights=tmp_path / "w.txt")


def test_an_entry_point_is_found_by_its_name(monkeypatch):
    point = EntryPoint("mine", f"{__name__}:Bad", "clcae.inverters")
    monkeypatch.setattr(guests, "entry_points", lambda group: [point] if group == point.group else [])
    assert load_guest("mine", "clcae.inverters").__name__ == "Bad"


@pytest.mark.slow
def test_the_documented_finder_runs_beside_the_others(page, tmp_path, monkeypatch):
    (tmp_path / "gradient_finder.py").write_text(example(page, 1).replace("512", "200"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("clcae_lib.suite.bench.FINDERS", ("interfacegan",))  # the others take longer
    text = bench_directions("gradient_finder:find", sizes=SIZES, output=tmp_path)
    edits = pd.read_csv(tmp_path / "bench" / "edits_at_equal_response.csv")
    floor = {"find, mean_face", "find, nearest_code", "random"}
    assert set(edits["method"]) == {"find", *floor, "interfacegan"}
    yaw = edits[edits["factor"] == "yaw"].set_index("method")
    assert yaw.loc["find", "identity"] > yaw.loc["find, mean_face", "identity"] + 0.2
    assert "report: " in text


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (lambda: torch.zeros(128), "zero"),
        (lambda: torch.full([128], torch.nan), "not finite"),
        (lambda: torch.ones(7), "made for 7 numbers in a code; this generator has 128"),
        (lambda: torch.randn(128), "a second call finds another direction"),
        (lambda: None, "returns no clcae_lib.editing.Direction for 'yaw'"),
    ],
)
def test_a_finder_that_does_not_keep_to_the_protocol_is_refused(world, vector, message):
    def find(world, factors):
        return {name: Direction(made, name) for name in factors if (made := vector()) is not None}

    with pytest.raises(GuestError, match=message):
        find_checked(find, "find", world, ["yaw"])


def test_a_finder_is_a_function_that_returns_a_dict(world):
    for find, message in ((7, "not a function find"), (lambda world, factors: [], "returns list")):
        with pytest.raises(GuestError, match=message):
            find_checked(find, "find", world, ["yaw"])
