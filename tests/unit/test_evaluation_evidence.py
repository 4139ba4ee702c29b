"""Records, precision, curves, details, sets and cost, each in cases whose numbers are known beforehand."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from clcae_lib.editing import Direction
from clcae_lib.evaluation import (
    Judges,
    StyleSpace,
    at_equal_response,
    code_distance,
    cost_table,
    detail_kept,
    detail_table,
    frechet_distance,
    front,
    images_at_response,
    measure_curve,
    ms_ssim,
    ms_ssim_scales,
    parameter_count,
    peak_memory,
    reconstruction_records,
    set_distances,
    style_alignment,
    time_paired,
    write_records,
)
from tests.unit._tiny import tiny_generator
from tests.unit.test_evaluation_edits import NAMES, STD, Bands, Exact, Portraits, direction, paint

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def judges():
    return Judges.of(Bands())


# ------------------------------------------------------------------- MS-SSIM


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (32, 2), (64, 3), (128, 4), (176, 5), (1024, 5)])
def test_small_pictures_have_fewer_scales(side, scales):
    assert ms_ssim_scales(side) == scales
    with pytest.raises(ValueError, match="smaller than its window"):
        ms_ssim_scales(10)


def test_ms_ssim_of_flat_pictures_in_closed_form():
    a, b, c1 = 0.3, 0.2, (0.01 * 2) ** 2
    luminance = (2 * a * b + c1) / (a * a + b * b + c1)
    found = ms_ssim(torch.full((2, 3, 64, 64), a), torch.full((2, 3, 64, 64), b))
    assert found.tolist() == pytest.approx([luminance ** (WEIGHTS[2] / WEIGHTS[:3].sum())] * 2, abs=1e-4)


def terms(x, y):
    """Luminance with contrast over all pixels, and contrast alone without the border, by scipy's filter."""

    def blur(z):
        return gaussian_filter(z, 1.5, truncate=5 / 1.5, mode="mirror")

    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    contrast = (2 * cov + c2) / (vx + vy + c2)
    similarity = contrast * (2 * mx * my + c1) / (mx * mx + my * my + c1)
    return similarity.mean(), contrast[5:-5, 5:-5].mean()


def test_ms_ssim_equals_another_implementation():
    x = torch.tanh(random(1, 3, 64, 64))
    y = (x + 0.3 * random(1, 3, 64, 64, seed=1)).clamp(-1, 1)
    a, b = x[0].double().numpy(), y[0].double().numpy()
    product = 1.0
    for scale, weight in enumerate(WEIGHTS[:3] / WEIGHTS[:3].sum()):
        each = np.array([terms(p, q) for p, q in zip(a, b, strict=True)]).mean(axis=0)
        product *= each[0 if scale == 2 else 1] ** weight
        a, b = (z.reshape(3, z.shape[1] // 2, 2, z.shape[2] // 2, 2).mean(axis=(2, 4)) for z in (a, b))
    assert ms_ssim(x, y).item() == pytest.approx(product, abs=1e-4)
    assert ms_ssim(x, x).item() == pytest.approx(1)


# ------------------------------------------------------------------- records


def records(judges, **options):
    images = Portraits(5).images(range(5)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return reconstruction_records(_Twice(), images, method="exact", seed=3, judges=judges, **options)


class _Twice:
    """`Exact`, at twice the side."""

    class generator(Exact.generator.__class__):  # noqa: N801
        def synthesis(self, *args, **options):
            return super().synthesis(*args, **options).repeat_interleave(2, 2).repeat_interleave(2, 3)

    generator = generator()

    def invert(self, images):
        return Exact().invert(images[:, :, ::2, ::2])


def test_every_image_and_space_is_a_row_with_its_origin(judges, monkeypatch):
    monkeypatch.setattr("clcae_lib.evaluation.records.find_alexnet", lambda: None)
    judges = Judges(judges.world, judges.device)
    ids = [f"test/{i}" for i in range(5)]
    frame = records(judges, image_ids=ids)
    assert len(frame) == 15
    assert frame["image"].tolist()[:5] == ids
    origin = frame[["method", "seed", "world", "device"]].drop_duplicates().values.tolist()
    assert [row[:3] for row in origin] == [["exact", 3, "bands"]]
    assert frame["versions"].str.contains("torch").all()
    assert frame["lpips"].isna().all()
    assert frame["ms_ssim_scales"].unique().tolist() == [2]
    means = frame.groupby("space")[["mse", "ms_ssim", "perceptual", "identity"]].mean()
    assert means.loc["f"].tolist() == pytest.approx([0, 1, 0, 1], abs=1e-5)
    step = (0.1 * STD / torch.tensor([40.0, 2, 2, 2])).square().mean().item()
    assert means.loc["w_plus", "mse"] == pytest.approx(step, rel=1e-4)
    with pytest.raises(ValueError, match="each one needed once"):
        records(judges, image_ids=["a"] * 5)


def test_records_are_written_once_however_often_they_are_measured(judges, tmp_path):
    frame = records(judges)
    path = write_records(frame, tmp_path / "records.parquet")
    write_records(frame.assign(psnr=1.0), path)
    write_records(frame.assign(method="other", seed=4), path)
    kept = pd.read_parquet(path)
    assert len(kept) == 30
    assert kept[kept["method"] == "exact"]["psnr"].unique().tolist() == [1.0]
    table = pd.read_csv(path.with_suffix(".csv")).set_index(["method", "space", "metric"])
    mean = frame[frame["space"] == "w"]["mse"].mean()
    assert table.loc[("other", "w", "mse"), "value"] == pytest.approx(mean, rel=1e-5)
    assert table.loc[("other", "w", "mse"), ["images", "seeds"]].tolist() == [5, 1]
    with pytest.raises(ValueError, match="other columns"):
        write_records(frame.drop(columns="ssim"), path)
    with pytest.raises(ValueError, match="lack world"):
        write_records(frame.drop(columns="world"), path)


# ------------------------------------------------------------------- precision


def test_code_distance_in_standard_deviations():
    truth = torch.zeros(2, 4)
    found = torch.tensor([[2.0, 2, 2, 2], [4, 0, 0, 0]])
    assert code_distance(found, truth, w_std=torch.full((4,), 2.0)).tolist() == pytest.approx([1, 1])
    w = random(4000, 64)
    halves = code_distance(w[:2000], w[2000:], w_std=w.std(dim=0))
    assert halves.mean().item() == pytest.approx(math.sqrt(2), rel=0.02)


class Identity(nn.Module):
    """A generator whose styles are its codes, shifted and stretched."""

    def sample_w(self, n, *, generator):
        return torch.randn(n, 3, generator=generator)

    def styles(self, w):
        return 5 + 2 * w


def test_style_distance_of_codes_in_and_off_the_distribution():
    net = Identity()
    space = StyleSpace(torch.full((3,), 5.0), torch.full((3,), 2.0), torch.eye(3)[:2])
    codes = torch.tensor([[3.0, 0, 0], [1, 1, 0], [0, 0, 2]])
    truth = torch.tensor([[1.0, 0, 0], [-1, -1, 0], [0, 1, 0]])
    table = style_alignment(net, codes, space=space, truth=truth)
    assert table["style_distance"].tolist() == pytest.approx([0, 1 - math.sqrt(0.5), 1], abs=1e-6)
    assert table["style_size"].tolist() == pytest.approx([3**0.5, (2 / 3) ** 0.5, 2 / 3**0.5])
    assert table["style_error"].tolist() == pytest.approx([0, 2, 1], abs=1e-6)
    measured = StyleSpace.of(net, samples=20000)
    assert measured.mean.tolist() == pytest.approx([5.0] * 3, abs=0.05)
    assert measured.std.tolist() == pytest.approx([2.0] * 3, rel=0.02)


def test_real_styles_have_size_one_and_scattered_rows_leave_the_distribution():
    net = tiny_generator()
    space = StyleSpace.of(net, samples=2000)
    w = net.sample_w(200, generator=torch.Generator().manual_seed(9))
    own = style_alignment(net, w, space=space, truth=w)
    assert own["style_size"].pow(2).mean() == pytest.approx(1, abs=0.1)
    assert own["style_error"].abs().max() < 1e-5
    rows = net.sample_w(200 * net.n_latent, generator=torch.Generator().manual_seed(10))
    mixed = style_alignment(net, rows.unflatten(0, (200, -1)), space=space)
    assert mixed["style_distance"].mean() > 2 * own["style_distance"].mean()


# ------------------------------------------------------------------- curves and fronts


def leaky():
    vector = torch.zeros(4)
    vector[1], vector[0] = 0.5 * STD[1], 0.25 * STD[0]  # half as strong as it says; yaw leaks half of that
    return Direction(vector, "smile")


def test_methods_are_compared_at_equal_response(judges):
    data = Portraits(30)
    images, factors = 0.1 * data.images(range(30)), 0.1 * data.factors(range(30))
    both = [
        measure_curve(Exact(), {"smile": way}, images, factors, judges=judges, strengths=[0.5, 1, 2, 3])
        for way in (direction("smile"), leaky())
    ]
    curve = pd.concat([f.assign(method=m) for f, m in zip(both, ("exact", "leaky"), strict=True)])
    table = at_equal_response(curve, by=["method"], n=50).set_index("method")
    assert table["strength"].to_dict() == pytest.approx({"exact": 1, "leaky": 2}, abs=1e-3)
    # At the response 1 yaw has moved by 0.5; of the two other state factors, glasses not at all.
    assert table["leakage"].to_dict() == pytest.approx({"exact": 0, "leaky": math.sqrt(0.5**2 / 2)}, abs=1e-3)
    assert table.loc["exact", "truth_distance"] == pytest.approx(0, abs=1e-4)
    assert table["reached"].tolist() == [1, 1]
    weak = curve[(curve["method"] == "leaky") & (curve["step"] < 2)]
    missed = at_equal_response(weak, by=["method"], n=20).iloc[0]
    assert missed["reached"] == 0
    assert math.isnan(missed["leakage"])
    assert math.isnan(missed["leakage_low"])
    with pytest.raises(ValueError, match="rise"):
        measure_curve(Exact(), {}, images, factors, judges=judges, strengths=[1, 0.5])
    with pytest.raises(ValueError, match="positive"):
        at_equal_response(curve, response=0)


def test_between_two_strengths_a_curve_is_linear():
    rows = [
        {"factor": "smile", "image": 0, "step": s, "moved": m, "leakage": v, "identity": 1 - v}
        for s, m, v in ((1.0, 0.5, 0.1), (2.0, 1.5, 0.5))
    ]
    shared = {"truth_distance": 0.2, "identity_unedited": 1.0, "inversion_distance": 0.2}
    found = at_equal_response(pd.DataFrame(rows).assign(**shared), n=3).iloc[0]
    assert found[["strength", "leakage", "identity", "leakage_low"]].tolist() == pytest.approx(
        [1.5, 0.3, 0.7, 0.3]
    )


def test_pictures_are_read_at_their_groups_strength_and_average_to_it():
    moved = {0: (0.2, 0.8, 1.4), 1: (0.6, 1.6, 3.0)}  # means 0.4, 1.2, 2.2: the response 0.8 lies at 1.5
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
    for name in ("leakage", "identity", "truth_distance"):
        assert found[name].mean() == pytest.approx(mean[name])
    early = images_at_response(curve, response=0.2).iloc[0]  # before the first strength: from no edit on
    assert early[["strength", "identity", "truth_distance"]].tolist() == pytest.approx([0.5, 0.95, 0.15])
    both = pd.concat([curve.assign(seed=0), curve.assign(seed=1, moved=0.0)])
    assert images_at_response(both, response=0.8, by=["seed", "factor"])["seed"].tolist() == [0, 0]
    assert len(images_at_response(curve, response=9)) == 0
    with pytest.raises(ValueError, match="positive"):
        images_at_response(curve, response=-1)


def test_the_front_is_what_nothing_beats():
    table = pd.DataFrame({"psnr": [20.0, 22, 21, 22, np.nan], "leak": [0.1, 0.3, 0.4, 0.3, 0.0]})
    found = front(table, fidelity="psnr", editability="leak", higher=(True, False))
    assert found["on_front"].tolist() == [True, True, False, True, False]


# ------------------------------------------------------------------- details


def test_a_detail_is_kept_half_where_half_of_it_is_painted():
    bare = torch.zeros(3, 3, 16, 16)
    worn = bare.clone()
    worn[:2, :, :4, :8] = 1.0
    worn[2, :, 0, :3] = 1.0  # three pixels: too small
    assert detail_kept(worn, worn, bare)[:2].tolist() == [1, 1]
    assert detail_kept(bare, worn, bare)[:2].tolist() == [0, 0]
    assert torch.isnan(detail_kept(worn, worn, bare)[2])
    half = bare.clone()
    half[:, :, :2, :8] = 1.0
    assert detail_kept(half, worn, bare)[0].item() == pytest.approx(0.5)
    faint = 0.5 * worn
    assert detail_kept(faint, worn, bare)[0].item() == pytest.approx(0.75), "an error of a half, squared"
    moved = worn.roll(4, dims=2)  # the true edit carries the detail down
    edits = dict(worn=worn, bare=bare, worn_edited=moved, bare_edited=bare)
    table = detail_table({"f": worn}, edited={"f": worn}, **edits)
    assert table.loc[0, ["kept", "kept_after_edit", "lost"]].tolist() == pytest.approx([1, 0, 1])


# ------------------------------------------------------------------- sets and cost


def test_distances_of_sets_say_how_they_were_measured(judges):
    data = Portraits(60)
    images = data.images(range(60))
    shifted = paint(data.factors(range(60)) + torch.tensor([0.0, 0.5, 0, 0]))
    found = set_distances(shifted, images, judges=judges, count=60)
    assert found["frechet"] == pytest.approx(1, abs=1e-3), (
        "means one standard deviation apart, covariances equal"
    )
    assert (found["count"], found["side"], found["resize"], found["seed"]) == (60, 16, "none", 0)
    assert found["dtype"] == "features float32, distances float64"
    assert (found["features"], found["dimensions"]) == ("plain difference", len(NAMES))
    again = [set_distances(shifted, images, judges=judges, count=20, seed=s)["kernel"] for s in (1, 1, 2)]
    assert again[0] == again[1] != again[2]
    large = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert set_distances(images, large, judges=judges, count=60, side=16)["resize"] == "bilinear, antialiased"
    with pytest.raises(ValueError, match="count=61"):
        set_distances(images, images, judges=judges, count=61)
    assert frechet_distance(images.flatten(1)[:, :4], images.flatten(1)[:, :4]) == pytest.approx(0, abs=1e-9)


def test_times_are_medians_of_turns_taken():
    now, calls = [0.0], []
    durations = {"a": iter([9.0, 1, 50, 2]), "b": iter([9.0, 4, 4, 4])}

    def run(name):
        def invert(images):
            calls.append(name)
            now[0] += next(durations[name])

        return invert

    methods = {name: run(name) for name in "ab"}
    found = time_paired(methods, torch.zeros(4, 3, 8, 8), runs=3, clock=lambda: now[0])
    assert found == {"a": 500.0, "b": 1000.0}, (
        "medians 2 s and 4 s over four images; the warm-up is not counted"
    )
    assert calls == list("abababab")
    with pytest.raises(ValueError, match="runs=0"):
        time_paired(methods, torch.zeros(1, 3, 8, 8), runs=0)


def test_cost_counts_shared_parameters_once_and_sees_memory():
    layer = nn.Linear(10, 5)
    assert parameter_count(layer, nn.Sequential(layer, nn.Linear(5, 1))) == 55 + 6
    images = torch.zeros(2, 3, 8, 8)
    held = peak_memory(lambda _: torch.ones(25_000_000), images)  # 100 MB of float32
    assert math.isnan(held) or held == pytest.approx(100, rel=0.15)
    table = cost_table(
        {"linear": lambda x: layer(x.flatten()[:10])},
        images,
        modules={"linear": (layer,)},
        images_seen={"linear": 7},
        runs=2,
    )
    assert table.loc[0, ["parameters", "images_seen", "batch", "runs"]].tolist() == [55, 7, 2, 2]
    assert table.loc[0, "ms_per_image"] > 0
