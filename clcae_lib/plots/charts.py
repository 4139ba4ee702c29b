"""Figures of numbers: what edits change, means with their intervals, and curves."""

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from clcae_lib.plots.theme import LEGEND_RIGHT, PALETTE, new_figure


def heatmap(
    table: pd.DataFrame,
    *,
    unit: str = "standard deviations",
    limit: float | None = None,
    title: str | None = None,
    cell: float = 0.48,
) -> Figure:
    """Return a heat map of a table, with each number that is not 0.0 in its cell; zero is white.

    If a number is negative, the colours distinguish the sign.

    Args:
        table: for example from `evaluation.effect_matrix`: edits in rows, measured factors in columns.
        unit: unit of the numbers, for the colour bar's label.
        limit: number drawn in full colour; the table's largest if None.
    """
    values = table.to_numpy(dtype=float)
    limit = float(abs(values).max()) if limit is None else limit
    rows, columns = values.shape
    figure, axes = new_figure(width=columns * cell + 3.0, height=rows * cell + 1.9)
    axis = axes[0, 0]
    colours = {"cmap": "vlag", "vmin": -limit} if (values < 0).any() else {"cmap": "Reds", "vmin": 0.0}
    texts = table.map(lambda value: f"{value:.1f}" if round(value, 1) else "")
    labels = {"annot": texts, "fmt": "", "annot_kws": {"fontsize": 9}}
    bar = {"label": unit, "shrink": 0.8}
    sns.heatmap(table, ax=axis, vmax=limit, square=True, linewidths=1, cbar_kws=bar, **colours, **labels)
    axis.set_xticks(axis.get_xticks(), table.columns, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(axis.get_yticks(), table.index, rotation=0)
    axis.set(xlabel="", ylabel="")
    axis.grid(visible=False)
    axis.set_title(title or "", loc="left")
    return figure


def show_intervals(
    table: pd.DataFrame,
    *,
    label: str,
    hue: str | None = None,
    colours: Mapping[str, str] | None = None,
    unit: str = "",
) -> Figure:
    """Return a figure of means as dots with their intervals as lines, one row per label.

    Args:
        table: columns `value`, `low` and `high`, for example from `evaluation.summarise`.
        label: column that names a row.
        hue: column whose values have different colours, side by side within a row.
        colours: a colour for each value of `hue`; those of the palette if None.
        unit: unit of the numbers, below the axis.
    """
    names = list(dict.fromkeys(table[label]))
    groups = list(dict.fromkeys(table[hue])) if hue else [None]
    colours = colours or dict(zip(groups, PALETTE, strict=False))
    figure, axes = new_figure(height=1.2 + 0.34 * len(names) * max(1.0, 0.6 * len(groups)))
    axis = axes[0, 0]
    for i, group in enumerate(groups):
        part = table if group is None else table[table[hue] == group]
        shift = 0.0 if len(groups) == 1 else 0.45 * (i / (len(groups) - 1) - 0.5)
        places = [names.index(name) + shift for name in part[label]]
        axis.hlines(places, part["low"], part["high"], color=colours[group], linewidth=2.5, alpha=0.6)
        axis.plot(part["value"], places, "o", color=colours[group], markersize=6, label=group)
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel=unit, ylim=(len(names) - 0.5, -0.5))
    axis.grid(visible=False, axis="y")
    if hue:
        axis.legend(title=hue, **LEGEND_RIGHT)
    return figure


def show_curves(
    table: pd.DataFrame,
    *,
    x: str,
    hue: str | None = None,
    y_label: str = "",
    title: str | None = None,
) -> Figure:
    """Return a figure of curves of `value` over `x`, with known intervals as bands.

    Args:
        table: columns `x`, `value` and, if known, `low` and `high`.
        hue: column that has one curve per value.
        y_label: label of the vertical axis, with its unit.
    """
    figure, axes = new_figure(width=6.5, height=4.0)
    axis = axes[0, 0]
    groups = table.groupby(hue, sort=False) if hue else [(None, table)]
    for i, (name, part) in enumerate(groups):
        part, colour = part.sort_values(x), PALETTE[i % len(PALETTE)]
        line = "o-" if i < len(PALETTE) else "o--"  # colours repeat, so the lines must differ
        axis.plot(part[x], part["value"], line, color=colour, linewidth=2, label=name)
        if {"low", "high"} <= set(part.columns):
            axis.fill_between(part[x], part["low"], part["high"], color=colour, alpha=0.18, linewidth=0)
    axis.set(xlabel=x, ylabel=y_label)
    if hue:
        axis.legend(title=hue, frameon=False)
    axis.set_title(title or "", loc="left")
    return figure
