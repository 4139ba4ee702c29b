"""Put an edited face back into the photograph from which it was cut.

The edited crop is mapped back by the inverse of its alignment and blended with a soft mask. If the image
before the edit is given, only the region that the edit changed is replaced; all other pixels keep their
values. The published code has no such step: its result is the crop.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from clcae_lib.photos.crop import Crop
from clcae_lib.photos.warp import blurred, warp

Blend = Literal["replace", "add"]


def paste(
    photograph: Float[Tensor, "3 h w"],
    crop: Crop,
    edited: Float[Tensor, "3 rows columns"],
    *,
    before: Float[Tensor, "3 rows columns"] | None = None,
    blend: Blend = "replace",
    feather: float = 0.08,
    threshold: float = 0.06,
) -> Float[Tensor, "3 h w"]:
    """Return the photograph with the edited crop in it; images are in [-1, 1].

    Args:
        photograph: the image from which the crop was cut.
        crop: place of the crop.
        edited: image of the crop's side.
        before: image before the edit: the inversion, or the crop itself. With it only changed pixels are
            pasted; all others stay exactly the same.
        blend: "replace" pastes the edited pixels; "add" adds the difference of `edited` and `before`, which
            keeps the photograph's own colour and detail, and needs `before`.
        feather: width of the mask's soft edge, in sides of the crop.
        threshold: smallest difference, of 0 to 2, that counts as a change.

    Raises:
        ValueError: an image has the wrong size, or `blend` lacks `before`.
    """
    crop.check_size(photograph)
    side = crop.side
    for name, image in (("edited", edited), ("before", before)):
        if image is not None and tuple(image.shape) != (3, side, side):
            raise ValueError(f"{name}: expected [3, {side}, {side}], got {list(image.shape)}")
    if blend == "add" and before is None:
        raise ValueError("blend='add' adds a difference: give `before`, the image before the edit")
    box = _box(crop)
    if box is None:
        return photograph.clone()
    rows, columns = box
    matrix = crop.to_crop
    matrix[:, 2] += matrix[:, :2] @ torch.tensor([columns.start, rows.start], dtype=torch.float64)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    mask = paste_mask(crop, edited, before, feather=feather, threshold=threshold)
    weight = warp(mask[None], matrix, size, beyond="zeros", cubic=False).clamp(0, 1)
    old = photograph[:, rows, columns]
    if blend == "add":
        step = warp(edited - before, matrix, size)
    else:
        step = warp(edited, matrix, size).clamp(-1, 1) - old
    result = photograph.clone()
    result[:, rows, columns] = torch.where(weight > 0, (old + weight * step).clamp(-1, 1), old)
    return result


def paste_mask(
    crop: Crop,
    edited: Float[Tensor, "3 side side"],
    before: Float[Tensor, "3 side side"] | None = None,
    *,
    feather: float = 0.08,
    threshold: float = 0.06,
) -> Float[Tensor, "side side"]:
    """Return the weight of each of the crop's pixels in the photograph, from 0 at the border to 1.

    The arguments are those of `paste`; without `before` all of the crop counts as changed.
    """
    side = crop.side
    width = max(1.0, feather * side)
    distance = torch.arange(side).to(edited) + 0.5
    ramp = _smooth(torch.minimum(distance, side - distance) / width - 0.5 / width)
    frame = ramp[:, None] * ramp[None, :]
    return frame if before is None else frame * _changed(edited - before, width, threshold)


def _changed(step: Tensor, width: float, threshold: float) -> Float[Tensor, "side side"]:
    """Return 1 in and near the region that an edit changed, falling smoothly to 0."""
    change = step.abs().amax(dim=0, keepdim=True)
    fine = max(0.5, width / 8)
    strength = _smooth((blurred(change, fine) - 0.5 * threshold) / threshold)
    reach = 2 * max(1, round(width / 4)) + 1
    grown = max_pool2d(strength[None], reach, stride=1, padding=reach // 2)[0]
    return blurred(grown, max(0.5, width / 4))[0].clamp(0, 1)


def _smooth(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def _box(crop: Crop) -> tuple[slice, slice] | None:
    corners, (width, height) = crop.quad, crop.size
    low, high = corners.min(dim=0).values.floor().long(), corners.max(dim=0).values.ceil().long()
    left, top = (max(0, int(value)) for value in low)
    right, bottom = min(width, int(high[0])), min(height, int(high[1]))
    if left >= right or top >= bottom:
        return None
    return slice(top, bottom), slice(left, right)
