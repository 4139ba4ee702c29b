"""Faces cut out of photographs: the FFHQ square, its way back, and the pixels at its edges."""

import json
import math
from functools import cache

import pytest
import torch

from clcae_lib.photos.crop import Crop, align, centred, from_square
from clcae_lib.photos.landmarks import (
    Landmarks,
    LandmarksError,
    landmarks_path,
    load_landmarks,
    save_landmarks,
)
from clcae_lib.worlds import get_world
from clcae_lib.worlds.portraits.factors import INDEX, MEAN
from clcae_lib.worlds.portraits.renderer import render

FIVE = torch.tensor([[40.0, 45], [62, 44], [51, 56], [43, 68], [60, 67]], dtype=torch.float64)


def similar(points, *, degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    """Points turned about (0, 0), scaled and shifted."""
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    return scale * points.double() @ turn.T + torch.tensor(shift).double()


def sixty_eight(five):
    """68 points whose eyes are rings around the five's and whose mouth has its corners."""
    points = torch.zeros(68, 2, dtype=torch.float64) + five.mean(dim=0)
    ring = torch.tensor([[math.cos(a), math.sin(a)] for a in torch.arange(6) * math.pi / 3]).double()
    points[36:42], points[42:48] = five[0] + 3 * ring, five[1] + 3 * ring
    points[30], points[48], points[54] = five[2], five[3], five[4]
    return points


@cache
def portrait(resolution=384, **values):
    """A frontal render and its five landmarks."""
    row = MEAN.clone()
    for name, value in ({"yaw": 4, "pitch": 0, "glasses": 0, "smile": 0.4} | values).items():
        row[INDEX[name]] = value
    drawn = render(row[None], resolution=resolution)
    return drawn.image[0], Landmarks(drawn.landmarks[0][[0, 1, 2, 3, 4]])


def similarity_photo(resolution, *, degrees, scale, shift, canvas):
    """A portrait under a known similarity, resampled by arithmetic independent of the library."""
    image, landmarks = portrait(resolution)
    y, x = torch.meshgrid(torch.arange(canvas) + 0.5, torch.arange(canvas) + 0.5, indexing="ij")
    here = torch.stack([x, y], -1).double().view(-1, 2) - torch.tensor(shift).double()
    source = similar(here, degrees=-degrees, scale=1 / scale).view(canvas, canvas, 2)
    grid = (source * 2 / resolution - 1).float()[None]
    photo = torch.nn.functional.grid_sample(
        image[None], grid, mode="bicubic", padding_mode="border", align_corners=False
    )[0].clamp(-1, 1)
    moved = similar(landmarks.points, degrees=degrees, scale=scale, shift=shift)
    return photo, Landmarks(moved)


def test_the_square_is_that_of_ffhq():
    across, down = torch.tensor([20.0, 0.0]), torch.tensor([0.0, 24.0])
    eyes = torch.tensor([100.0, 90.0])
    five = torch.stack([eyes - across / 2, eyes + across / 2, eyes, eyes + down - 6, eyes + down + 6])
    five[3:, 1] = 114
    found = align(Landmarks(five), (200, 200), side=64)
    # max(4 x 20, 3.6 x 24) = 86.4, centred a tenth of the way down
    assert found.scale * 64 == pytest.approx(86.4)
    expected = [[56.8, 49.2], [56.8, 135.6], [143.2, 135.6], [143.2, 49.2]]
    assert torch.allclose(found.quad, torch.tensor(expected, dtype=torch.float64))


def test_68_points_or_the_persons_left_and_right_give_the_same_square():
    five = align(Landmarks(FIVE), (120, 110), side=128)
    for points in (sixty_eight(FIVE), FIVE[[1, 0, 2, 4, 3]]):
        assert torch.allclose(five.to_photo, align(Landmarks(points), (120, 110), side=128).to_photo)


@pytest.mark.parametrize("degrees", [0.0, 30.0, -75.0, 180.0])
def test_the_square_turns_with_the_face(degrees):
    moved = similar(FIVE, degrees=degrees, scale=1.7, shift=(300.0, 300.0))
    plain, turned = align(Landmarks(FIVE), (600, 600), side=64), align(Landmarks(moved), (600, 600), side=64)
    expected = similar(plain.quad, degrees=degrees, scale=1.7, shift=(300.0, 300.0))
    assert torch.allclose(turned.quad, expected)


def test_there_and_back():
    found = align(Landmarks(FIVE), (120, 110), side=64)
    points = torch.rand(20, 2, dtype=torch.float64) * 100
    assert torch.allclose(found.points_to_photo(found.points_to_crop(points)), points)
    assert torch.allclose(found.resized(256).quad, found.quad)


def test_a_profile_is_framed_by_its_height():
    profile = FIVE.clone()
    profile[1] = profile[0] + torch.tensor([1.0, 0.0])
    profile[4] = profile[3] + torch.tensor([1.0, 0.0])
    found = align(Landmarks(profile), (120, 110), side=64)
    assert found.scale * 64 == pytest.approx(3.6 * float((profile[3] - profile[0]).norm()), rel=0.01)


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"),
    [(0.0, 1.0, (60.3, 41.7)), (-28.0, 1.31, (40.0, 330.0)), (9.0, 0.6, (90.5, 9.0))],
)
def test_the_crop_of_a_moved_image_is_the_crop_of_the_original(degrees, scale, shift):
    image, landmarks = portrait()
    photo, moved = similarity_photo(384, degrees=degrees, scale=scale, shift=shift, canvas=720)
    plain = align(landmarks, (384, 384), side=96)
    turned = align(moved, (720, 720), side=96)
    inside = slice(8, -8)  # the rim shows the reflection beyond the original's edge
    first = plain.cut(image)[:, inside, inside]
    second = turned.cut(photo)[:, inside, inside]
    # Stated error: a hundredth of the range on average, which half a pixel's shift exceeds by far.
    assert (first - second).abs().mean() < 0.01
    off = Crop(turned.size, 96, turned.to_photo + torch.tensor([[0.0, 0, 0.5 * turned.scale], [0, 0, 0]]))
    assert (first - off.cut(photo)[:, inside, inside]).abs().mean() > 2 * (first - second).abs().mean()


@pytest.mark.parametrize("degrees", [0.0, 23.0])
def test_landmarks_land_on_their_places_within_half_a_pixel(degrees):
    _, moved = similarity_photo(384, degrees=degrees, scale=1.2, shift=(200.0, 60.0), canvas=720)
    _, landmarks = portrait(384)
    plain = align(landmarks, (384, 384), side=256)
    found = align(moved, (720, 720), side=256)
    error = found.points_to_crop(moved.points) - plain.points_to_crop(landmarks.points)
    assert error.norm(dim=1).max() < 0.5


def test_the_crop_shows_the_eyes_at_the_landmarks():
    """The dark pupil's centre of mass, found in the crop's pixels, is where the eye is said to be."""
    photo, moved = similarity_photo(384, degrees=-12.0, scale=1.0, shift=(100.0, 200.0), canvas=720)
    found = align(moved, (720, 720), side=256)
    crop = found.cut(photo)
    for place in found.points_to_crop(moved.points[:2]):
        left, top = (int(v) - 8 for v in place)
        dark = (-0.4 - crop[:, top : top + 16, left : left + 16].mean(dim=0)).clamp(min=0)
        at = torch.arange(16) + 0.5
        centre = torch.stack([(dark.sum(0) * at).sum(), (dark.sum(1) * at).sum()]) / dark.sum()
        assert (centre.double() + torch.tensor([left, top]) - place).norm() < 3.5  # it looks a little inward


def test_shrinking_does_not_alias():
    """Stripes finer than the crop's pixels become grey."""
    stripes = (torch.arange(1024) % 2 * 2.0 - 1).expand(3, 1024, 1024).contiguous()
    for count in (64, 40):  # 16 and 25.6 pixels of the photograph a pixel
        crop = from_square(
            torch.tensor([512.3, 511.1]).double(),
            torch.tensor([500.0, 60.0]).double(),
            (1024, 1024),
            side=count,
        ).cut(stripes)
        assert crop.abs().mean() < 0.1


def test_beyond_the_edge_is_a_soft_reflection():
    image, landmarks = portrait(192)
    corner = image[:, 40:, 60:]  # the face at the very edge of the image
    height, width = corner.shape[-2:]
    options = {"side": 128, "widen": get_world("portraits").widen}
    found = align(Landmarks(landmarks.points - torch.tensor([60.0, 40.0])), (width, height), **options)
    crop = found.cut(corner)
    assert crop.isfinite().all()
    whole = align(landmarks, (192, 192), **options).cut(image)
    places = found.points_to_photo(
        torch.stack(torch.meshgrid(*[torch.arange(128) + 0.5] * 2, indexing="xy"), -1).view(-1, 2)
    )
    inside = ((places > 2) & (places < torch.tensor([width - 2.0, height - 2.0]))).all(dim=1).view(128, 128)
    assert 0.3 < inside.float().mean() < 0.95
    assert (crop - whole)[:, inside].abs().max() < 0.02
    assert crop[:, ~inside].std() > 0.02, "a reflection, not a flat colour"


def test_the_middle_of_an_image_that_is_square_already():
    image, _ = portrait(96)
    assert torch.allclose(centred((96, 96), side=96).cut(image), image, atol=1e-5)


def test_no_face():
    with pytest.raises(LandmarksError, match="less than a pixel apart"):
        align(Landmarks(torch.ones(5, 2)), (100, 100), side=64)
    with pytest.raises(LandmarksError, match="outside the image"):
        align(Landmarks(FIVE + 500), (100, 100), side=64)
    with pytest.raises(LandmarksError, match="five or 68"):
        Landmarks(torch.ones(6, 2))
    with pytest.raises(LandmarksError, match="five or 68"):
        Landmarks(torch.full((5, 2), torch.nan))


def test_another_image_is_refused():
    image, landmarks = portrait(96)
    with pytest.raises(ValueError, match="96 x 96"):
        align(landmarks, (96, 96), side=64).cut(image[:, :50])


def test_landmarks_beside_a_photograph(tmp_path):
    photo = tmp_path / "anna.jpg"
    assert load_landmarks(photo) == []
    small = Landmarks(FIVE / 2)
    save_landmarks(photo, [small, Landmarks(FIVE)], size=(120, 110))
    first, second = load_landmarks(photo, size=(120, 110))
    assert torch.allclose(first.points, FIVE)
    assert torch.allclose(second.points, small.points)
    with pytest.raises(LandmarksError, match="120 x 110"):
        load_landmarks(photo, size=(110, 120))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Invalid JSON"),
        ('{"faces": []}', "at least 1 item"),
        ('{"faces": [[[1, 2]]]}', "a face has 1 points"),
        ('{"faces": [[[1, NaN], [3, 1], [1, 1], [1, 1], [1, 1]]]}', "finite number"),
        (json.dumps({"faces": [[[1, 2]] * 5] * 1001}), "at most 1000 items"),
    ],
    ids=range(5),
)
def test_a_damaged_file_of_landmarks_is_named(tmp_path, text, said):
    photo = tmp_path / "anna.jpg"
    landmarks_path(photo).write_text(text)
    with pytest.raises(LandmarksError, match=rf"anna\.landmarks\.json: .*{said}"):
        load_landmarks(photo)


def test_points_of_a_reduced_copy_are_scaled_and_those_of_another_shape_refused(tmp_path):
    save_landmarks(tmp_path / "a.jpg", [Landmarks(FIVE)], size=(400, 300))
    found = load_landmarks(tmp_path / "a.jpg", size=(1000, 751))[0]
    torch.testing.assert_close(found.points, 2.5 * FIVE.double(), atol=0.01, rtol=0)
    with pytest.raises(LandmarksError, match="is for an image of 400 x 300 pixels, this one has 300 x 400"):
        load_landmarks(tmp_path / "a.jpg", size=(300, 400))
