"""Where attention looks, drawn over the picture it looks at (arXiv 2211.11448, figure 3)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import interpolate

from clcae_lib.plots.grid import to_pixels
from clcae_lib.plots.pictures import _titled
from clcae_lib.plots.theme import bare, new_figure

HEAT = "inferno"


def overlay(
    image: Float[Tensor, "3 height width"],
    attention: Float[Tensor, "h w"],
    *,
    strength: float = 0.7,
    peak: float | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture in grey with the attention over it, dark violet to yellow, as bytes.

    Args:
        image: in [-1, 1].
        attention: weights on a coarser grid, zero or more; enlarged without smoothing, so that the grid
            shows.
        strength: how far the heat covers the picture where attention is highest, 0 to 1.
        peak: the weight drawn as the highest; the map's own greatest if None.

    Raises:
        ValueError: a weight is negative or not finite.
    """
    if not bool(torch.isfinite(attention).all()) or bool((attention < 0).any()):
        raise ValueError("overlay: attention weights must be finite and not negative")
    height, width = image.shape[1:]
    top = attention.max().item() if peak is None else peak
    share = (attention.detach().cpu().float() / max(top, 1e-12)).clamp(0, 1)
    heat = interpolate(share[None, None], (height, width), mode="nearest")[0, 0].numpy()
    grey = to_pixels(image[None])[0].mean(axis=2, keepdims=True).repeat(3, axis=2)
    colour = 255 * colormaps[HEAT](heat)[..., :3]
    cover = (strength * (0.25 + 0.75 * heat))[..., None]
    return np.rint((1 - cover) * grey + cover * colour).astype(np.uint8)


def show_attention(
    image: Float[Tensor, "3 height width"],
    maps: Float[Tensor, "m h w"],
    titles: Sequence[str],
    *,
    columns: int = 5,
    size: float = 1.5,
    shared_peak: bool = False,
    title: str | None = None,
) -> Figure:
    """A figure of the picture and, beside it, each attention map over it.

    Args:
        image: in [-1, 1].
        maps: one for each layer, or head.
        titles: one for each map.
        columns: pictures in a row, the plain one included.
        size: of a picture, in inches.
        shared_peak: draw all maps on one scale, instead of each on its own.
        title: of the whole.

    Raises:
        ValueError: there is not one title for each map.
    """
    if len(titles) != len(maps):
        raise ValueError(f"show_attention: {len(titles)} titles for {len(maps)} maps")
    peak = maps.max().item() if shared_peak else None
    pictures = [to_pixels(image[None])[0], *(overlay(image, m, peak=peak) for m in maps)]
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    height = rows * (size + 0.3) + (0.4 if title else 0.0)
    figure, axes = new_figure(rows, columns, width=columns * (size + 0.05), height=height)
    for axis in axes.flat:
        bare(axis)
    for axis, pixels, name in zip(axes.flat, pictures, ["picture", *titles], strict=False):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_title(name, fontsize=10, loc="center")
    return _titled(figure, title)
