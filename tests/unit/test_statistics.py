"""Intervals, effect sizes, corrections and verdicts against closed forms and cases worked by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clcae_lib.evaluation import (
    LEAST_STEPS,
    Gain,
    Interval,
    bootstrap_ci,
    compare_gains,
    compare_methods,
    effect_size,
    gain_over_images,
    gain_over_seeds,
    holm,
    judge_table,
    paired_correlation,
    paired_difference,
    student_ci,
    summarise,
    verdict,
)

NAN = float("nan")

# ------------------------------------------------------------------- intervals


def test_interval_of_a_mean_equals_the_normal_one():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    found = bootstrap_ci(values, n=4000)
    half = 1.96 * values.std(ddof=1) / 20
    assert found.value == pytest.approx(values.mean())
    assert [found.high - found.value, found.value - found.low] == pytest.approx([half, half], rel=0.1)


def test_interval_contains_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    intervals = [bootstrap_ci(rng.normal(size=60), n=300, level=0.8, seed=i) for i in range(200)]
    assert 0.72 < np.mean([i.low <= 0 <= i.high for i in intervals]) < 0.88
    three = [student_ci(row) for row in rng.normal(size=(2000, 3))]
    assert 0.93 < np.mean([i.low <= 0 <= i.high for i in three]) < 0.97
    assert student_ci([1.0, 3.0]).high == pytest.approx(2 + 12.706, abs=1e-2)
    with pytest.raises(ValueError, match="more seeds"):
        student_ci([1.0])


def test_interval_is_reproducible_and_takes_other_statistics():
    values = [0.0, 1.0, 2.0, 50.0, 3.0]
    assert bootstrap_ci(values, statistic=np.median).value == 2.0
    assert bootstrap_ci(values, seed=3) == bootstrap_ci(values, seed=3)
    assert bootstrap_ci([4.0, 4.0]) == Interval(4.0, 4.0, 4.0)
    assert str(Interval(1.23456, 1.0, 2.0)) == "1.23 [1, 2]"
    for wrong in ([], [1.0, NAN], [float("inf")], [[1.0]]):
        with pytest.raises(ValueError, match="values: "):
            bootstrap_ci(wrong)


def test_pairing_removes_what_the_images_have_in_common():
    rng = np.random.default_rng(2)
    images = rng.normal(20, 5, size=100)
    better = images + 0.3 + rng.normal(0, 0.1, size=100)
    paired = paired_difference(better, images)
    assert paired.value == pytest.approx(0.3, abs=0.05)
    assert paired.low > 0
    unpaired = bootstrap_ci(better)
    assert unpaired.low < images.mean() < unpaired.high
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_difference([1.0], [1.0, 2.0])


def test_correlation_says_whether_pairing_narrows_the_differences():
    rng = np.random.default_rng(3)
    shared = rng.normal(size=200)
    for sign in (1, -1):
        a, b = shared + rng.normal(size=200), sign * shared + rng.normal(size=200)
        r = paired_correlation(a, b)
        assert r == pytest.approx(stats.pearsonr(a, b)[0])
        variance = a.var() + b.var() - 2 * r * a.std() * b.std()
        assert (a - b).var() == pytest.approx(variance)
        assert ((a - b).var() < a.var() + b.var()) == (sign > 0)
    assert math.isnan(paired_correlation([1.0, 2.0], [3.0, 5.0]))
    assert math.isnan(paired_correlation([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]))
    with pytest.raises(ValueError, match="pairs are needed"):
        paired_correlation([1.0], [1.0, 2.0])


def test_summary_has_a_row_for_each_group_and_column():
    frame = pd.DataFrame(
        {"space": ["w", "w", "f", "f"], "psnr": [1.0, 3.0, 5.0, np.nan], "kept": [True, False, True, True]}
    )
    table = summarise(frame, by=["space"], columns=["psnr", "kept"]).set_index(["space", "metric"])
    assert table.loc[[("w", "psnr"), ("w", "kept")], "value"].tolist() == [2.0, 0.5]
    assert table.loc[("f", "psnr"), ["value", "count"]].tolist() == [5.0, 1]
    assert table.loc[("w", "psnr"), "low"] < 2.0 < table.loc[("w", "psnr"), "high"]


# ------------------------------------------------------------------- gains


def test_effect_size_by_hand_and_without_bias():
    # Three differences: mean 2, standard deviation 1, Hedges' factor gamma(1) / gamma(1/2).
    assert effect_size([1.0, 2.0, 3.0]) == pytest.approx(2 / math.sqrt(math.pi))
    samples = np.random.default_rng(0).normal(0.7, 1, size=(20000, 6))
    assert np.mean([effect_size(row) for row in samples]) == pytest.approx(0.7, abs=0.01)
    assert math.isnan(effect_size([1.0, 2.0]))
    assert math.isnan(effect_size([1.0, 1.0, 1.0]))


def test_holm_by_hand():
    # .005 * 4, .01 * 3, then .03 * 2, and .04 * 1 may not be below that.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.02, NAN, 0.03]) == pytest.approx([0.04, NAN, 0.04], nan_ok=True)
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])


def test_seeds_are_judged_by_students_test():
    # With two differences t is Cauchy distributed: p = 1 - 2 / pi * atan(|t|), and here t = 2.
    gain = gain_over_seeds([1.0, 3.0])
    assert gain.p == pytest.approx(1 - 2 / math.pi * math.atan(2.0))
    assert gain.high == pytest.approx(2 + 12.706, abs=1e-2)
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 1, 7), rng.normal(0, 1, 7)
    assert gain_over_seeds(a - b).p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert gain_over_seeds(a - b, margin=0.4).p == pytest.approx(stats.ttest_rel(a + 0.4, b).pvalue)
    assert (gain_over_seeds([2.0, 2.0]).p, gain_over_seeds([0.0, 0.0]).p) == (0.0, 1.0)
    single = gain_over_seeds([4.0])
    assert (single.value, verdict(single, p=single.p)) == (4.0, "undecided")
    with pytest.raises(ValueError, match="finite"):
        gain_over_seeds([1.0, NAN])


def test_images_and_seeds_are_both_resampled():
    rng = np.random.default_rng(3)
    seeds, images = rng.normal(0, 0.5, size=(8, 1)), rng.normal(0.3, 1, size=(1, 200))
    gain = gain_over_images(seeds + images)
    expected = np.sqrt(seeds.var() / 8 + images.var() / 200)  # two independent components
    assert (gain.high - gain.low) / (2 * 1.96) == pytest.approx(expected, rel=0.15)
    assert gain.p == pytest.approx(2 * stats.norm.sf(abs(gain.value) / expected), abs=0.05)
    assert (gain.seeds, gain.images) == (8, 200)
    assert gain_over_images(np.ones((1, 50)), n=99).p == pytest.approx(0.02)
    with pytest.raises(ValueError, match="2 dimension"):
        gain_over_images([1.0, 2.0])


# ------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("low", "high", "options", "expected"),
    [
        (0.1, 0.2, {}, "supported"),
        (-0.2, -0.1, {}, "refuted"),
        (-0.1, 0.1, {}, "undecided"),
        (0.1, 0.2, {"p": 0.2}, "undecided"),
        (0.1, 0.2, {"p": 0.01}, "supported"),
        (0.1, 0.2, {"p": NAN}, "undecided"),
        (-0.1, 0.1, {"margin": 0.2}, "supported"),
        (-0.5, -0.3, {"margin": 0.2}, "refuted"),
        (-0.3, 0.1, {"margin": 0.2}, "undecided"),
        (NAN, NAN, {}, "undecided"),
        (0.1, 0.2, {"steps": LEAST_STEPS - 1}, "too early"),
        (-0.1, 0.1, {"steps": LEAST_STEPS - 1, "p": 0.9}, "too early"),
        (0.1, 0.2, {"steps": LEAST_STEPS}, "supported"),
        (-0.2, -0.1, {"valid": False}, "invalid measure"),
        (0.1, 0.2, {"valid": False, "steps": 160}, "too early"),
    ],
)
def test_the_rule(low, high, options, expected):
    assert verdict(Interval((low + high) / 2, low, high), **options) == expected
    with pytest.raises(ValueError, match="margin"):
        verdict(Interval(0, 0, 0), margin=-1)


STRONG, WEAK, FLAT = (
    Gain(1, 0.5, 1.5, 2, 0.001, 5),
    Gain(0.2, 0.01, 0.4, 1, 0.04, 5),
    Gain(0, -1, 1, 0, 0.9, 5),
)


def test_a_table_corrects_all_its_claims_together():
    assert judge_table({"weak": WEAK}).loc["weak", "verdict"] == "supported"
    table = judge_table({"weak": WEAK, "strong": STRONG, "other": FLAT})
    assert table["verdict"].to_dict() == {"weak": "undecided", "strong": "supported", "other": "undecided"}
    assert table["p_holm"].tolist() == pytest.approx([0.08, 0.003, 0.9])
    no_cost = judge_table({"no cost": Gain(0, -0.1, 0.1, 0, 0.01, 5)}, margins={"no cost": 0.3})
    assert no_cost["verdict"].tolist() == ["supported"]
    words = compare_gains({"up": STRONG, "down": Gain(-1, -1.5, -0.5, -2, 0.001, 5), "flat": FLAT})["verdict"]
    assert words.to_dict() == {"up": "better", "down": "worse", "flat": "undecided"}


def test_a_table_judges_nothing_too_early_or_by_a_measure_that_a_trivial_method_wins():
    assert set(judge_table({"a": STRONG, "b": STRONG}, steps=160)["verdict"]) == {"too early"}
    long = judge_table({"a": STRONG, "b": STRONG}, steps=LEAST_STEPS, invalid=["b"])
    assert long["verdict"].to_dict() == {"a": "supported", "b": "invalid measure"}


def rows(method, seeds, offset, *, noise=0.1, images=40):
    common = np.random.default_rng(4).normal(size=images)
    own = np.random.default_rng(len(method))
    return pd.DataFrame(
        {"method": method, "seed": s, "image": i, "mse": common[i] + offset + own.normal(0, noise)}
        for s in range(seeds)
        for i in range(images)
    )


def test_methods_are_paired_on_images_and_seeds():
    frame = pd.concat([rows("base", 3, 0.0), rows("better", 3, -0.5), rows("single", 1, 0.5)])
    options = {"baseline": "base", "better": "lower"}
    table = compare_methods(frame, "mse", **options)
    assert table["verdict"].to_dict() == {"better": "better", "single": "worse"}
    assert table.loc["better", "value"] == pytest.approx(0.5, abs=0.05)
    assert table.loc["better", ["seeds", "images"]].tolist() == [3, 1], "few seeds: their means are tested"
    assert table.loc["single", ["seeds", "images"]].tolist() == [1, 40]
    with pytest.raises(ValueError, match="not one of base, better"):
        compare_methods(frame, "mse", baseline="other", better="lower")
    with pytest.raises(ValueError, match="twice"):
        compare_methods(pd.concat([frame, frame]), "mse", **options)
    elsewhere = rows("far", 3, 0.0).assign(image=lambda f: f["image"] + 1000)
    with pytest.raises(ValueError, match="shares no images"):
        compare_methods(pd.concat([frame, elsewhere]), "mse", **options)
