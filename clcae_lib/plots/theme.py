"""The style of all figures: colours that colour-blind readers can distinguish, and legible text."""

import io
import logging

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#3B3B3B")
"""Okabe and Ito's colours (2008), the strongest first, without yellow, which is too light on white."""
SPACE_COLOURS = {"w": PALETTE[0], "w_plus": PALETTE[1], "f": PALETTE[2]}
"""The colour of each space of codes."""
ORIGIN_COLOURS = {"reference": PALETTE[0], "sweep": PALETTE[4], "live": PALETTE[1]}
"""The colour of results by origin, which is the committed reference, a sweep, or the notebook itself."""
LEGEND_RIGHT = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False}
"""Options for a legend to the right of the axes."""

# Otherwise a logarithmic axis causes twenty warnings about mathematical fonts that it does not need.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

_RC = {
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.dpi": 100,
}


class Drawing(Figure):
    """A figure that a notebook shows when it is the last expression of a cell, and at no other time.

    It has no window and is not in matplotlib's list of open figures, so it need not be closed.
    """

    def _repr_png_(self) -> bytes:
        """Return the figure as PNG, for the notebook."""
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=self.dpi)
        return content.getvalue()


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 4.0, **options: object
) -> tuple[Drawing, np.ndarray]:
    """Return a figure in this style and its axes `[rows, columns]`.

    Args:
        width: width of the figure, in inches.
        height: height of the figure, in inches.
    """
    style = sns.axes_style("whitegrid") | sns.plotting_context("notebook") | _RC
    with rc_context(style):
        figure = Drawing(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def bare(axis: Axes) -> Axes:
    """Return the axes without ticks, grid or frame, for an image."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    return axis


def titled(figure: Figure, title: str | None, **options: object) -> Figure:
    """Return the figure, with `title`, if not None, above all axes at the left."""
    if title:
        figure.suptitle(title, x=0.01, ha="left", **options)
    return figure
