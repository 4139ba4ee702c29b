"""One look for every figure: colours that colour-blind readers can tell apart, type that can be read."""

import io
from pathlib import Path

import numpy as np
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clcae_lib.files import atomic_path

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#3B3B3B")
"""Okabe and Ito's colours (2008), the strongest first; yellow, which vanishes on white, is left out."""

SPACE_COLOURS = {"w": PALETTE[0], "w_plus": PALETTE[1], "f": PALETTE[2]}
ORIGIN_COLOURS = {"live": PALETTE[1], "sweep": PALETTE[4], "reference": PALETTE[0]}

DIVERGING = "vlag"
SEQUENTIAL = "mako_r"
DPI = 130

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

    It belongs to no window and to no list of open figures, so nothing need close it.
    """

    def _repr_png_(self) -> bytes:
        """The figure as PNG, for the notebook."""
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=self.dpi)
        return content.getvalue()


def theme() -> None:
    """Make this look the default of matplotlib and seaborn in a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE, rc=_RC)


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 4.0, **options: object
) -> tuple[Drawing, np.ndarray]:
    """A figure in this look and its axes `[rows, columns]`.

    Args:
        rows: of axes.
        columns: of axes.
        width: of the figure, in inches.
        height: of the figure, in inches.
        options: for `Figure.subplots`.
    """
    style = sns.axes_style("whitegrid") | sns.plotting_context("notebook") | _RC
    with rc_context(style):
        figure = Drawing(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def bare(axis: Axes) -> Axes:
    """The axes without ticks, grid or frame, for a picture."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis


def save_figure(figure: Figure, path: Path | str, *, dpi: int = DPI) -> Path:
    """Write a figure as PNG, whole or not at all, and return its path."""
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", dpi=dpi)
    return Path(path)
