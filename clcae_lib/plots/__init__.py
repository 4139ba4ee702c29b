"""Figures in a common style: grids of images, attention, effects of edits, comparisons of methods."""

from clcae_lib.plots.charts import heatmap, show_curves, show_intervals
from clcae_lib.plots.images import show_attention, show_grid, show_images
from clcae_lib.plots.methods import (
    VERDICT_LINES,
    show_forest,
    show_method_curves,
    show_methods,
    show_verdicts,
)
from clcae_lib.plots.theme import ORIGIN_COLOURS, PALETTE, SPACE_COLOURS, new_figure
from clcae_lib.spaces import SPACE_LABELS
