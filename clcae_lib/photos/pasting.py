"""Putting an edited face back into the photograph it was cut from.

The edited crop returns through the inverse of its alignment under a soft mask. Where it is known what the
edit started from, only the region that the edit changed is touched; everywhere else the photograph keeps
every pixel. The published code has no such step: it ends with the crop.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from clcae_lib.photos.alignment import Alignment, check_size
from clcae_lib.photos.warp import blurred, warp

Blend = Literal["replace", "add"]


def paste(
    photograph: Float[Tensor, "3 height width"],
    alignment: Alignment,
    edited: Float[Tensor, "3 rows columns"],
    *,
    before: Float[Tensor, "3 rows columns"] | None = None,
    blend: Blend = "replace",
    feather: float = 0.08,
    threshold: float = 0.06,
) -> Float[Tensor, "3 height width"]:
    """The photograph with the edited crop in it; pictures are in [-1, 1].

    Args:
        photograph: that the crop was cut from.
        alignment: where.
        edited: at the alignment's side.
        before: what the edit started from, at the same side: the inversion, or the crop itself. With it only
            what the edit changed is pasted; where nothing changed, the photograph stays as it is, exactly.
        blend: "replace" puts the edited pixels there; "add" adds the difference of `edited` and `before`,
            which keeps the photograph's own colour and detail, and needs `before`.
        feather: width of the mask's soft edge, in sides of the crop.
        threshold: the least change, of 0 to 2, that counts as one.

    Raises:
        ValueError: a picture has the wrong size, or `blend` lacks `before`.
    """
    _check(photograph, alignment, edited, before, blend)
    mask = paste_mask(alignment, edited, before, feather=feather, threshold=threshold)
    box = _box(alignment)
    if box is None:
        return photograph.clone()
    rows, columns = box
    matrix = alignment.to_crop
    matrix[:, 2] += matrix[:, :2] @ torch.tensor([columns.start, rows.start], dtype=torch.float64)
    size = (rows.stop - rows.start, columns.stop - columns.start)
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
    alignment: Alignment,
    edited: Float[Tensor, "3 side side"],
    before: Float[Tensor, "3 side side"] | None = None,
    *,
    feather: float = 0.08,
    threshold: float = 0.06,
) -> Float[Tensor, "side side"]:
    """How much of each of the crop's pixels returns to the photograph, 0 at its border to 1.

    Args:
        alignment: of the crop.
        edited: the crop after the edit.
        before: the crop before; None takes all of it as changed.
        feather: width of the soft edge, in sides of the crop.
        threshold: the least change that counts.
    """
    side = alignment.side
    width = max(1.0, feather * side)
    distance = torch.arange(side).to(edited) + 0.5
    ramp = _smooth(torch.minimum(distance, side - distance) / width - 0.5 / width)
    frame = ramp[:, None] * ramp[None, :]
    return frame if before is None else frame * _changed(edited - before, width, threshold)


def _changed(step: Tensor, width: float, threshold: float) -> Float[Tensor, "side side"]:
    """Where an edit changed something: 1 there and close by, falling softly to 0."""
    change = step.abs().amax(dim=0, keepdim=True)
    fine = max(0.5, width / 8)
    strength = _smooth((blurred(change, fine) - 0.5 * threshold) / threshold)
    reach = 2 * max(1, round(width / 4)) + 1
    grown = max_pool2d(strength[None], reach, stride=1, padding=reach // 2)[0]
    return blurred(grown, max(0.5, width / 4))[0].clamp(0, 1)


def _smooth(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def _box(alignment: Alignment) -> tuple[slice, slice] | None:
    """Rows and columns of the photograph that the crop covers; None where it covers none."""
    corners, (width, height) = alignment.quad, alignment.size
    low, high = corners.min(dim=0).values.floor().long(), corners.max(dim=0).values.ceil().long()
    left, top = (max(0, int(value)) for value in low)
    right, bottom = min(width, int(high[0])), min(height, int(high[1]))
    if left >= right or top >= bottom:
        return None
    return slice(top, bottom), slice(left, right)


def _check(
    photograph: Tensor, alignment: Alignment, edited: Tensor, before: Tensor | None, blend: str
) -> None:
    check_size(alignment, photograph)
    side = alignment.side
    for name, picture in (("edited", edited), ("before", before)):
        if picture is not None and tuple(picture.shape) != (3, side, side):
            raise ValueError(f"{name}: expected [3, {side}, {side}], got {list(picture.shape)}")
    if blend == "add" and before is None:
        raise ValueError("blend='add' adds a difference: give `before`, what the edit started from")
