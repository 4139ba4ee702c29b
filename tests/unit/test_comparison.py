"""The bench that methods are compared on, and what trains and gathers the comparison."""

import math

import pandas as pd
import pytest

from clcae_lib.editing import Direction
from clcae_lib.evaluation import Bench, Judges
from clcae_lib.inversion import METHODS, make_inverter
from clcae_lib.suite import sweep_tables
from clcae_lib.training.comparison import train_inverter
from clcae_lib.worlds import get_world

pytestmark = pytest.mark.xdist_group("comparison")  # what these tests share is made once, in one worker

SPACES = {"mean_face": "w", "clcae": "f"}


@pytest.fixture(scope="module")
def bench():
    world = get_world("portraits")
    generator = world.generator("cpu")
    yaw = Direction(generator.w_std / generator.w_std.norm(), "yaw", "w")
    counts = {"images": 4, "edits": 3, "accessories": 3, "codes": 5}
    return Bench.of(Judges.of(world, "cpu"), {"yaw": yaw}, strengths=(1.0, 2.0), **counts)


@pytest.fixture(scope="module")
def measured(bench):
    inverters = {name: make_inverter(name, bench.judges.world, device="cpu") for name in SPACES}
    return {n: bench.measure(i, method=n, space=SPACES[n], seed=3) for n, i in inverters.items()}


@pytest.mark.parametrize("name", list(SPACES))
def test_every_table_names_the_method_and_has_its_rows(measured, name):
    one = measured[name]
    tables = [one.records, one.curves, one.codes, one.details, one.sets]
    assert all(set(table["method"]) == {name} and set(table["seed"]) == {3} for table in tables)
    assert (len(one.curves), len(one.codes), len(one.details)) == (3 * 2, 5, 3)
    assert one.records["image"].tolist()[:4] == ["test/0", "test/1", "test/2", "test/3"]
    assert one.sets["count"].item() == 3
    assert one.reconstructions.shape == one.edited.shape == (3, 3, 64, 64)
    assert math.isfinite(one.sets["frechet"].item())


def test_an_encoder_beats_the_mean_face_on_it(measured):
    face, clcae = measured["mean_face"], measured["clcae"]
    psnr = [m.records.groupby("space")["psnr"].mean().max() for m in (face, clcae)]
    assert psnr[1] > psnr[0] + 5
    assert clcae.codes["code_distance"].mean() < face.codes["code_distance"].mean()
    assert face.codes["code_distance"].mean() == pytest.approx(1, abs=0.5)
    assert clcae.details["kept"].median() > face.details["kept"].median()


def test_more_edits_than_images_are_refused(bench):
    with pytest.raises(ValueError, match="edits=9: only images=4"):
        Bench.of(bench.judges, bench.directions, images=4, edits=9)


@pytest.mark.parametrize("name", ["psp", "clcae"])
def test_an_encoder_is_trained_by_name(tmp_path, name, bench):
    settings = {"device": "cpu", "images": 32, "batch_size": 4, "start": "fresh"}
    inverter = train_inverter(name, tmp_path, steps=2, **settings)
    found = inverter.invert(bench.images[:2])
    assert found.spaces[-1] == METHODS[name].space
    assert (tmp_path / "state.pt").is_file()


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
