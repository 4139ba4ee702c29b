"""Each metric against a closed form, a case worked by hand, or another implementation."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from clcae_lib.evaluation import (
    factor_distribution_distance,
    frechet_distance,
    kernel_distance,
    mse,
    precision_recall,
    psnr,
    ssim,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mse_and_psnr_of_known_differences():
    target = torch.zeros(3, 3, 16, 16)
    image = torch.stack([torch.full((3, 16, 16), v) for v in (0.2, 1.0, 7.0)])  # the last is clipped to 1
    assert mse(image, target).tolist() == pytest.approx([0.04, 1.0, 1.0])
    assert psnr(image, target).tolist() == pytest.approx(
        [20.0, 10 * math.log10(4), 10 * math.log10(4)], abs=1e-4
    )
    assert psnr(target, target).tolist() == pytest.approx([106.02] * 3, abs=0.01)


def test_ssim_of_flat_pictures_in_closed_form():
    a, b, c1 = 0.3, -0.2, (0.01 * 2) ** 2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    found = ssim(torch.full((2, 3, 32, 32), a), torch.full((2, 3, 32, 32), b))
    assert found.tolist() == pytest.approx([expected] * 2, abs=1e-4)


def test_ssim_equals_one_made_of_scipy_filters():
    x = random(2, 3, 32, 32).mul(0.3).clamp(-1, 1)
    y = (x + 0.2 * random(2, 3, 32, 32, seed=1)).clamp(-1, 1)

    def by_hand(p, q):
        def blur(v):
            return gaussian_filter(v, 1.5, truncate=5 / 1.5, mode="mirror")

        mp, mq = blur(p), blur(q)
        vp, vq, cov = blur(p * p) - mp**2, blur(q * q) - mq**2, blur(p * q) - mp * mq
        c1, c2 = 0.02**2, 0.06**2
        return ((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))).mean()

    for found, p, q in zip(ssim(x, y), x.double().numpy(), y.double().numpy(), strict=True):
        expected = np.mean([by_hand(p[c], q[c]) for c in range(3)])
        assert found.item() == pytest.approx(expected, abs=1e-4)
    assert ssim(x, x).tolist() == pytest.approx([1.0, 1.0])


def test_frechet_distance_of_one_dimensional_gaussians():
    base = random(500, 1).double()
    base = (base - base.mean()) / base.std()
    assert frechet_distance(base * 2 + 1, base * 5 - 3) == pytest.approx(4**2 + 3**2)
    assert frechet_distance(base, base) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_equals_the_textbook_formula_with_sqrtm():
    a = random(400, 6) @ random(6, 6, seed=1)
    b = random(300, 6, seed=2) @ random(6, 6, seed=3) + 0.5
    x, y = a.double().numpy(), b.double().numpy()
    ca, cb = np.cov(x.T), np.cov(y.T)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_bears_fewer_rows_than_features():
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
    found = precision_recall(samples, reals, neighbours=1)
    assert found.precision == pytest.approx(2 / 3)  # -1.5 is in no ball
    assert found.recall == pytest.approx(1 / 4)  # 0 lies within 1.9 of -1.5; 1, 2 and 10 in no ball


def test_mode_collapse_costs_recall_and_noise_costs_precision():
    reals, fresh = random(400, 4), random(400, 4, seed=1)
    good = precision_recall(fresh, reals)
    collapsed = precision_recall(fresh * 0.05, reals)
    wild = precision_recall(fresh * 5, reals)
    assert good.precision > 0.8
    assert good.recall > 0.8
    assert collapsed.precision > 0.95
    assert collapsed.recall < 0.1
    assert wild.precision < 0.3
    assert precision_recall(fresh, reals, chunk=17) == good
    with pytest.raises(ValueError, match="neighbours=3"):
        precision_recall(fresh[:3], reals)


def test_factor_distance_of_shifted_and_scaled_distributions():
    base = random(4000, 1)
    base = (base - base.mean()) / base.std()
    a = base.repeat(1, 3)
    b = torch.cat([base, base + 2, base * 3], dim=1)[
        torch.randperm(4000, generator=torch.Generator().manual_seed(1))
    ]
    found = factor_distribution_distance(a, b, std=torch.tensor([1.0, 4.0, 1.0]))
    assert found.tolist() == pytest.approx([0, 0.5, 2 * math.sqrt(2 / math.pi)], abs=0.03)
