"""Methods beside each other: one point a method, with its intervals and its name."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from clcae_lib.visuals.theme import PALETTE, new_figure

KIND_COLOURS = {
    "encoder": PALETTE[0],
    "CLCAE": PALETTE[1],
    "optimisation": PALETTE[2],
    "hybrid": PALETTE[3],
    "trivial": PALETTE[6],
}


def show_methods(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    label: str = "method",
    kind: str = "kind",
    labels: Mapping[str, str] | None = None,
    log_x: bool = False,
    title: str | None = None,
) -> Figure:
    """A figure with one named point a method, lines for its intervals, and the front where it is known.

    Args:
        table: with the columns `x`, `y`, and, where known, each with `_low` and `_high`; `on_front` marks
            those that no other beats in both.
        x, y: the columns drawn.
        label: the column with the names.
        kind: the column that colours them, of `KIND_COLOURS`.
        labels: what stands beside an axis, by column, with its unit.
        log_x: a logarithmic horizontal axis.
        title: of the figure.
    """
    labels = labels or {}
    figure, axes = new_figure(width=7.4, height=4.8)
    axis = axes[0, 0]
    for row in table.dropna(subset=[x, y]).to_dict("records"):
        colour = KIND_COLOURS.get(row[kind], PALETTE[6])
        filled = row.get("on_front", True)
        _cross(axis, row, x, y, colour)
        axis.plot(
            row[x], row[y], "o", color=colour, markersize=8, markerfacecolor=colour if filled else "white"
        )
        axis.annotate(str(row[label]), (row[x], row[y]), (7, 5), textcoords="offset points", fontsize=9)
    axis.set(xlabel=labels.get(x, x), ylabel=labels.get(y, y))
    axis.margins(x=0.16, y=0.10)
    if log_x:
        axis.set_xscale("log")
    shown = [name for name in KIND_COLOURS if name in set(table[kind])]
    handles = [axis.plot([], [], "o", color=KIND_COLOURS[name], label=name)[0] for name in shown]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    if title:
        axis.set_title(title, loc="left")
    return figure


def _cross(axis, row: dict, x: str, y: str, colour: str) -> None:
    """The intervals of a point."""
    if f"{x}_low" in row:
        axis.hlines(row[y], row[f"{x}_low"], row[f"{x}_high"], color=colour, linewidth=1.5, alpha=0.5)
    if f"{y}_low" in row:
        axis.vlines(row[x], row[f"{y}_low"], row[f"{y}_high"], color=colour, linewidth=1.5, alpha=0.5)
