"""Figures of images: in rows, in labelled grids, and under the attention of an encoder."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from clcae_lib.images import to_array
from clcae_lib.plots.theme import bare, new_figure, titled

LABEL_WIDTH = 1.2
"""Width in inches that is reserved for the names of rows."""
HEAT = "inferno"
COVER = 0.7
"""Opacity of the overlay where attention is highest, 0 to 1."""


def show_images(images: Float[Tensor, "n 3 h w"], *, columns: int = 8, size: float = 1.1) -> Figure:
    """Return a figure of images in rows."""
    return _in_rows(list(to_array(images)), columns, size=size, height=size + 0.05)[0]


def _in_rows(
    images: Sequence[np.ndarray], columns: int, *, size: float, height: float
) -> tuple[Figure, np.ndarray]:
    """Return a figure of images, at most `columns` in a row of this height, and its axes."""
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    figure, axes = new_figure(rows, columns, width=columns * (size + 0.05), height=rows * height)
    for axis in axes.flat:
        bare(axis)
    for axis, pixels in zip(axes.flat, images, strict=False):
        axis.imshow(pixels, interpolation="nearest")
    return figure, axes


def show_grid(
    rows: Sequence[Float[Tensor, "n 3 h w"]],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    *,
    size: float = 1.1,
    title: str | None = None,
) -> Figure:
    """Return a figure of rows of images, with a name left of each row and above each column.

    Args:
        rows: images in [-1, 1]; all rows have the same shape.

    Raises:
        ValueError: the rows differ in length or size, or the labels do not fit them.
    """
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) != 1:
        raise ValueError(f"rows of a grid must have one shape, got {sorted(shapes)}")
    columns = len(rows[0])
    for labels, count, what in ((row_labels, len(rows), "row"), (column_labels, columns, "column")):
        if labels is not None and len(labels) != count:
            raise ValueError(f"show_grid: {len(labels)} {what} labels for {count} {what}s")
    width = columns * (size + 0.03) + (LABEL_WIDTH if row_labels else 0.0)
    height = len(rows) * (size + 0.03) + (0.3 if column_labels else 0.0) + (0.4 if title else 0.0)
    figure, axes = new_figure(len(rows), columns, width=width, height=height)
    for axis, image in zip(axes.flat, (image for row in rows for image in row), strict=True):
        bare(axis).imshow(to_array(image), interpolation="nearest")
    for axis, label in zip(axes[:, 0], row_labels or (), strict=False):
        axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
    for axis, label in zip(axes[0], column_labels or (), strict=False):
        axis.set_title(label, fontsize=11, loc="center")
    figure.get_layout_engine().set(w_pad=0.012, h_pad=0.035 if title else 0.012, wspace=0.0, hspace=0.0)
    return titled(figure, title, fontsize=12)


def show_attention(
    image: Float[Tensor, "3 h w"],
    maps: Float[Tensor, "m rows columns"],
    titles: Sequence[str],
    *,
    columns: int = 5,
    size: float = 1.5,
) -> Figure:
    """Return a figure of an image, then the image under each attention map (arXiv 2211.11448, figure 3).

    Args:
        maps: attention weights, one map per layer or head, zero or more; each is drawn on its own scale.
        titles: one per map.
        columns: number of images per row, including the plain one.

    Raises:
        ValueError: there is not one title for each map, or a weight is negative or not finite.
    """
    if len(titles) != len(maps):
        raise ValueError(f"show_attention: {len(titles)} titles for {len(maps)} maps")
    if not bool(torch.isfinite(maps).all()) or bool((maps < 0).any()):
        raise ValueError("show_attention: attention weights must be finite and not negative")
    images = [to_array(image), *(_overlay(image, weights) for weights in maps)]
    figure, axes = _in_rows(images, columns, size=size, height=size + 0.3)
    for axis, name in zip(axes.flat, ["image", *titles], strict=False):
        axis.set_title(name, fontsize=10, loc="center")
    return figure


def _overlay(
    image: Float[Tensor, "3 h w"], attention: Float[Tensor, "rows columns"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the image in grey under the attention map, dark violet to yellow, with visible cells."""
    share = attention.detach().cpu().float() / max(attention.max().item(), 1e-12)
    heat = interpolate(share[None, None], image.shape[1:], mode="nearest")[0, 0].numpy()
    grey = to_array(image).mean(axis=2, keepdims=True)
    cover = (COVER * (0.25 + 0.75 * heat))[..., None]
    return np.rint((1 - cover) * grey + cover * (255 * colormaps[HEAT](heat)[..., :3])).astype(np.uint8)
