"""Each metric against a closed form, a case worked by hand, or another implementation."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from clcae_lib.metrics import (
    code_distance,
    detail_kept,
    factor_distribution_distance,
    frechet_distance,
    kernel_distance,
    ms_ssim,
    ms_ssim_scales,
    mse,
    precision_recall,
    psnr,
    r_squared,
    recall_at_k,
    ssim,
)

WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mse_and_psnr_of_known_differences():
    target = torch.zeros(3, 3, 16, 16)
    image = torch.stack([torch.full((3, 16, 16), v) for v in (0.2, 1.0, 7.0)])  # the last is clipped to 1
    assert mse(image, target).tolist() == pytest.approx([0.04, 1.0, 1.0])
    one = 10 * math.log10(4)
    assert psnr(image, target).tolist() == pytest.approx([20.0, one, one], abs=1e-4)
    assert psnr(target, target).tolist() == pytest.approx([106.02] * 3, abs=0.01)


def test_ssim_and_ms_ssim_of_flat_images_in_closed_form():
    a, b, c1 = 0.3, 0.2, (0.01 * 2) ** 2
    luminance = (2 * a * b + c1) / (a * a + b * b + c1)
    pair = torch.full((2, 3, 64, 64), a), torch.full((2, 3, 64, 64), b)
    assert ssim(*pair).tolist() == pytest.approx([luminance] * 2, abs=1e-4)
    exponent = WEIGHTS[2] / WEIGHTS[:3].sum()
    assert ms_ssim(*pair).tolist() == pytest.approx([luminance**exponent] * 2, abs=1e-4)


def terms(x, y):
    """Return the similarity of all pixels, and the contrast term without the border, by scipy's filter."""

    def blur(z):
        return gaussian_filter(z, 1.5, truncate=5 / 1.5, mode="mirror")

    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    contrast = (2 * cov + c2) / (vx + vy + c2)
    similarity = contrast * (2 * mx * my + c1) / (mx * mx + my * my + c1)
    return similarity.mean(), contrast[5:-5, 5:-5].mean()


def test_ssim_and_ms_ssim_equal_another_implementation():
    x = torch.tanh(random(1, 3, 64, 64))
    y = (x + 0.3 * random(1, 3, 64, 64, seed=1)).clamp(-1, 1)
    a, b = x[0].double().numpy(), y[0].double().numpy()
    product = 1.0
    for scale, weight in enumerate(WEIGHTS[:3] / WEIGHTS[:3].sum()):
        each = np.array([terms(p, q) for p, q in zip(a, b, strict=True)]).mean(axis=0)
        if scale == 0:
            assert ssim(x, y).item() == pytest.approx(each[0], abs=1e-4)
        product *= each[0 if scale == 2 else 1] ** weight
        a, b = (z.reshape(3, z.shape[1] // 2, 2, z.shape[2] // 2, 2).mean(axis=(2, 4)) for z in (a, b))
    assert ms_ssim(x, y).item() == pytest.approx(product, abs=1e-4)
    assert [ms_ssim(x, x).item(), ssim(x, x).item()] == pytest.approx([1, 1])


def test_small_images_have_fewer_scales():
    scales = {11: 1, 32: 2, 64: 3, 128: 4, 176: 5, 1024: 5}
    assert {side: ms_ssim_scales(side) for side in scales} == scales
    with pytest.raises(ValueError, match="smaller than its window"):
        ms_ssim_scales(10)


def test_a_detail_is_kept_half_if_half_of_it_is_painted():
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
    assert detail_kept(0.5 * worn, worn, bare)[0].item() == pytest.approx(0.75), "an error of a half, squared"


# ------------------------------------------------------------------- sets


def test_frechet_distance_of_gaussians():
    base = random(500, 1).double()
    base = (base - base.mean()) / base.std()
    assert frechet_distance(base * 2 + 1, base * 5 - 3) == pytest.approx(4**2 + 3**2)
    assert frechet_distance(base, base) == pytest.approx(0, abs=1e-9)
    a = random(400, 6) @ random(6, 6, seed=1)
    b = random(300, 6, seed=2) @ random(6, 6, seed=3) + 0.5
    x, y = a.double().numpy(), b.double().numpy()
    ca, cb = np.cov(x.T), np.cov(y.T)
    textbook = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(textbook, rel=1e-6)


def test_frechet_distance_of_fewer_rows_than_features():
    a, b = random(5, 20), random(5, 20, seed=1)
    assert math.isfinite(frechet_distance(a, b))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance(a[:1], b)


def test_kernel_distance_equals_sums_over_pairs():
    a, b = random(6, 3), random(5, 3, seed=1)

    def k(x, y):
        return (float(x.double() @ y.double()) / 3 + 1) ** 3

    aa = np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    bb = np.mean([k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    ab = np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(aa + bb - 2 * ab)


def test_precision_and_recall_of_points_on_a_line():
    reals = torch.tensor([[0.0], [1.0], [2.0], [10.0]])  # radii with one neighbour: 1, 1, 1, 8
    samples = torch.tensor([[0.4], [0.6], [-1.5]])  # radii: 0.2, 0.2, 1.9
    # -1.5 is in no ball; 0 is within 1.9 of -1.5, and 1, 2 and 10 are in no ball.
    for chunk in (2, 1024):
        found = precision_recall(samples, reals, neighbours=1, chunk=chunk)
        assert found == pytest.approx((2 / 3, 1 / 4))
    with pytest.raises(ValueError, match="neighbours=3"):
        precision_recall(samples, reals)


def test_factor_distance_of_shifted_and_scaled_distributions():
    base = random(4000, 1)
    base = (base - base.mean()) / base.std()
    b = torch.cat([base, base + 2, base * 3], dim=1).flip(0)
    found = factor_distribution_distance(base.repeat(1, 3), b, std=torch.tensor([1.0, 4.0, 1.0]))
    assert found.tolist() == pytest.approx([0, 0.5, 2 * math.sqrt(2 / math.pi)], abs=0.03)


def test_r_squared_is_one_for_the_truth_and_zero_for_its_mean():
    truth = random(40, 3)
    assert r_squared(truth, truth).tolist() == pytest.approx([1, 1, 1])
    assert r_squared(truth.mean(dim=0).expand(40, 3), truth).abs().max() < 1e-5


# ------------------------------------------------------------------- codes


def test_code_distance_in_standard_deviations():
    truth = torch.zeros(2, 4)
    found = torch.tensor([[2.0, 2, 2, 2], [4, 0, 0, 0]])
    assert code_distance(found, truth, w_std=torch.full((4,), 2.0)).tolist() == pytest.approx([1, 1])
    w = random(4000, 64)
    halves = code_distance(w[:2000], w[2000:], w_std=w.std(dim=0))
    assert halves.mean().item() == pytest.approx(math.sqrt(2), rel=0.02)


def test_recall_equals_a_ranking_worked_by_hand():
    keys = torch.eye(3)
    queries = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.5, 0.1], [0.7, 0.6, 0.1]])  # ranked 1st, 2nd, 3rd
    assert recall_at_k(queries, keys, (1, 2, 3)) == pytest.approx({1: 1 / 3, 2: 2 / 3, 3: 1.0})
    with pytest.raises(ValueError, match="must be pairs"):
        recall_at_k(queries, torch.eye(4)[:, :3])


def test_recall_of_a_collapsed_embedding_and_of_nan_is_zero():
    same = torch.ones(20, 4)
    assert recall_at_k(same, same, (1, 10, 20)) == {1: 0.0, 10: 0.0, 20: 1.0}
    good, bad = torch.eye(4), torch.full((4, 4), float("nan"))
    for queries, keys in ((bad, good), (good, bad), (bad, bad)):
        assert recall_at_k(queries, keys, (1, 3)) == {1: 0.0, 3: 0.0}


def test_recall_does_not_depend_on_chunks_and_differs_by_direction():
    a = random(300, 8)
    b = a + random(300, 8, seed=1)
    whole = recall_at_k(a, b, chunk=1000)
    assert recall_at_k(a, b, chunk=7) == whole
    assert 0.05 < whole[1] < whole[10] < 1
    assert recall_at_k(b, a) != whole
