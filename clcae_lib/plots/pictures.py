"""Labelled pictures: grids with names on rows and columns, and strips that follow an edit."""

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from clcae_lib.plots.grid import stack_rows, to_pixels
from clcae_lib.plots.theme import bare, new_figure

LABEL_WIDTH = 1.2
"""Inches kept for the names of rows."""


def show_images(
    images: Float[Tensor, "n 3 h w"],
    *,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    size: float = 1.1,
    title: str | None = None,
) -> Figure:
    """A figure of pictures in rows, each with its title.

    Args:
        images: in [-1, 1].
        titles: one for each picture.
        columns: pictures in a row.
        size: of a picture, in inches.
        title: of the whole.

    Raises:
        ValueError: there is not one title for each picture.
    """
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"show_images: {len(titles)} titles for {len(images)} images")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = rows * (size + (0.25 if titles else 0.05)) + (0.4 if title else 0.0)
    figure, axes = new_figure(rows, columns, width=columns * (size + 0.05), height=height)
    for axis in axes.flat:
        bare(axis)
    for i, (axis, pixels) in enumerate(zip(axes.flat, to_pixels(images), strict=False)):
        axis.imshow(pixels, interpolation="nearest")
        if titles is not None:
            axis.set_title(titles[i], fontsize=9, loc="center")
    return _titled(figure, title)


def show_grid(
    rows: Sequence[Float[Tensor, "n 3 h w"]],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    *,
    size: float = 1.1,
    title: str | None = None,
) -> Figure:
    """A figure of rows of pictures, with a name left of each row and above each column.

    Args:
        rows: of equally many pictures of one size, in [-1, 1].
        row_labels: one for each row.
        column_labels: one for each column.
        size: of a picture, in inches.
        title: of the whole.

    Raises:
        ValueError: the rows differ, or the labels do not fit them.
    """
    pixels = to_pixels(stack_rows(rows))
    columns = len(rows[0])
    for labels, count, what in ((row_labels, len(rows), "row"), (column_labels, columns, "column")):
        if labels is not None and len(labels) != count:
            raise ValueError(f"show_grid: {len(labels)} {what} labels for {count} {what}s")
    width = columns * (size + 0.03) + (LABEL_WIDTH if row_labels else 0.0)
    height = len(rows) * (size + 0.03) + (0.3 if column_labels else 0.0) + (0.4 if title else 0.0)
    figure, axes = new_figure(len(rows), columns, width=width, height=height)
    for axis, picture in zip(axes.flat, pixels, strict=True):
        bare(axis).imshow(picture, interpolation="nearest")
    for axis, label in zip(axes[:, 0], row_labels or (), strict=False):
        axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
    for axis, label in zip(axes[0], column_labels or (), strict=False):
        axis.set_title(label, fontsize=11, loc="center")
    figure.get_layout_engine().set(w_pad=0.012, h_pad=0.035 if title else 0.012, wspace=0.0, hspace=0.0)
    return _titled(figure, title)


def show_traversal(
    strips: Float[Tensor, "n s 3 h w"],
    strengths: Sequence[float | int],
    *,
    labels: Sequence[str] | None = None,
    size: float = 1.1,
    title: str | None = None,
) -> Figure:
    """A figure of one strip a portrait, or a factor, from the weakest to the strongest edit.

    Args:
        strips: from `editing.traverse`, in [-1, 1].
        strengths: one for each picture of a strip.
        labels: one for each strip.
        size: of a picture, in inches.
        title: of the whole.

    Raises:
        ValueError: the strengths or labels do not fit the strips.
    """
    names = ["0" if s == 0 else f"{s:+g}" for s in strengths]
    return show_grid(list(strips), labels, names, size=size, title=title)


def _titled(figure: Figure, title: str | None) -> Figure:
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    return figure
