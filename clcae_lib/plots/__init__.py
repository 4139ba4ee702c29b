"""Figures in one look: grids of pictures, traversals, attention, effects of edits, methods compared."""

from clcae_lib.plots.attention import overlay, show_attention
from clcae_lib.plots.charts import heatmap, show_curves, show_intervals
from clcae_lib.plots.comparison import (
    KIND_COLOURS,
    show_forest,
    show_method_curves,
    show_methods,
    show_verdicts,
)
from clcae_lib.plots.grid import enlarge, image_grid, stack_rows, to_pixels
from clcae_lib.plots.pictures import show_grid, show_images, show_traversal
from clcae_lib.plots.theme import (
    ORIGIN_COLOURS,
    PALETTE,
    SPACE_COLOURS,
    new_figure,
    save_figure,
    theme,
)
from clcae_lib.spaces import SPACE_LABELS

__all__ = [
    "KIND_COLOURS",
    "ORIGIN_COLOURS",
    "PALETTE",
    "SPACE_COLOURS",
    "SPACE_LABELS",
    "enlarge",
    "heatmap",
    "image_grid",
    "new_figure",
    "overlay",
    "save_figure",
    "show_attention",
    "show_curves",
    "show_forest",
    "show_grid",
    "show_images",
    "show_intervals",
    "show_method_curves",
    "show_methods",
    "show_traversal",
    "show_verdicts",
    "stack_rows",
    "theme",
    "to_pixels",
]
