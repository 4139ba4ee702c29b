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
"""The colour of the cell of each verdict."""
VERDICT_LINES = VERDICT_COLOURS | {"undecided": "#8A8A8A"}
"""The colour of the line of each verdict, darker where it is undecided."""
_MOST_NAMED = 8
_PLACES = [(x, y) for y in (6, -12, 16, -22, 27, -33, 39, -45) for x in (8, -8)]
"""Offsets of a name from its point, in points; the first free one is used."""


def show_methods(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    panel: str | None = None,
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Figure:
    """Return a figure with one point per method, lines for its intervals, and the front if known.

    Up to eight methods are labelled by name; more are numbered, with a list of names at the right.

    Args:
        table: columns `method`, `kind` (of `KIND_COLOURS`), `x`, `y`, and, if known, each of the two with
            `_low` and `_high`; `on_front` marks the methods that no other one beats in both.
        panel: column whose values have a panel each, with one row per method in each; one panel if None.
        labels: labels of the axes with units, by column.
        title: title of the single panel; with `panel`, its values are the titles.
    """
    labels = labels or {}
    known = table.dropna(subset=[x, y])
    groups = _groups(known, panel, whole="" if panel else title or "")
    listed = list(dict.fromkeys(known["method"]))
    numbered = len(listed) > _MOST_NAMED
    width = (8.6 if numbered else 7.4) + 4.6 * (len(groups) - 1)
    figure, axes = new_figure(1, len(groups), width=width, height=4.8, sharey=True)
    for axis, (heading, part) in zip(axes[0], groups.items(), strict=True):
        _draw_points(axis, part, x, y)
        axis.set(xlabel=labels.get(x, x))
        axis.margins(x=0.16, y=0.10)
        axis.set_title(heading, loc="left")
    axes[0, 0].set(ylabel=labels.get(y, y))
    last = axes[0, -1]
    shown = [name for name in KIND_COLOURS if name in set(table["kind"])]
    handles = [last.plot([], [], "o", color=KIND_COLOURS[name], label=name)[0] for name in shown]
    last.legend(handles=handles, **LEGEND_RIGHT)
    if numbered:
        text = "\n".join(f"{number}  {name}" for number, name in enumerate(listed, 1))
        last.text(1.03, 0.66, text, transform=last.transAxes, va="top", fontsize=9, linespacing=1.4)
    for axis, part in zip(axes[0], groups.values(), strict=True):
        names = [str(listed.index(name) + 1) if numbered else name for name in part["method"]]
        _name_points(axis, list(zip(part[x], part[y], strict=True)), names)
    return figure


def _groups(table: pd.DataFrame, column: str | None, *, whole: str = "") -> dict[str, pd.DataFrame]:
    """Return the rows by their value of a column; without one, or without rows, the table named `whole`."""
    parts = {} if column is None else dict(list(table.groupby(column, sort=False)))
    return parts or {whole: table}


def _draw_points(axis: Axes, part: pd.DataFrame, x: str, y: str) -> None:
    """Draw the points of a panel with their intervals; those of the front are filled."""
    for row in part.to_dict("records"):
        colour = KIND_COLOURS.get(row["kind"], PALETTE[6])
        line = {"color": colour, "linewidth": 1.5, "alpha": 0.5}
        if f"{x}_low" in row:
            axis.hlines(row[y], row[f"{x}_low"], row[f"{x}_high"], **line)
        if f"{y}_low" in row:
            axis.vlines(row[x], row[f"{y}_low"], row[f"{y}_high"], **line)
        face = colour if row.get("on_front", True) else "white"
        axis.plot(row[x], row[y], "o", color=colour, markersize=8, markerfacecolor=face)


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
    table: pd.DataFrame,
    *,
    x: str,
    measures: Mapping[str, str],
    rows: str | None = None,
    x_label: str | None = None,
) -> Figure:
    """Return a figure with a panel per measure and a curve per method.

    Args:
        table: columns `method`, `x` and each measure, sorted along the curves; at most as many methods as the
            palette has colours.
        measures: titles of the panels, by column.
        rows: column whose values have a row of panels each; one row if None.

    Raises:
        ValueError: there are more methods than colours.
    """
    names = list(dict.fromkeys(table["method"]))
    if len(names) > len(PALETTE):
        raise ValueError(
            f"show_method_curves: {len(names)} methods, but {len(PALETTE)} colours; choose fewer"
        )
    groups = _groups(table, rows)
    width, height = 4.3 * len(measures), 0.8 + 3.4 * len(groups)
    figure, axes = new_figure(
        len(groups), len(measures), width=width, height=height, sharex=True, sharey="col"
    )
    for line, (heading, group) in zip(axes, groups.items(), strict=True):
        for axis, (column, measure) in zip(line, measures.items(), strict=True):
            for colour, name in zip(PALETTE, names, strict=False):
                part = group[group["method"] == name]
                axis.plot(part[x], part[column], "o-", color=colour, linewidth=2, markersize=4)
            axis.set_title(f"{heading}: {measure}" if heading else measure, loc="left")
    for axis in axes[-1]:
        axis.set(xlabel=x if x_label is None else x_label)
    handles = [Line2D([], [], color=colour, marker="o") for colour, _ in zip(PALETTE, names, strict=False)]
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
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
        axis.text(x + 0.5, y + 0.5, f"{round(cell['value'], 3):+.3g}", ha="center", va="center", fontsize=9)
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

    A line that reaches more than eight times as far from zero as all others of its panel would press these
    together; it is not drawn, and its value is written at the panel's edge.

    Args:
        judged: one row per `variant` and `question` (a measure with its unit), with `value` (positive for
            better), `low`, `high` and `verdict`, as `evaluation.compare_gains` gives them; a row without an
            interval is left out.
    """
    names, panels = (list(dict.fromkeys(judged[name])) for name in ("variant", "question"))
    rows = max(1, math.ceil(len(panels) / columns))
    height = rows * (1.1 + 0.24 * max(2, len(names)))
    figure, axes = new_figure(rows, columns, width=4.2 * columns, height=height, sharey=True)
    for axis, name in zip(axes.flat, panels, strict=False):
        part = judged[judged["question"] == name].dropna(subset=["low", "high"])
        reach = part[["low", "high"]].abs().max(axis=1)
        fits = reach <= 8 * reach.nlargest(2).min()  # the second largest
        for one, inside in zip(part.to_dict("records"), fits, strict=True):
            place, colour = names.index(one["variant"]), VERDICT_LINES[one["verdict"]]
            if not inside:
                right = one["value"] > 0
                text = f"{one['value']:+.3g} >" if right else f"< {one['value']:+.3g}"
                at = {"transform": axis.get_yaxis_transform(), "ha": "right" if right else "left"}
                box = {"facecolor": axis.get_facecolor(), "edgecolor": "none", "pad": 1}
                axis.text(0.98 if right else 0.02, place, text, color=colour, va="center", bbox=box, **at)
                continue
            axis.hlines(place, one["low"], one["high"], color=colour, linewidth=2.5, alpha=0.7)
            axis.plot(one["value"], place, "o", color=colour, markersize=6)
        axis.axvline(0, color="0.3", linewidth=1)
        axis.set(yticks=range(len(names)), yticklabels=names, ylim=(max(1, len(names)) - 0.4, -0.6))
        axis.locator_params(axis="x", nbins=5)
        axis.set_title(name, loc="left")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = [
        axes.flat[0].plot([], [], "o-", color=colour, label=name)[0] for name, colour in VERDICT_LINES.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return titled(figure, title)
