"""The portraits' factors and renderer: what is drawn is what the factors say."""

import numpy as np
import pytest
import torch

from clcae_lib.worlds.portraits.factors import (
    ACCESSORIES,
    FACTORS,
    IDENTITY_NAMES,
    INDEX,
    MEAN,
    NAMES,
    SPLITS,
    STATE_NAMES,
    sample_accessories,
    sample_factors,
)
from clcae_lib.worlds.portraits.renderer import LANDMARKS, render


def face(**values: float) -> torch.Tensor:
    """A mean face, bare and frontal, with these factors changed."""
    row = MEAN.clone()
    for name, value in ({"yaw": 0, "pitch": 0, "glasses": 0, "beard": 0} | values).items():
        row[INDEX[name]] = value
    return row[None]


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of two pictures at every pixel, `[64, 64]`."""
    return (render(a).image - render(b).image).abs().mean(1)[0]


def test_at_least_24_factors_in_two_groups():
    assert len(NAMES) >= 24
    assert set(IDENTITY_NAMES) | set(STATE_NAMES) == set(NAMES)
    assert not set(IDENTITY_NAMES) & set(STATE_NAMES)


def test_splits_share_no_index():
    counted = sum(len(split) for split in SPLITS.values())
    assert len(set().union(*SPLITS.values())) == counted


def test_factors_stay_in_range_and_match_their_statistics():
    sample = sample_factors(range(50_000, 60_000))
    for i, factor in enumerate(FACTORS):
        assert sample[:, i].min() >= factor.low
        assert sample[:, i].max() <= factor.high
        assert abs(float(sample[:, i].mean()) - factor.mean) < 0.06 * factor.std
        assert abs(float(sample[:, i].std()) - factor.std) < 0.06 * factor.std


def test_an_image_depends_on_its_index_alone():
    together = sample_factors(range(100))
    alone = torch.cat([sample_factors([i]) for i in (99, 3, 50)])
    assert torch.equal(together[[99, 3, 50]], alone)
    assert len(together.unique(dim=0)) == 100


def test_the_same_people_in_other_states():
    first, second = sample_factors(range(200)), sample_factors(range(200), state_indices=range(500, 700))
    who = [INDEX[name] for name in IDENTITY_NAMES]
    assert torch.equal(first[:, who], second[:, who])
    assert (first[:, INDEX["yaw"]] != second[:, INDEX["yaw"]]).all()


@pytest.mark.parametrize(("a", "b", "sign"), [("age", "hair_grey", 1), ("beard", "hair_length", -1)])
def test_the_world_is_entangled(a, b, sign):
    sample = sample_factors(range(5000))
    correlation = np.corrcoef(sample[:, INDEX[a]], sample[:, INDEX[b]])[0, 1]
    assert sign * correlation > 0.25


def test_wrong_requests_are_refused_by_name():
    with pytest.raises(ValueError, match="indices"):
        sample_factors([-1])
    with pytest.raises(ValueError, match="factors: expected shape"):
        render(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="not finite"):
        render(face(smile=float("nan")))
    with pytest.raises((ValueError, TypeError), match="accessories"):
        render(face(), accessories=torch.zeros(3, 4))


def test_equal_factors_give_equal_pictures_in_any_batch():
    factors = sample_factors(range(40))
    whole, part = render(factors).image, render(factors[7:9]).image
    assert torch.equal(whole[7:9], part)
    assert whole.shape == (40, 3, 64, 64)
    assert whole.min() >= -1
    assert whole.max() <= 1


def test_the_same_portrait_at_any_resolution():
    factors = sample_factors(range(8))
    small = render(factors, resolution=64).image
    large = torch.nn.functional.avg_pool2d(render(factors, resolution=256).image, 4)
    assert (small - large).abs().mean() < 0.02


@pytest.mark.parametrize("factor", [f for f in FACTORS if f.name != "hair_grey"], ids=lambda f: f.name)
def test_every_factor_shows(factor):
    base = {"hair_length": 0.5, "age": 0.5, "mouth_open": 0.5, "beard": 0.0, "light_strength": 0.6}
    low, high = (face(**(base | {factor.name: v})) for v in (factor.low, factor.high))
    changed = difference(low, high)
    assert (changed > 0.08).sum() >= 6, f"{factor.name} changes too little to be seen at 64 pixels"


def test_yaw_turns_the_nose_and_hides_the_far_ear():
    nose = LANDMARKS.index("nose_tip")
    frontal, turned = render(face()).landmarks[0, nose], render(face(yaw=30)).landmarks[0, nose]
    assert turned[0] > frontal[0] + 6
    assert abs(turned[1] - frontal[1]) < 2
    ears = difference(face(yaw=35, ear_size=-1, hair_length=0), face(yaw=35, ear_size=1, hair_length=0))
    assert ears[:, :32].sum() > 5 * ears[:, 44:].sum()


def test_pitch_nods():
    chin = LANDMARKS.index("chin")
    up, down = render(face(pitch=20)).landmarks[0], render(face(pitch=-20)).landmarks[0]
    nose = LANDMARKS.index("nose_tip")
    assert (up[nose, 1] - up[chin, 1]) < (down[nose, 1] - down[chin, 1]) - 1


def test_landmarks_lie_on_what_they_name():
    red = render(face(mouth_open=1.0, smile=0)).image[0]
    landmarks = render(face(mouth_open=1.0, smile=0)).landmarks[0]
    eye = landmarks[LANDMARKS.index("left_eye")].round().long()
    patch = red[:, eye[1] - 1 : eye[1] + 2, eye[0] - 1 : eye[0] + 2]
    assert patch.min() < -0.5, "the pupil is dark"
    left, right = (landmarks[LANDMARKS.index(name), 0] for name in ("left_mouth", "right_mouth"))
    assert 6 < right - left < 20


def test_landmarks_scale_with_the_resolution():
    factors = sample_factors(range(5))
    assert torch.allclose(render(factors, resolution=128).landmarks, 2 * render(factors).landmarks, atol=1e-4)


@pytest.mark.parametrize("worn", ACCESSORIES)
def test_accessories_show(worn):
    flags = torch.nn.functional.one_hot(torch.tensor([ACCESSORIES.index(worn)]), len(ACCESSORIES)).float()
    factors = face(hair_length=0)
    changed = (render(factors, accessories=flags).image - render(factors).image).abs().mean(1)[0]
    assert (changed > 0.2).sum() >= 8


def test_each_accessory_image_wears_one():
    worn = sample_accessories(SPLITS["accessories"][:400])
    assert torch.equal(worn.sum(1), torch.ones(400))
    assert (worn.mean(0) > 0.15).all()
