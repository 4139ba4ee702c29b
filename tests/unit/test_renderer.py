"""The renderer: factors, their distribution, and what each one changes in an image."""

import numpy as np
import pytest
import torch

from clcae_lib.photos import Landmarks, align, load_landmarks
from clcae_lib.worlds import get_world
from clcae_lib.worlds.portraits.factors import (
    ACCESSORIES,
    FACTORS,
    INDEX,
    MEAN,
    NAMES,
    SPLITS,
    STD,
    sample_accessories,
    sample_factors,
)
from clcae_lib.worlds.portraits.photographs import write_photographs
from clcae_lib.worlds.portraits.renderer import LANDMARKS, render

EVERY_FACTOR = [factor for factor in FACTORS if factor.name != "hair_grey"]


def face(**values: float) -> torch.Tensor:
    """A mean face, bare and frontal, with these factors changed."""
    row = MEAN.clone()
    for name, value in ({"yaw": 0, "pitch": 0, "glasses": 0, "beard": 0} | values).items():
        row[INDEX[name]] = value
    return row[None]


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of two images at every pixel, `[64, 64]`."""
    return (render(a).image - render(b).image).abs().mean(1)[0]


def wearing(name: str) -> torch.Tensor:
    """The flags of one accessory."""
    return torch.nn.functional.one_hot(torch.tensor([ACCESSORIES.index(name)]), len(ACCESSORIES)).float()


def test_factors_stay_in_range_and_match_their_statistics():
    sample = sample_factors(range(50_000, 60_000))
    for i, factor in enumerate(FACTORS):
        assert sample[:, i].min() >= factor.low
        assert sample[:, i].max() <= factor.high
        assert abs(float(sample[:, i].mean()) - factor.mean) < 0.06 * factor.std
        assert abs(float(sample[:, i].std()) - factor.std) < 0.06 * factor.std


def test_an_image_depends_only_on_its_index():
    together = sample_factors(range(100))
    single = torch.cat([sample_factors([i]) for i in (99, 3, 50)])
    assert torch.equal(together[[99, 3, 50]], single)
    assert len(together.unique(dim=0)) == 100


def test_the_world_is_entangled():
    assert 0.25 < correlation("age", "hair_grey") < 0.4
    assert correlation("beard", "hair_length") < -0.25


def correlation(a: str, b: str) -> float:
    """Of two factors."""
    sample = sample_factors(range(5000))
    return np.corrcoef(sample[:, INDEX[a]], sample[:, INDEX[b]])[0, 1]


def test_wrong_requests_are_refused_by_name():
    with pytest.raises(ValueError, match="indices"):
        sample_factors([-1])
    with pytest.raises(ValueError, match="factors: expected shape"):
        render(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="not finite"):
        render(face(smile=float("nan")))
    with pytest.raises((ValueError, TypeError), match="accessories"):
        render(face(), accessories=torch.zeros(3, 4))


def test_equal_factors_give_equal_images_in_any_batch():
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


@pytest.mark.parametrize("factor", EVERY_FACTOR, ids=lambda factor: factor.name)
def test_every_factor_shows(factor):
    base = {"hair_length": 0.5, "age": 0.5, "mouth_open": 0.5, "beard": 0.0, "light_strength": 0.6}
    low, high = (face(**(base | {factor.name: v})) for v in (factor.low, factor.high))
    changed = difference(low, high)
    assert (changed > 0.08).sum() >= 6, f"{factor.name} changes too little to be seen at 64 pixels"


def test_a_standard_deviation_of_every_factor_outlasts_a_blur():
    """A change with less than 2 of squared difference was never learned by a regressor."""
    factors = sample_factors(SPLITS["validation"][:24])
    halves = STD.diag() / 2
    for name, half in zip(NAMES, halves, strict=True):
        a, b = (render(factors + sign * half).image for sign in (-1, 1))
        blurred = torch.nn.functional.avg_pool2d(a - b, 2)
        seen = 4 * float(blurred.square().sum((1, 2, 3)).mean())
        assert seen > 4, f"{name}: {seen:.2f}"


def test_the_head_fills_the_height_and_its_features_are_large():
    bald = {"hair_length": 0.0, "head_length": 0.0}
    dark, bright = (face(background_lightness=v, **bald) for v in (0, 1))
    rows = (difference(dark, bright) < 0.02).float().mean(1)  # pixels before the background
    top = int((rows > 0.1).float().argmax())
    left, right, chin = (
        render(dark).landmarks[0, LANDMARKS.index(name)] for name in ("left_mouth", "right_mouth", "chin")
    )
    assert 0.75 <= (float(chin[1]) - top) / 64 <= 0.85
    assert right[0] - left[0] >= 15


def test_a_smile_moves_mouth_cheeks_and_eyes():
    glum, glad = face(smile=-1), face(smile=1)
    moved = [render(rows).landmarks[0] for rows in (glum, glad)]
    corner, eye = LANDMARKS.index("left_mouth"), LANDMARKS.index("left_eye")
    assert moved[0][corner, 1] - moved[1][corner, 1] > 4, "the corners rise"
    assert moved[0][corner, 0] - moved[1][corner, 0] > 2, "and part"
    changed = difference(glum, glad)
    x, y = moved[0][eye].long().tolist()
    assert (changed[y : y + 6, x - 6 : x + 7] > 0.1).sum() >= 12, "the lower lid rises"
    assert (changed[y + 5 : y + 12, x - 6 : x] > 0.05).sum() >= 12, "the cheek is round"


def test_yaw_turns_the_nose_and_hides_the_far_ear():
    nose = LANDMARKS.index("nose_tip")
    frontal, turned = (render(face(yaw=yaw)).landmarks[0, nose] for yaw in (0, 30))
    assert turned[0] > frontal[0] + 6
    assert abs(turned[1] - frontal[1]) < 2
    aside = face(yaw=35, hair_length=0)
    rings = render(aside, accessories=wearing("earring")).image - render(aside).image
    assert rings.abs()[..., :32].sum() > 5 * rings.abs()[..., 44:].sum()


def test_pitch_nods():
    chin, nose = LANDMARKS.index("chin"), LANDMARKS.index("nose_tip")
    up, down = (render(face(pitch=pitch)).landmarks[0] for pitch in (20, -20))
    assert (up[nose, 1] - up[chin, 1]) < (down[nose, 1] - down[chin, 1]) - 1


def test_landmarks_are_on_what_they_name():
    drawn = render(face(mouth_open=1.0, smile=0))
    image, landmarks = drawn.image[0], drawn.landmarks[0]
    eye = landmarks[LANDMARKS.index("left_eye")].round().long()
    patch = image[:, eye[1] - 1 : eye[1] + 2, eye[0] - 1 : eye[0] + 2]
    assert patch.min() < -0.5, "the pupil is dark"
    left, right = (landmarks[LANDMARKS.index(name), 0] for name in ("left_mouth", "right_mouth"))
    assert 6 < right - left < 20


def test_landmarks_scale_with_the_resolution():
    factors = sample_factors(range(5))
    small, large = (render(factors, resolution=side).landmarks for side in (64, 128))
    assert torch.allclose(large, 2 * small, atol=1e-4)


@pytest.mark.parametrize("worn", ACCESSORIES)
def test_accessories_show(worn):
    factors = face(hair_length=0)
    changed = render(factors, accessories=wearing(worn)).image - render(factors).image
    assert (changed.abs().mean(1)[0] > 0.2).sum() >= 8


def test_each_accessory_image_wears_one():
    worn = sample_accessories(SPLITS["accessories"][:400])
    assert torch.equal(worn.sum(1), torch.ones(400))
    assert (worn.mean(0) > 0.15).all()


def test_the_square_of_a_face_is_the_worlds_image():
    drawn = render(face())
    found = align(Landmarks(drawn.landmarks[0, :5]), (64, 64), side=64, widen=get_world("portraits").widen)
    assert found.scale == pytest.approx(1, abs=0.04)
    middle = found.points_to_photo(torch.tensor([[32.0, 32.0]]))[0]
    assert torch.allclose(middle.float(), torch.tensor([32.0, 32.0]), atol=1.5)


def test_photographs_show_the_worlds_people_with_their_landmarks(tmp_path):
    paths = write_photographs(tmp_path, 2, size=(160, 120), degrees=0)
    for path in paths:
        points = load_landmarks(path)[0].points
        eyes, mouth = points[:2].mean(0), points[3:5].mean(0)
        assert points[0, 0] < points[1, 0]
        assert eyes[1] < points[2, 1] < mouth[1] < 120
    assert paths[0].read_bytes() != paths[1].read_bytes()
