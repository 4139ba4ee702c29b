"""Details the generator never saw (a hat, an earring, a scar, a pattern): how much of them survives.

Section 3.3 of arXiv 2211.11448 holds that F keeps what W+ cannot. The renderer draws the same person with and
without the detail, so which pixels it covers is known, before an edit and after.
"""

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

THRESHOLD = 0.1
"""Pixels that differ by more than this, on [-1, 1], belong to the detail."""
SMALLEST = 12
"""Details of fewer pixels cannot be judged."""


def detail_mask(worn: Float[Tensor, "n 3 h w"], bare: Float[Tensor, "n 3 h w"]) -> Bool[Tensor, "n 1 h w"]:
    """The pixels that a detail covers: where two renders of one person differ."""
    return (worn - bare).abs().amax(dim=1, keepdim=True) > THRESHOLD


def detail_kept(
    pictures: Float[Tensor, "n 3 h w"], worn: Float[Tensor, "n 3 h w"], bare: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, " n"]:
    """How much of the detail pictures show: 1 as the render, 0 no better than the person without it.

    It is one minus the squared error under the detail over that of the bare render, and may fall below 0. It
    is nan where the detail covers fewer than `SMALLEST` pixels (long hair hides an earring).

    Args:
        pictures: reconstructions of `worn`, or, with `worn` and `bare` of the edited person, their edits.
        worn: renders with the detail, in [-1, 1].
        bare: renders of the same people without.
    """
    mask = detail_mask(worn, bare)
    missed, all_of_it = (((x - worn).square() * mask).sum(dim=(1, 2, 3)) for x in (pictures, bare))
    visible = mask.sum(dim=(1, 2, 3)) >= SMALLEST
    return torch.where(visible, 1 - missed / all_of_it.clamp(min=1e-12), float("nan"))


def detail_table(
    pictures: dict[str, Float[Tensor, "n 3 h w"]],
    *,
    edited: dict[str, Float[Tensor, "n 3 h w"]],
    worn: Float[Tensor, "n 3 h w"],
    bare: Float[Tensor, "n 3 h w"],
    worn_edited: Float[Tensor, "n 3 h w"],
    bare_edited: Float[Tensor, "n 3 h w"],
) -> pd.DataFrame:
    """One row for each picture and space: `kept`, `kept_after_edit`, and `lost`, their difference.

    Args:
        pictures: reconstructions of `worn`, by space.
        edited: the same after the edit, by space.
        worn, bare: renders with the detail and without.
        worn_edited, bare_edited: renders of the true edit, with the detail and without; the detail moves
            with the head, so its mask is theirs.
    """
    frames = []
    for space, picture in pictures.items():
        before = detail_kept(picture, worn, bare)
        after = detail_kept(edited[space], worn_edited, bare_edited)
        columns = {"kept": before, "kept_after_edit": after, "lost": before - after}
        rows = {name: values.tolist() for name, values in columns.items()}
        frames.append(pd.DataFrame({"image": range(len(worn)), "space": space, **rows}))
    return pd.concat(frames, ignore_index=True)
