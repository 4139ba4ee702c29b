"""Figures that compare methods: points with their intervals, curves with their names, and verdicts."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from clcae_lib.plots.theme import LEGEND_RIGHT, PALETTE, new_figure, titled

KIND_COLOURS = {
    "encoder": PALETTE[0],
    "CLCAE": PALETTE[1],
    "optimisation": PALETTE[2],
    "hybrid": PALETTE[3],
    "trivial": PALETTE[6],
}
VERDICT_COLOURS = {"better": PALETTE[5], "worse": PALETTE[4], "undecided": "#E4E4E4"}
_MOST_NAMED = 8
_PLACES = [(x, y) for y in (6, -12, 16, -22, 27, -33, 39, -45) for x in (8, -8)]
"""Offsets of a name from its point, in points; the first free one is used."""


def show_methods(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Figure:
    """Return a figure with one point per method, lines for its intervals, and the front if known.

    Up to eight points are labelled by name; more are numbered, with a list of names at the right.

    Args:
        table: columns `method`, `kind` (of `KIND_COLOURS`), `x`, `y`, and, if known, each of the two with
            `_low` and `_high`; `on_front` marks the methods that no other one beats in both.
        labels: labels of the axes with units, by column.
    """
    labels = labels or {}
    known = table.dropna(subset=[x, y])
    numbered = len(known) > _MOST_NAMED
    figure, axes = new_figure(width=8.6 if numbered else 7.4, height=4.8)
    axis = axes[0, 0]
    for row in known.to_dict("records"):
        colour = KIND_COLOURS.get(row["kind"], PALETTE[6])
        line = {"color": colour, "linewidth": 1.5, "alpha": 0.5}
        if f"{x}_low" in row:
            axis.hlines(row[y], row[f"{x}_low"], row[f"{x}_high"], **line)
        if f"{y}_low" in row:
            axis.vlines(row[x], row[f"{y}_low"], row[f"{y}_high"], **line)
        face = colour if row.get("on_front", True) else "white"
        axis.plot(row[x], row[y], "o", color=colour, markersize=8, markerfacecolor=face)
    axis.set(xlabel=labels.get(x, x), ylabel=labels.get(y, y))
    axis.margins(x=0.16, y=0.10)
    shown = [name for name in KIND_COLOURS if name in set(table["kind"])]
    handles = [axis.plot([], [], "o", color=KIND_COLOURS[name], label=name)[0] for name in shown]
    axis.legend(handles=handles, **LEGEND_RIGHT)
    axis.set_title(title or "", loc="left")
    names = list(known["method"])
    if numbered:
        listed = "\n".join(f"{number}  {name}" for number, name in enumerate(names, 1))
        axis.text(1.03, 0.66, listed, transform=axis.transAxes, va="top", fontsize=9, linespacing=1.4)
        names = [str(number) for number in range(1, len(names) + 1)]
    _name_points(axis, list(zip(known[x], known[y], strict=True)), names)
    return figure


def _name_points(axis: Axes, points: list[tuple[float, float]], names: list[str]) -> None:
    """Write each name next to its point, so that it covers no other name and no point."""
    axis.figure.draw_without_rendering()
    side = 5 * axis.figure.dpi / 72
    spots = [axis.transData.transform(point) for point in points]
    taken = [Bbox.from_bounds(u - side, v - side, 2 * side, 2 * side) for u, v in spots]
    for point, name in zip(points, names, strict=True):
        text = axis.annotate(name, point, _PLACES[0], textcoords="offset points", fontsize=9)
        for place in [*_PLACES, _PLACES[0]]:  # the first one again if none is free
            text.set(position=place, horizontalalignment="left" if place[0] > 0 else "right")
            box, area = text.get_window_extent(), axis.bbox
            inside = box.x0 > area.x0 and box.x1 < area.x1 and box.y0 > area.y0
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def show_method_curves(
    table: pd.DataFrame, *, x: str, measures: Mapping[str, str], x_label: str | None = None
) -> Figure:
    """Return a figure with a panel per measure and a curve per method.

    Args:
        table: columns `method`, `x` and each measure, sorted along the curves; at most as many methods as the
            palette has colours.
        measures: titles of the panels, by column.

    Raises:
        ValueError: there are more methods than colours.
    """
    curves = {name: table[table["method"] == name] for name in dict.fromkeys(table["method"])}
    if len(curves) > len(PALETTE):
        raise ValueError(
            f"show_method_curves: {len(curves)} methods, but {len(PALETTE)} colours; choose fewer"
        )
    figure, axes = new_figure(1, len(measures), width=4.3 * len(measures), height=4.2)
    for axis, (column, heading) in zip(axes[0], measures.items(), strict=True):
        for colour, part in zip(PALETTE, curves.values(), strict=False):
            axis.plot(part[x], part[column], "o-", color=colour, linewidth=2, markersize=4)
        axis.set(xlabel=x if x_label is None else x_label)
        axis.set_title(heading, loc="left")
    handles = [Line2D([], [], color=colour, marker="o") for colour, _ in zip(PALETTE, curves, strict=False)]
    figure.legend(handles, list(curves), loc="outside lower center", ncols=4, frameon=False)
    return figure


def show_verdicts(judged: pd.DataFrame) -> Figure:
    """Return a table of comparisons as a figure: each gain in a cell, coloured by its verdict.

    Args:
        judged: one row per `method` and `measure`, with `value` (positive for better) and `verdict`, as
            `evaluation.compare_methods` gives them; a cell without a row stays empty.
    """
    rows, columns = (list(dict.fromkeys(judged[name])) for name in ("method", "measure"))
    figure, axes = new_figure(width=1.25 * len(columns) + 3.4, height=0.36 * len(rows) + 1.7)
    axis = axes[0, 0]
    for cell in judged.to_dict("records"):
        x, y = columns.index(cell["measure"]), rows.index(cell["method"])
        colour = VERDICT_COLOURS[cell["verdict"]]
        axis.fill_between([x, x + 1], y, y + 1, color=colour, edgecolor="white", linewidth=1.5)
        axis.text(x + 0.5, y + 0.5, f"{cell['value']:+.3g}", ha="center", va="center", fontsize=9)
    heads = [name.replace(", ", ",\n") for name in columns]
    axis.set_xticks(np.arange(len(columns)) + 0.5, heads, fontsize=9)
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axis.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    handles = [
        axis.plot([], [], "s", color=colour, markersize=10, label=name)[0]
        for name, colour in VERDICT_COLOURS.items()
    ]
    axis.legend(handles=handles, **LEGEND_RIGHT)
    return figure


def show_forest(judged: pd.DataFrame, *, columns: int = 3, title: str | None = None) -> Figure:
    """Return a figure of gains with their intervals: a panel per measure, a line per comparison.

    Args:
        judged: one row per `variant` and `question` (a measure with its unit), with `value` (positive for
            better), `low`, `high` and `verdict`, as `evaluation.compare_gains` gives them; a row without an
            interval is left out.
    """
    names, panels = (list(dict.fromkeys(judged[name])) for name in ("variant", "question"))
    rows = max(1, math.ceil(len(panels) / columns))
    height = rows * (1.1 + 0.24 * max(2, len(names)))
    figure, axes = new_figure(rows, columns, width=4.2 * columns, height=height, sharey=True)
    colours = {**VERDICT_COLOURS, "undecided": "#8A8A8A"}
    for axis, name in zip(axes.flat, panels, strict=False):
        part = judged[judged["question"] == name].dropna(subset=["low", "high"])
        for one in part.to_dict("records"):
            place, colour = names.index(one["variant"]), colours[one["verdict"]]
            axis.hlines(place, one["low"], one["high"], color=colour, linewidth=2.5, alpha=0.7)
            axis.plot(one["value"], place, "o", color=colour, markersize=6)
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(max(1, len(names)) - 0.4, -0.6))
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(name, loc="left")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = [axes.flat[0].plot([], [], "o-", color=colours[name], label=name)[0] for name in colours]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return titled(figure, title)
