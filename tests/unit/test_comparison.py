"""The bench that methods are compared on, and what draws and gathers the comparison."""

import math

import pandas as pd
import pytest

from clcae_lib.editing import Direction
from clcae_lib.evaluation import Bench, Judges
from clcae_lib.inversion import METHODS, MeanFaceInverter, make_inverter
from clcae_lib.plots import show_methods
from clcae_lib.suite import sweep_tables
from clcae_lib.training.comparison import train_inverter
from clcae_lib.worlds import get_world


@pytest.fixture(scope="module")
def world():
    return get_world("portraits")


@pytest.fixture(scope="module")
def bench(world):
    generator = world.generator("cpu")
    yaw = Direction(generator.w_std / generator.w_std.norm(), "yaw", "w")
    counts = {"images": 4, "edits": 3, "accessories": 3, "codes": 5}
    return Bench.of(Judges.of(world, "cpu"), {"yaw": yaw}, strengths=(1.0, 2.0), **counts)


@pytest.mark.parametrize(("name", "space"), [("mean_face", "w"), ("clcae", "f")])
def test_every_table_names_the_method_and_has_its_rows(bench, world, name, space):
    measured = bench.measure(make_inverter(name, world, device="cpu"), method="m", space=space, seed=3)
    tables = [measured.records, measured.curves, measured.codes, measured.details, measured.sets]
    assert all(set(table["method"]) == {"m"} and set(table["seed"]) == {3} for table in tables)
    assert (len(measured.curves), len(measured.codes), len(measured.details)) == (3 * 2, 5, 3)
    assert measured.records["image"].tolist()[:4] == ["test/0", "test/1", "test/2", "test/3"]
    assert measured.sets["count"].item() == 3
    assert measured.reconstructions.shape == measured.edited.shape == (3, 3, 64, 64)
    assert math.isfinite(measured.sets["frechet"].item())


def test_an_encoder_beats_the_mean_face_on_it(bench, world):
    generator = world.generator("cpu")
    face = bench.measure(MeanFaceInverter(generator), method="face", space="w")
    clcae = bench.measure(make_inverter("clcae", world, device="cpu"), method="clcae", space="f")
    psnr = [m.records.groupby("space")["psnr"].mean().max() for m in (face, clcae)]
    assert psnr[1] > psnr[0] + 5
    assert clcae.codes["code_distance"].mean() < face.codes["code_distance"].mean()
    assert face.codes["code_distance"].mean() == pytest.approx(1, abs=0.5)
    assert clcae.details["kept"].median() > face.details["kept"].median()


def test_more_edits_than_pictures_are_refused(bench):
    with pytest.raises(ValueError, match="edits=9: only images=4"):
        Bench.of(bench.judges, bench.directions, images=4, edits=9)


@pytest.mark.parametrize("name", ["psp", "clcae"])
def test_an_encoder_is_trained_by_name(tmp_path, name, bench):
    settings = {"device": "cpu", "images": 32, "batch_size": 4, "start": "fresh"}
    inverter = train_inverter(name, tmp_path, steps=2, **settings)
    found = inverter.invert(bench.images[:2])
    assert found.spaces[-1] == METHODS[name].space
    assert (tmp_path / "state.pt").is_file()


def test_a_point_a_method_with_its_name_and_only_the_front_filled():
    table = pd.DataFrame(
        {"method": ["a", "b"], "kind": ["encoder", "CLCAE"], "x": [1.0, 2.0], "y": [2.0, 1.0]}
    )
    table = table.assign(x_low=table["x"] - 0.1, x_high=table["x"] + 0.1, on_front=[False, True])
    axis = show_methods(table, x="x", y="y", labels={"x": "dB"}).axes[0]
    assert {text.get_text() for text in axis.texts} == {"a", "b"}
    faces = {line.get_xdata()[0]: line.get_markerfacecolor() for line in axis.lines if len(line.get_xdata())}
    assert faces[1.0] == "white" != faces[2.0]
    assert axis.get_xlabel() == "dB"


def test_a_sweep_of_this_machine_comes_before_the_committed_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_RESULTS", str(tmp_path))
    assert sweep_tables("methods") == {}
    for origin, folder in (("reference", "reference/sweeps/methods"), ("sweep", "sweeps/methods")):
        (tmp_path / folder).mkdir(parents=True)
        pd.DataFrame({"psnr": [1.0]}).to_parquet(tmp_path / folder / "records.parquet")
        pd.DataFrame({"value": [1.0]}).to_parquet(tmp_path / folder / "runs.parquet")
        found = sweep_tables("methods")
        assert list(found) == ["records"]
        assert set(found["records"]["origin"]) == {origin}
    assert set(sweep_tables("methods", origins=["reference"])["records"]["origin"]) == {"reference"}
    assert sweep_tables("methods", origins=["live"]) == {}
