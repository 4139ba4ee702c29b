"""Edits, curves, directions and generators measured in a world so simple that every number is known."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from clcae_lib.editing import Direction, cached_directions, find_directions
from clcae_lib.evaluation import (
    EditBench,
    GeneratorMeasure,
    Judges,
    at_equal_response,
    effect_matrix,
    front,
    images_at_response,
    measure_curve,
    measure_edits,
    same_person_similarity,
    true_edit,
)
from clcae_lib.models import Generator
from clcae_lib.worlds import World, WorldError
from tests.unit._bands import DIM, NAMES, SCALE, SIDE, STD, Bands, Exact, Painter, Portraits, direction, paint

FINDERS = ["interfacegan", "ganspace", "sefa", "alignment"]


def bench_of(factors, **options):
    return EditBench(Exact(), paint(factors), factors, Judges.of(Bands()), **options)


@pytest.fixture
def bench():
    return bench_of(Portraits(40).values)


# ------------------------------------------------------------------- edits


@pytest.mark.parametrize(("space", "error"), [("w", 0.2), ("w_plus", 0.1), ("f", 0.0)])
def test_an_exact_edit_is_seen_as_exact(bench, space, error):
    table = measure_edits(replace(bench, space=space), {"smile": direction("smile")})
    assert table["moved"].tolist() == pytest.approx([1.0] * 40, abs=1e-4)
    assert table["reached"].all()
    assert table[["leakage", "leakage_truth"]].max().max() < 1e-4
    assert (table["moved_from_original"] - table["moved"]).abs().max() == pytest.approx(error, abs=1e-4)
    if space == "f":
        assert table["truth_distance"].max() < 1e-6
        assert table[["identity", "identity_truth"]].min().min() > 0.9999


@pytest.mark.parametrize("factor", [0.3, 2.0])
def test_the_true_edit_has_the_response_of_the_edits_and_not_their_strength(factor):
    bench = bench_of(0.1 * Portraits(40).values)
    strong = Direction(factor * direction("smile").vector, "smile")
    table = measure_edits(bench, {"smile": strong})
    assert table["moved"].tolist() == pytest.approx([factor] * 40, abs=1e-4)
    assert table["wanted"].tolist() == pytest.approx([factor] * 40, abs=1e-4)
    assert table["truth_distance"].max() < 1e-6
    curve = measure_curve(bench, {"smile": strong}, strengths=[1, 4])
    read = at_equal_response(curve, n=1).iloc[0]
    assert read["strength"] == pytest.approx(1 / factor, rel=1e-3)
    assert read["truth_distance"] < 1e-6


def test_leakage_is_the_root_mean_square_of_what_else_moved(bench):
    table = measure_edits(bench, {"smile": direction("smile", others=("yaw", "nose"))})
    of_yaw_and_glasses, of_the_nose = math.sqrt(1 / 2), math.cos(0.5)
    assert table["leakage"].tolist() == pytest.approx([of_yaw_and_glasses] * 40, abs=1e-4)
    assert table["identity"].tolist() == pytest.approx([of_the_nose] * 40, abs=1e-4)
    expected = (STD[0] / SCALE[0] + STD[3] / SCALE[3]).item() / DIM
    assert table["truth_distance"].tolist() == pytest.approx([expected] * 40, rel=1e-3)
    matrix = effect_matrix(table, factors=["yaw", "smile", "glasses"])
    assert matrix.loc["smile"].tolist() == pytest.approx([1, 1, 0], abs=1e-4)


def test_an_edit_the_wrong_way_or_too_weak_is_not_reached(bench):
    weak = Direction(0.4 * direction("glasses").vector, "glasses")
    edits = {"yaw": direction("yaw").flipped(), "glasses": weak, "smile": direction("smile")}
    table = measure_edits(bench, edits)
    moved = table.groupby("factor")["moved"].mean().to_dict()
    assert moved == pytest.approx({"yaw": -1, "glasses": 0.4, "smile": 1}, abs=1e-4)
    shares = table.groupby("factor")["reached"].mean().to_dict()
    assert shares == {"yaw": 0.0, "glasses": 0.0, "smile": 1.0}


def test_the_side_with_room_is_edited_and_the_truth_stays_in_range():
    factors = torch.tensor([[35.0, 0, 0, 0], [-35.0, 0, 0, 0]])
    bench = bench_of(factors)
    signs, changed = true_edit(bench.judges, factors, "yaw")
    assert (signs.tolist(), changed[:, 0].tolist()) == ([-1, 1], [25, -25])
    far = measure_edits(bench, {"yaw": direction("yaw")}, strength=10)
    assert far["wanted"].tolist() == pytest.approx([7.5, 7.5])
    assert far["strength"].tolist() == [-10, 10]
    assert far["moved"].tolist() == pytest.approx([7.5, 7.5], abs=1e-4)  # images end at black, and so at -40
    with pytest.raises(ValueError, match="'tail' is not a factor of bands: yaw, smile"):
        true_edit(bench.judges, factors, "tail")


def test_one_person_in_two_states_keeps_its_identity():
    assert same_person_similarity(Bands(), count=20).tolist() == pytest.approx([1.0] * 20, abs=1e-5)


# ------------------------------------------------------------------- curves and fronts


def test_methods_are_compared_at_equal_response():
    vector = torch.zeros(DIM)  # half as strong as it says; yaw leaks half of that
    vector[1], vector[0] = 0.5 * STD[1], 0.25 * STD[0]
    bench, edits = bench_of(0.1 * Portraits(30).values), {"exact": direction("smile").vector, "leaky": vector}
    curve = pd.concat(
        measure_curve(bench, {"smile": Direction(v, "smile")}, strengths=[0.5, 1, 2, 3]).assign(method=name)
        for name, v in edits.items()
    )
    table = at_equal_response(curve, by=["method"], n=50).set_index("method")
    assert table["strength"].to_dict() == pytest.approx({"exact": 1, "leaky": 2}, abs=1e-3)
    # At the response 1 yaw has moved by 0.5; of the two other state factors, glasses not at all.
    assert table["leakage"].to_dict() == pytest.approx({"exact": 0, "leaky": math.sqrt(0.5**2 / 2)}, abs=1e-3)
    assert table.loc["exact", "truth_distance"] == pytest.approx(0, abs=1e-4)
    assert table["reached"].tolist() == [1, 1]
    weak = curve[(curve["method"] == "leaky") & (curve["step"] < 2)]
    missed = at_equal_response(weak, by=["method"], n=20).iloc[0]
    assert missed["reached"] == 0
    assert missed[["leakage", "leakage_low"]].isna().all()
    with pytest.raises(ValueError, match="rising"):
        measure_curve(bench, {}, strengths=[1, 0.5])


def test_images_are_read_at_their_groups_strength_linearly_and_average_to_it():
    moved = {0: (0.2, 0.8, 1.4), 1: (0.6, 1.6, 3.0)}  # means 0.4, 1.2, 2.2: the response 0.8 is at 1.5
    rows = [
        {"factor": "smile", "image": i, "step": s, "moved": m, "leakage": i + s, "identity": 1 - s / 10}
        for i, values in moved.items()
        for s, m in zip((1.0, 2.0, 3.0), values, strict=True)
    ]
    curve = pd.DataFrame(rows).assign(truth_distance=0.2, identity_unedited=1.0, inversion_distance=0.1)
    found = images_at_response(curve, response=0.8).set_index("image")
    assert found["strength"].tolist() == pytest.approx([1.5, 1.5])
    assert found["moved"].tolist() == pytest.approx([0.5, 1.1])
    assert found["leakage"].tolist() == pytest.approx([1.5, 2.5])
    mean = at_equal_response(curve, response=0.8, n=3).iloc[0]
    for name in ("strength", "leakage", "identity", "truth_distance"):
        assert found[name].mean() == pytest.approx(mean[name])
    early = images_at_response(curve, response=0.2).iloc[0]  # before the first strength: from no edit on
    assert early[["strength", "identity", "truth_distance"]].tolist() == pytest.approx([0.5, 0.95, 0.15])
    both = pd.concat([curve.assign(seed=0), curve.assign(seed=1, moved=0.0)])
    assert images_at_response(both, response=0.8, by=["seed", "factor"])["seed"].tolist() == [0, 0]
    assert len(images_at_response(curve, response=9)) == 0
    for read in (images_at_response, at_equal_response):
        with pytest.raises(ValueError, match="positive"):
            read(curve, response=0)


def test_the_front_is_what_nothing_beats():
    table = pd.DataFrame({"psnr": [20.0, 22, 21, 22, np.nan], "identity": [0.9, 0.7, 0.6, 0.7, 1.0]})
    found = front(table, fidelity="psnr", editability="identity")
    assert found["on_front"].tolist() == [True, True, False, True, False]


# ------------------------------------------------------------------- directions


def with_weights(generator):
    """Add modulation weights whose leading eigenvectors are the coordinates."""
    layer = nn.Module()
    layer.conv = nn.Module()
    layer.conv.modulation = nn.Module()
    rows = torch.eye(DIM).repeat_interleave(torch.tensor([4, 3, 2, 1]), dim=0)
    layer.conv.modulation.weight = nn.Parameter(rows)
    generator.conv1, generator.convs = layer, nn.ModuleList()
    return generator


@pytest.mark.parametrize("method", FINDERS)
def test_directions_found_by_name_move_their_factor(bench, method, monkeypatch):
    world = Bands()
    if method == "sefa":
        world.generator = lambda device="cpu": with_weights(Painter())
    if method == "alignment":
        encoder = nn.Linear(DIM, DIM, bias=False).requires_grad_(False)
        monkeypatch.setattr(World, "require", lambda self, name, command: name)
        monkeypatch.setattr("clcae_lib.editing.find.load_alignment", lambda path, device: (None, encoder))
    found = find_directions(world, ["yaw", "glasses"], method, samples=2000, components=4)
    assert [d.name for d in found.values()] == ["yaw", "glasses"]
    moved = measure_edits(bench, found).groupby("factor")["moved"].mean().to_dict()
    assert moved == pytest.approx({"yaw": 0.8, "glasses": 0.8}, abs=0.05)  # labels were 1.25 too large
    with pytest.raises(ValueError, match="not a factor of bands: yaw, smile"):
        find_directions(world, ["tail"], method)


def test_stylespace_is_found_by_name_and_a_missing_alignment_is_named():
    torch.manual_seed(0)
    world, generator = Bands(), Generator(SIDE, DIM, 2, channels={4: 6, 8: 6, 16: 6}).eval()
    world.generator = lambda device="cpu": generator.requires_grad_(False)
    options = {"effect_codes": 8, "calibrated_on": 16, "channels": 5}
    found = find_directions(world, ["glasses"], "stylespace", **options)["glasses"]
    assert (found.space, found.layers, int((found.vector != 0).sum())) == ("s", None, 5)
    assert found.provenance["moved"] > 0
    with pytest.raises(WorldError, match="clcae train alignment"):
        find_directions(world, ["yaw"], "alignment", samples=100)


def test_directions_are_found_once_for_equal_arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path))
    world, options = Bands(), {"samples": 500, "calibrated_on": 16}
    first = cached_directions(world, ["yaw"], **options)
    world.generator = None  # would fail if it were called
    again = cached_directions(world, ["yaw"], **options)
    assert torch.equal(first["yaw"].vector, again["yaw"].vector)
    assert first["yaw"].unit == again["yaw"].unit
    for other in ({"seed": 1}, {"channels": 5}, {"conditional": False}):
        with pytest.raises(TypeError):
            cached_directions(world, ["yaw"], **options, **other)


# ------------------------------------------------------------------- generators


def test_a_generator_that_draws_the_truth_is_as_close_as_renders_are():
    card = GeneratorMeasure(Bands(), samples=600)()
    assert max(card["frechet"], card["frechet_renders"]) < 0.1
    assert min(card["precision"], card["recall"]) > 0.8
    assert list(card["factors"]) == list(NAMES[:3])
    assert max(card["factors"].values()) < 0.2
    assert list(card["spread"].values()) == pytest.approx([1, 1, 1], abs=0.1)
    assert (card["features"], card["samples"]) == ("plain difference", 600)


def test_a_collapsed_generator_shows_in_every_number():
    card = GeneratorMeasure(Bands(spread=0.1), samples=600)()
    assert card["frechet"] == pytest.approx(4 * 0.9**2, rel=0.1)  # four factors, spread 0.1 for 1
    assert card["recall"] < 0.1
    assert card["precision"] > 0.9
    assert list(card["spread"].values()) == pytest.approx([0.1] * 3, abs=0.02)
    assert card["factors"]["smile"] == pytest.approx(0.9 * math.sqrt(2 / math.pi), rel=0.1)
    assert card["factors"][card["worst_factor"]] == max(card["factors"].values())
