"""Reconstructions, records, styles, retrieval, sets and cost, each in cases whose numbers are known."""

import math

import pytest
import torch
from torch import nn

from clcae_lib.evaluation import (
    Judges,
    StyleStatistics,
    cost_table,
    evaluate_inversion,
    neighbour_retrieval,
    oracle_check,
    parameter_count,
    peak_memory,
    reconstruction_records,
    set_distances,
    time_paired,
)
from tests.unit._bands import NAMES, SCALE, STD, Bands, Exact, Painter, Portraits, paint
from tests.unit._tiny import tiny_generator


@pytest.fixture
def judges():
    return Judges(Bands(), torch.device("cpu"))


# ------------------------------------------------------------------- reconstructions


def test_reconstruction_errors_are_those_of_the_inverter(judges):
    factors = Portraits(40).values
    table = evaluate_inversion(Exact(), paint(factors), judges=judges, factors=factors)
    assert len(table) == 3 * 40
    assert table["perceptual_name"].unique().tolist() == ["plain difference"]
    means = table.groupby("space").mean(numeric_only=True)
    assert means["factor_error"].to_dict() == pytest.approx({"w": 0.2, "w_plus": 0.1, "f": 0}, abs=1e-5)
    assert means["factor_error_render"].max() == pytest.approx(0, abs=1e-5)
    step = (0.1 * STD / SCALE).square().mean().item()
    assert means.loc["w_plus", "mse"] == pytest.approx(step, rel=1e-4)
    assert means.loc["w_plus", "psnr"] == pytest.approx(10 * math.log10(4 / step), abs=0.01)
    assert means.loc["w", "identity"] == pytest.approx(math.cos(0.1), abs=1e-5)  # 0.2 of 0.5
    assert means.loc["f", "ssim"] == pytest.approx(1, abs=1e-5)
    assert means.loc["w", "perceptual"] == pytest.approx((0.2 * STD / SCALE).mean().item(), rel=1e-4)


def test_the_regressor_is_checked_on_renders_and_on_reconstructions(judges):
    factors = Portraits(40).values
    blurred = paint(factors * torch.tensor([1.0, 0.5, 1.0, 1.0]))
    table = oracle_check(blurred, paint(factors), factors, judges=judges).set_index("factor")
    assert list(table.index) == list(NAMES[:3])
    assert table["r2_renders"].tolist() == pytest.approx([1, 1, 1])
    mean, spread = factors[:, 1].mean().item(), factors[:, 1].std(correction=0).item()
    expected = 1 - 0.25 * (1 + (mean / spread) ** 2)
    assert table.loc["smile", "r2_inversions"] == pytest.approx(expected, abs=1e-4)


def doubled(images):
    return images.repeat_interleave(2, 2).repeat_interleave(2, 3)


class Large(Painter):
    def synthesis(self, *args, **options):
        return doubled(super().synthesis(*args, **options))


def records(judges, **options):
    images = doubled(Portraits(5).images(range(5)))
    return reconstruction_records(Exact(Large()), images, method="exact", seed=3, judges=judges, **options)


def test_every_image_and_space_is_a_row_with_its_origin(judges, monkeypatch):
    monkeypatch.setattr("clcae_lib.evaluation.reconstruction.find_alexnet", lambda: None)
    ids = [f"test/{i}" for i in range(5)]
    frame = records(judges, image_ids=ids)
    assert len(frame) == 15
    assert frame["image"].tolist()[:5] == ids
    assert frame[["method", "seed", "world"]].drop_duplicates().values.tolist() == [["exact", 3, "bands"]]
    assert frame["versions"].str.contains("torch").all()
    assert frame["lpips"].isna().all()
    assert frame["ms_ssim_scales"].unique().tolist() == [2]
    means = frame.groupby("space")[["mse", "ms_ssim", "perceptual", "identity"]].mean()
    assert means.loc["f"].tolist() == pytest.approx([0, 1, 0, 1], abs=1e-5)
    assert means.loc["w_plus", "mse"] == pytest.approx((0.1 * STD / SCALE).square().mean().item(), rel=1e-4)
    with pytest.raises(ValueError, match="give one different name"):
        records(judges, image_ids=["a"] * 5)


# ------------------------------------------------------------------- codes


class Stretched(nn.Module):
    """A generator whose styles are its codes, shifted and stretched."""

    def sample_w(self, n, *, generator):
        return torch.randn(n, 3, generator=generator)

    def styles(self, w):
        return 5 + 2 * w


def test_style_distance_of_codes_in_and_off_the_distribution():
    net = Stretched()
    statistics = StyleStatistics(net, torch.full((3,), 5.0), torch.full((3,), 2.0), torch.eye(3)[:2])
    codes = torch.tensor([[3.0, 0, 0], [1, 1, 0], [0, 0, 2]])
    truth = torch.tensor([[1.0, 0, 0], [-1, -1, 0], [0, 1, 0]])
    table = statistics.measure(codes, truth=truth)
    assert table["style_distance"].tolist() == pytest.approx([0, 1 - math.sqrt(0.5), 1], abs=1e-6)
    assert table["style_size"].tolist() == pytest.approx([3**0.5, (2 / 3) ** 0.5, 2 / 3**0.5])
    assert table["style_error"].tolist() == pytest.approx([0, 2, 1], abs=1e-6)
    measured = StyleStatistics.of(net, samples=20000)
    assert measured.mean.tolist() == pytest.approx([5.0] * 3, abs=0.05)
    assert measured.std.tolist() == pytest.approx([2.0] * 3, rel=0.02)


def test_real_styles_have_size_one_and_scattered_rows_leave_the_distribution():
    net = tiny_generator()
    statistics = StyleStatistics.of(net, samples=2000)
    w = net.sample_w(200, generator=torch.Generator().manual_seed(9))
    own = statistics.measure(w, truth=w)
    assert own["style_size"].pow(2).mean() == pytest.approx(1, abs=0.1)
    assert own["style_error"].abs().max() < 1e-5
    rows = net.sample_w(200 * net.n_latent, generator=torch.Generator().manual_seed(10))
    mixed = statistics.measure(rows.unflatten(0, (200, -1)))
    assert mixed["style_distance"].mean() > 2 * own["style_distance"].mean()


class Echo(nn.Module):
    """A generator whose images are its codes, so that an encoder can be exact."""

    def sample_w(self, n, *, generator):
        return 2 * torch.randn(n, 16, generator=generator)

    def synthesis(self, w):
        return w.view(len(w), 1, 4, 4)


def test_neighbours_are_found_by_an_exact_encoder_and_by_chance_otherwise():
    exact = neighbour_retrieval(lambda x: x.flatten(1), lambda w: w, Echo(), codes=60, distractors=20)
    assert exact == dict.fromkeys((0.1, 0.2, 0.5, 1.0), 1.0)
    source = torch.Generator().manual_seed(3)

    def blind(batch):
        return torch.randn(len(batch), 4, generator=source)

    found = neighbour_retrieval(blind, blind, Echo(), codes=400, distractors=9, steps=(1.0,))
    assert found[1.0] == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 400))


def test_neighbours_further_off_are_easier():
    source = torch.Generator().manual_seed(5)

    def blurred(images):
        return images.flatten(1) + 0.5 * torch.randn(images.shape[0], 16, generator=source)

    accuracy = neighbour_retrieval(blurred, lambda w: w, Echo(), codes=150, steps=(0.05, 0.3, 2.0))
    assert accuracy[0.05] < accuracy[0.3] < accuracy[2.0]


# ------------------------------------------------------------------- sets and cost


def test_distances_of_sets_state_how_they_were_measured(judges):
    factors = Portraits(60).values
    images, shifted = paint(factors), paint(factors + torch.tensor([0.0, 0.5, 0, 0]))
    found = set_distances(shifted, images, judges=judges, count=60)
    assert found["frechet"] == pytest.approx(1, abs=1e-3), "means one standard deviation apart"
    assert (found["count"], found["side"], found["resize"], found["seed"]) == (60, 16, "none", 0)
    assert found["dtype"] == "features float32, distances float64"
    assert (found["features"], found["dimensions"]) == ("plain difference", len(NAMES))
    again = [set_distances(shifted, images, judges=judges, count=20, seed=s)["kernel"] for s in (1, 1, 2)]
    assert again[0] == again[1] != again[2]
    resized = set_distances(images, doubled(images), judges=judges, count=60)
    assert resized["resize"] == "bilinear, antialiased"
    assert resized["frechet"] < 0.1
    with pytest.raises(ValueError, match="count=61"):
        set_distances(images, images, judges=judges, count=61)


def test_times_are_medians_of_turns_taken(monkeypatch):
    now, calls = [0.0], []
    durations = {"a": iter([9.0, 1, 50, 2]), "b": iter([9.0, 4, 4, 4])}

    def run(name):
        def invert(images):
            calls.append(name)
            now[0] += next(durations[name])

        return invert

    methods = {name: run(name) for name in "ab"}
    monkeypatch.setattr("clcae_lib.evaluation.cost.time.perf_counter", lambda: now[0])
    found = time_paired(methods, torch.zeros(4, 3, 8, 8), runs=3)
    assert found == {"a": 500.0, "b": 1000.0}, "medians 2 s and 4 s over four images, without the first turn"
    assert calls == list("abababab")
    with pytest.raises(ValueError, match="runs=0"):
        time_paired(methods, torch.zeros(1, 3, 8, 8), runs=0)


def test_cost_counts_shared_parameters_once_and_sees_memory():
    layer = nn.Linear(10, 5)
    assert parameter_count(layer, nn.Sequential(layer, nn.Linear(5, 1))) == 55 + 6
    images = torch.zeros(2, 3, 8, 8)
    held = peak_memory(lambda _: torch.ones(25_000_000), images)  # 100 MB of float32
    assert math.isnan(held) or held == pytest.approx(100, rel=0.15)
    methods = {"linear": lambda x: layer(x.flatten()[:10])}
    table = cost_table(methods, images, modules={"linear": (layer,)}, images_seen={"linear": 7}, runs=2)
    assert table.loc[0, ["parameters", "images_seen", "batch", "runs"]].tolist() == [55, 7, 2, 2]
    assert table.loc[0, "ms_per_image"] > 0
