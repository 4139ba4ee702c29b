"""Intervals against closed forms and against how often they hold the truth."""

import numpy as np
import pandas as pd
import pytest

from clcae_lib.evaluation import (
    Interval,
    bootstrap_ci,
    hierarchical_ci,
    paired_difference,
    student_ci,
    summarise,
)


def test_interval_of_a_mean_equals_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    found = bootstrap_ci(values, n=4000)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    intervals = [bootstrap_ci(rng.normal(size=60), n=300, level=0.8, seed=i) for i in range(200)]
    share = np.mean([i.low <= 0 <= i.high for i in intervals])
    assert 0.72 < share < 0.88


def test_interval_is_reproducible_and_takes_other_statistics():
    values = [0.0, 1.0, 2.0, 50.0, 3.0]
    assert bootstrap_ci(values, statistic=np.median).value == 2.0
    assert bootstrap_ci(values, seed=3) == bootstrap_ci(values, seed=3)
    assert bootstrap_ci([4.0, 4.0]) == Interval(4.0, 4.0, 4.0)
    assert str(Interval(1.23456, 1.0, 2.0)) == "1.23 [1, 2]"


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")], [[1.0]]])
def test_interval_refuses_what_has_none(values):
    with pytest.raises(ValueError, match="bootstrap"):
        bootstrap_ci(values)


def test_pairing_removes_what_the_images_have_in_common():
    rng = np.random.default_rng(2)
    images = rng.normal(20, 5, size=100)
    better = images + 0.3 + rng.normal(0, 0.1, size=100)
    paired = paired_difference(better, images)
    assert paired.value == pytest.approx(0.3, abs=0.05)
    assert paired.low > 0
    alone = bootstrap_ci(better)
    assert alone.low < images.mean() < alone.high
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_difference([1.0], [1.0, 2.0])


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(3)
    images = rng.normal(size=(1, 200))
    seeds = rng.normal(0, 1, size=(8, 1))
    together = hierarchical_ci(images + seeds)
    assert together.value == pytest.approx((images + seeds).mean())
    expected = np.sqrt(seeds.var() / 8 + images.var() / 200)  # two independent components
    assert (together.high - together.low) / (2 * 1.96) == pytest.approx(expected, rel=0.2)
    pooled = bootstrap_ci((images + seeds).ravel())
    assert together.high - together.low > 3 * (pooled.high - pooled.low)


def test_summary_has_a_row_for_each_group_and_column():
    frame = pd.DataFrame(
        {"space": ["w", "w", "f", "f"], "psnr": [1.0, 3.0, 5.0, np.nan], "kept": [True, False, True, True]}
    )
    table = summarise(frame, by=["space"], columns=["psnr", "kept"]).set_index(["space", "metric"])
    assert table.loc[("w", "psnr"), "value"] == 2.0
    assert table.loc[("w", "kept"), "value"] == 0.5
    assert table.loc[("f", "psnr"), ["value", "count"]].tolist() == [5.0, 1]
    assert table.loc[("w", "psnr"), "low"] < 2.0 < table.loc[("w", "psnr"), "high"]


def test_an_interval_of_three_values_keeps_its_level():
    rng = np.random.default_rng(4)
    samples = rng.normal(size=(2000, 3))
    share = np.mean([i.low <= 0 <= i.high for i in map(student_ci, samples)])
    assert 0.93 < share < 0.97
    assert student_ci([1.0, 3.0]).high == pytest.approx(2 + 12.706, abs=1e-2)
    with pytest.raises(ValueError, match="more seeds"):
        student_ci([1.0])
