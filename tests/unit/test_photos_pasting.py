"""The edited face back in its photograph: only what changed, and only where it may."""

import pytest
import torch

from clcae_lib.photos.crop import Crop, align
from clcae_lib.photos.pasting import paste, paste_mask
from tests.unit.test_photos_alignment import similarity_photo

CANVAS = 480


@pytest.fixture(scope="module")
def scene():
    """A photograph with a face turned by 14 degrees, its crop at 128 pixels, and the crop."""
    photo, landmarks = similarity_photo(192, degrees=14.0, scale=1.15, shift=(150.0, 60.0), canvas=CANVAS)
    noise = 0.02 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    photo = (photo + noise).clamp(-1, 1)
    alignment = align(landmarks, (CANVAS, CANVAS), side=128)
    return photo, alignment, alignment.cut(photo)


def inside_mask(alignment):
    """which of the photograph's pixels are inside the crop's square."""
    at = torch.arange(CANVAS) + 0.5
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(-1, 2)
    crop = alignment.points_to_crop(grid).view(CANVAS, CANVAS, 2)
    return ((crop > 0) & (crop < alignment.side)).all(dim=-1)


def test_the_unedited_crop_leaves_the_photograph_as_it_was(scene):
    photo, alignment, crop = scene
    pasted = paste(photo, alignment, crop, before=crop)
    assert torch.equal(pasted, photo)


def test_the_whole_crop_returns_within_the_error_of_resampling_twice(scene):
    photo, alignment, crop = scene
    pasted = paste(photo, alignment, crop)
    outside = ~inside_mask(alignment)
    assert torch.equal(pasted[:, outside], photo[:, outside])
    # Stated error: two resamplings, the first to fewer pixels, lose only the grain.
    assert (pasted - photo)[:, ~outside].abs().mean() < 0.03
    assert not torch.equal(pasted, photo)


def test_a_finer_crop_returns_more_exactly(scene):
    photo, alignment, crop = scene
    fine = alignment.resized(512)
    coarse_error = (paste(photo, alignment, crop) - photo).abs().mean()
    fine_error = (paste(photo, fine, fine.cut(photo)) - photo).abs().mean()
    assert fine_error < 0.4 * coarse_error


def test_only_the_changed_region_is_touched(scene):
    photo, alignment, crop = scene
    edited = crop.clone()
    edited[:, 80:100, 50:80] = (edited[:, 80:100, 50:80] + 0.6).clamp(-1, 1)
    pasted = paste(photo, alignment, edited, before=crop)
    moved = (pasted != photo).any(dim=0).nonzero().flip(1) + 0.5
    where = alignment.points_to_crop(moved)
    assert len(where) > 300
    reach = 0.08 * 128 + 4
    assert where[:, 0].min() > 50 - reach
    assert where[:, 0].max() < 80 + reach
    assert where[:, 1].min() > 80 - reach
    assert where[:, 1].max() < 100 + reach
    centre = (slice(None), slice(84, 96), slice(56, 74))
    assert (alignment.cut(pasted)[centre] - edited[centre]).abs().mean() < 0.03


def test_a_change_at_the_crops_border_fades_out(scene):
    photo, alignment, crop = scene
    pasted = paste(photo, alignment, torch.ones_like(crop))
    inner = alignment.points_to_photo(torch.tensor([[64.0, 64.0]]))[0].long()
    assert (pasted[:, inner[1], inner[0]] > 0.99).all()
    step = (pasted - photo).abs()
    outside = ~inside_mask(alignment)
    assert step[:, outside].max() == 0
    jump = (pasted[:, 1:] - pasted[:, :-1]).abs().amax() - (photo[:, 1:] - photo[:, :-1]).abs().amax()
    assert jump < 0.3, "no seam"


def test_adding_the_difference_keeps_colour_and_grain(scene):
    photo, alignment, crop = scene
    blurry = torch.nn.functional.avg_pool2d(crop[None], 9, 1, 4)[0] - 0.1  # a poor inversion, too dark
    edited = blurry.clone()
    edited[:, 70:110, 40:90] += 0.2
    pasted = paste(photo, alignment, edited, before=blurry, blend="add")
    x, y = alignment.points_to_photo(torch.tensor([[65.0, 90.0]]))[0].long().tolist()
    patch = (slice(None), slice(y - 6, y + 6), slice(x - 6, x + 6))
    step = (pasted[patch] - photo[patch])[photo[patch] < 0.75]  # brighter pixels end at white
    assert step.numel() > 200
    assert step.mean() == pytest.approx(0.2, abs=0.02)
    assert step.std() < 0.02, "the same step everywhere, so the grain stays"


def test_a_crop_that_reaches_beyond_the_photograph(scene):
    photo, alignment, _ = scene
    quad = alignment.quad
    left, top = (int(v) for v in quad.mean(dim=0))
    part = photo[:, top:, left:].contiguous()
    matrix = alignment.to_photo - torch.tensor([[0.0, 0, left], [0, 0, top]])
    moved = Crop((part.shape[2], part.shape[1]), 128, matrix)
    crop = moved.cut(part)
    assert torch.equal(paste(part, moved, crop, before=crop), part)
    assert (paste(part, moved, -crop) != part).any()


def test_the_mask_is_one_inside_and_zero_at_the_border(scene):
    _, alignment, crop = scene
    mask = paste_mask(alignment, crop)
    assert mask[0].max() == 0
    assert mask[64, 64] == 1
    assert paste_mask(alignment, crop, crop).max() == 0


def test_wrong_requests_are_named(scene):
    photo, alignment, crop = scene
    with pytest.raises(ValueError, match="edited"):
        paste(photo, alignment, crop[:, :10])
    with pytest.raises(ValueError, match="before"):
        paste(photo, alignment, crop, blend="add")
    with pytest.raises(ValueError, match="photograph"):
        paste(photo[:, 1:], alignment, crop)
