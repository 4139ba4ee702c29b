"""Effect sizes, corrections and verdicts against closed forms and cases worked by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clcae_lib.evaluation import (
    LEAST_STEPS,
    Gain,
    Interval,
    compare_gains,
    compare_methods,
    effect_size,
    gain_over_images,
    gain_over_seeds,
    holm,
    judge_table,
    verdict,
)


def test_effect_size_by_hand_and_without_bias():
    # Three differences: mean 2, standard deviation 1, Hedges' factor gamma(1) / gamma(1/2).
    assert effect_size([1.0, 2.0, 3.0]) == pytest.approx(2 / math.sqrt(math.pi))
    samples = np.random.default_rng(0).normal(0.7, 1, size=(20000, 6))
    assert np.mean([effect_size(row) for row in samples]) == pytest.approx(0.7, abs=0.01)
    assert math.isnan(effect_size([1.0, 2.0]))
    assert math.isnan(effect_size([1.0, 1.0, 1.0]))


def test_holm_by_hand():
    # .005 * 4, .01 * 3, then .03 * 2, and .04 * 1 may not fall below that.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    with_gap = holm([0.02, float("nan"), 0.03])
    assert with_gap[[0, 2]] == pytest.approx([0.04, 0.04])
    assert math.isnan(with_gap[1])
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([1.2])


def test_holm_keeps_the_chance_of_any_false_claim():
    p = np.random.default_rng(1).uniform(size=(4000, 10))
    assert np.mean([(holm(row) < 0.05).any() for row in p]) < 0.06
    assert np.mean((p < 0.05).any(axis=1)) > 0.3, "what goes wrong without"


@pytest.mark.parametrize(
    ("low", "high", "options", "expected"),
    [
        (0.1, 0.2, {}, "supported"),
        (-0.2, -0.1, {}, "refuted"),
        (-0.1, 0.1, {}, "undecided"),
        (0.1, 0.2, {"p": 0.2}, "undecided"),
        (0.1, 0.2, {"p": 0.01}, "supported"),
        (0.1, 0.2, {"p": float("nan")}, "undecided"),
        (-0.1, 0.1, {"margin": 0.2}, "supported"),
        (-0.5, -0.3, {"margin": 0.2}, "refuted"),
        (-0.3, 0.1, {"margin": 0.2}, "undecided"),
        (float("nan"), float("nan"), {}, "undecided"),
        (0.1, 0.2, {"steps": LEAST_STEPS - 1}, "too early"),
        (-0.1, 0.1, {"steps": LEAST_STEPS - 1, "p": 0.9}, "too early"),
        (0.1, 0.2, {"steps": LEAST_STEPS}, "supported"),
        (-0.2, -0.1, {"valid": False}, "invalid measure"),
        (0.1, 0.2, {"valid": False, "steps": 160}, "too early"),
    ],
)
def test_the_rule(low, high, options, expected):
    assert verdict(Interval((low + high) / 2, low, high), **options) == expected


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match="margin"):
        verdict(Interval(0, 0, 0), margin=-1)


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
        gain_over_seeds([1.0, float("nan")])


def test_images_and_seeds_are_both_resampled():
    rng = np.random.default_rng(3)
    seeds, images = rng.normal(0, 0.5, size=(8, 1)), rng.normal(0.3, 1, size=(1, 200))
    gain = gain_over_images(seeds + images)
    expected = np.sqrt(seeds.var() / 8 + images.var() / 200)
    assert (gain.high - gain.low) / (2 * 1.96) == pytest.approx(expected, rel=0.15)
    normal = 2 * stats.norm.sf(abs(gain.value) / expected)
    assert gain.p == pytest.approx(normal, abs=0.05)
    assert (gain.seeds, gain.images) == (8, 200)
    assert gain_over_images(np.ones((1, 50)), n=99).p == pytest.approx(0.02)


def test_a_table_corrects_all_its_claims_at_once():
    strong, weak = Gain(1, 0.5, 1.5, 2, 0.001, 5), Gain(0.2, 0.01, 0.4, 1, 0.04, 5)
    alone = judge_table({"weak": weak})
    assert alone.loc["weak", "verdict"] == "supported"
    table = judge_table({"weak": weak, "strong": strong, "other": Gain(0, -1, 1, 0, 0.9, 5)})
    assert table["verdict"].to_dict() == {"weak": "undecided", "strong": "supported", "other": "undecided"}
    assert table["p_holm"].tolist() == pytest.approx([0.08, 0.003, 0.9])
    assert judge_table({"no cost": Gain(0, -0.1, 0.1, 0, 0.01, 5)}, margins={"no cost": 0.3})[
        "verdict"
    ].tolist() == ["supported"]


def test_a_table_judges_nothing_too_early_or_by_a_measure_that_a_trivial_method_wins():
    strong = Gain(1, 0.5, 1.5, 2, 0.001, 5)
    assert set(judge_table({"a": strong, "b": strong}, steps=160)["verdict"]) == {"too early"}
    long = judge_table({"a": strong, "b": strong}, steps=LEAST_STEPS, invalid=["b"])
    assert long["verdict"].to_dict() == {"a": "supported", "b": "invalid measure"}


def test_two_methods_are_better_worse_or_undecided():
    gains = {"up": Gain(1, 0.5, 1.5, 2, 0.001, 5), "down": Gain(-1, -1.5, -0.5, -2, 0.001, 5)}
    gains["flat"] = Gain(0, -1, 1, 0, 0.9, 5)
    found = compare_gains(gains)["verdict"].to_dict()
    assert found == {"up": "better", "down": "worse", "flat": "undecided"}


def rows(method, seeds, offset, *, noise=0.1, images=40):
    rng = np.random.default_rng(4)
    common = rng.normal(size=images)
    own = np.random.default_rng(len(method))
    return pd.DataFrame(
        {"method": method, "seed": s, "image": i, "mse": common[i] + offset + own.normal(0, noise)}
        for s in range(seeds)
        for i in range(images)
    )


def test_methods_are_paired_on_images_and_seeds():
    frame = pd.concat([rows("base", 3, 0.0), rows("better", 3, -0.5), rows("single", 1, 0.5)])
    table = compare_methods(frame, "mse", baseline="base", better="lower")
    assert table["verdict"].to_dict() == {"better": "better", "single": "worse"}
    assert table.loc["better", "value"] == pytest.approx(0.5, abs=0.05)
    assert table.loc["better", ["seeds", "images"]].tolist() == [3, 1], "few seeds: their means are tested"
    assert table.loc["single", ["seeds", "images"]].tolist() == [1, 40]
    with pytest.raises(ValueError, match="none of"):
        compare_methods(frame, "mse", baseline="nobody", better="lower")
    with pytest.raises(ValueError, match="twice"):
        compare_methods(pd.concat([frame, frame]), "mse", baseline="base", better="lower")
    elsewhere = rows("far", 3, 0.0).assign(image=lambda f: f["image"] + 1000)
    with pytest.raises(ValueError, match="shares no images"):
        compare_methods(pd.concat([frame, elsewhere]), "mse", baseline="base", better="lower")
