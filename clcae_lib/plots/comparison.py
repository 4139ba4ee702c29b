"""Methods beside each other: points with their intervals, curves with their names, and verdicts."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from clcae_lib.plots.theme import PALETTE, new_figure

KIND_COLOURS = {
    "encoder": PALETTE[0],
    "CLCAE": PALETTE[1],
    "optimisation": PALETTE[2],
    "hybrid": PALETTE[3],
    "trivial": PALETTE[6],
}
VERDICT_COLOURS = {"better": PALETTE[5], "worse": PALETTE[4], "undecided": "#E4E4E4"}
_PLACES = [(x, y) for y in (6, -12, 16, -22, 27, -33, 39, -45) for x in (8, -8)]
"""Where a name may stand beside its point, in points; the first that is free is taken."""


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
    axis.set(xlabel=labels.get(x, x), ylabel=labels.get(y, y))
    axis.margins(x=0.16, y=0.10)
    if log_x:
        axis.set_xscale("log")
    shown = [name for name in KIND_COLOURS if name in set(table[kind])]
    handles = [axis.plot([], [], "o", color=KIND_COLOURS[name], label=name)[0] for name in shown]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    if title:
        axis.set_title(title, loc="left")
    points = table.dropna(subset=[x, y])[[x, y, label]]
    _name_points(figure, axis, list(points.itertuples(index=False, name=None)))
    return figure


def _name_points(figure: Figure, axis: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Writes each name beside its point, where it covers no other name and no point."""
    figure.draw_without_rendering()
    side = 5 * figure.dpi / 72
    spots = [axis.transData.transform(point[:2]) for point in points]
    taken = [Bbox.from_bounds(u - side, v - side, 2 * side, 2 * side) for u, v in spots]
    for place_x, place_y, name in points:
        text = axis.annotate(
            str(name), (place_x, place_y), _PLACES[0], textcoords="offset points", fontsize=9
        )
        boxes = []
        for place in _PLACES:
            text.set(position=place, horizontalalignment="left" if place[0] > 0 else "right")
            boxes.append(text.get_window_extent())
            if not any(boxes[-1].overlaps(other) for other in taken) and _inside(boxes[-1], axis):
                break
        else:
            text.set(position=_PLACES[0], horizontalalignment="left")
            boxes.append(boxes[0])
        taken.append(boxes[-1])


def _inside(box: Bbox, axis: Axes) -> bool:
    return bool(box.x0 > axis.bbox.x0 and box.x1 < axis.bbox.x1 and box.y0 > axis.bbox.y0)


def show_method_curves(
    table: pd.DataFrame,
    *,
    x: str,
    measures: Mapping[str, str],
    label: str = "method",
    x_label: str | None = None,
    title: str | None = None,
) -> Figure:
    """A figure with a panel for each measure and a curve for each method, named at its end.

    Args:
        table: with the columns `x`, `label` and each measure, in the order in which curves are joined.
        x: the column on the horizontal axes.
        measures: what stands above a panel, by column.
        label: the column with the names; one curve for each, at most as many as the palette has colours.
        x_label: of the horizontal axes.
        title: of the figure.

    Raises:
        ValueError: there are more methods than colours.
    """
    names = list(dict.fromkeys(table[label]))
    if len(names) > len(PALETTE):
        raise ValueError(f"show_method_curves: {len(names)} methods, colours for {len(PALETTE)}; choose some")
    figure, axes = new_figure(1, len(measures), width=4.6 * len(measures), height=3.8)
    for axis, (column, heading) in zip(axes[0], measures.items(), strict=True):
        for colour, name in zip(PALETTE, names, strict=False):
            part = table[table[label] == name]
            axis.plot(part[x], part[column], "o-", color=colour, linewidth=2, markersize=4)
        axis.set(xlabel=x if x_label is None else x_label)
        axis.set_title(heading, loc="left")
        ends = {name: table[table[label] == name].iloc[-1] for name in names}
        _name_ends(axis, {name: (row[x], row[column]) for name, row in ends.items()})
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _name_ends(axis: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Names at the right of the axes, at the height of each curve's end and apart from each other."""
    low, high = axis.get_ylim()
    apart = 0.062 * (high - low)
    order = sorted(ends, key=lambda name: ends[name][1])
    heights = np.array([ends[name][1] for name in order], dtype=float)
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + apart)
    heights -= max(0.0, heights[-1] - high)
    colours = dict(zip(ends, PALETTE, strict=False))
    for name, height in zip(order, heights, strict=True):
        place = (1.02, (height - low) / (high - low))
        axis.annotate(
            name, place, xycoords="axes fraction", color=colours[name], fontsize=9, va="center", clip_on=False
        )


def show_verdicts(
    judged: pd.DataFrame, *, row: str = "method", column: str = "measure", title: str | None = None
) -> Figure:
    """A figure of a table of comparisons: each gain in its cell, coloured by its verdict.

    Args:
        judged: one row for each `row` and `column`, with `value` (positive for better) and `verdict`, as
            `evaluation.compare_methods` gives them; a cell without a row stays empty.
        row, column: the columns that name a cell.
        title: of the figure.
    """
    rows, columns = (list(dict.fromkeys(judged[name])) for name in (row, column))
    figure, axes = new_figure(width=1.25 * len(columns) + 3.4, height=0.36 * len(rows) + 1.7)
    axis = axes[0, 0]
    for cell in judged.to_dict("records"):
        x, y = columns.index(cell[column]), rows.index(cell[row])
        colour = VERDICT_COLOURS[cell["verdict"]]
        axis.fill_between([x, x + 1], y, y + 1, color=colour, edgecolor="white", linewidth=1.5)
        axis.text(x + 0.5, y + 0.5, f"{cell['value']:+.3g}", ha="center", va="center", fontsize=9)
    axis.set_xticks(
        np.arange(len(columns)) + 0.5, [name.replace(", ", ",\n") for name in columns], fontsize=9
    )
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
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def show_forest(
    judged: pd.DataFrame,
    *,
    row: str = "variant",
    panel: str = "question",
    columns: int = 3,
    title: str | None = None,
) -> Figure:
    """A figure of gains with their intervals: a panel for each measure, a line for each comparison.

    Args:
        judged: one row for each `row` and `panel`, with `value` (positive for better), `low`, `high` and
            `verdict`, as `evaluation.compare_gains` gives them; a row without an interval is left out.
        row: the column that names a line; all panels have the same lines.
        panel: the column that names a panel, with its unit.
        columns: of panels.
        title: of the figure.
    """
    names, panels = (list(dict.fromkeys(judged[name])) for name in (row, panel))
    down = max(1, -(-len(panels) // columns))
    height = down * (1.1 + 0.24 * max(2, len(names)))
    figure, axes = new_figure(down, columns, width=4.2 * columns, height=height, sharey=True)
    colours = {**VERDICT_COLOURS, "undecided": "#8A8A8A"}
    for axis, name in zip(axes.flat, panels, strict=False):
        part = judged[judged[panel] == name].dropna(subset=["low", "high"])
        for one in part.to_dict("records"):
            place, colour = names.index(one[row]), colours[one["verdict"]]
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
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def _cross(axis, row: dict, x: str, y: str, colour: str) -> None:
    """The intervals of a point."""
    if f"{x}_low" in row:
        axis.hlines(row[y], row[f"{x}_low"], row[f"{x}_high"], color=colour, linewidth=1.5, alpha=0.5)
    if f"{y}_low" in row:
        axis.vlines(row[x], row[f"{y}_low"], row[f"{y}_high"], color=colour, linewidth=1.5, alpha=0.5)
