"""Pictures side by side as one array of pixels, without any plotting library."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clcae_lib.images import to_array

WHITE = 255


def image_grid(
    images: Float[Tensor, "n 3 h w"],
    *,
    columns: int | None = None,
    padding: int = 2,
    scale: int = 1,
    background: int = WHITE,
) -> UInt8[np.ndarray, "height width 3"]:
    """Pictures in rows, filled from the top left, as bytes.

    Args:
        images: in [-1, 1]; what lies outside is clipped.
        columns: pictures in a row; about as many as rows if None.
        padding: pixels between pictures and around them, before scaling.
        scale: every pixel becomes a square of this side, so that small pictures stay crisp.
        background: of gaps and empty places, 0 to 255.

    Raises:
        ValueError: there is no picture, or an argument is out of range.
    """
    if len(images) == 0 or scale < 1 or padding < 0 or (columns is not None and columns < 1):
        raise ValueError(f"image_grid: {len(images)} images, columns={columns}, {padding=}, {scale=}")
    count, _, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    shape = (rows * (height + padding) + padding, columns * (width + padding) + padding, 3)
    grid = np.full(shape, background, dtype=np.uint8)
    for i, picture in enumerate(to_pixels(images)):
        y = padding + (i // columns) * (height + padding)
        x = padding + (i % columns) * (width + padding)
        grid[y : y + height, x : x + width] = picture
    return enlarge(grid, scale)


def stack_rows(rows: Sequence[Float[Tensor, "n 3 h w"]]) -> Float[Tensor, "m 3 h w"]:
    """Rows of equally many pictures as one batch, to be laid out with `columns=len(rows[0])`.

    Raises:
        ValueError: there is no row, or the rows differ in length or size.
    """
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) != 1:
        raise ValueError(f"rows of a grid must have one shape, got {sorted(shapes)}")
    return torch.cat([row.detach().cpu().float() for row in rows])


def to_pixels(images: Float[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Images of [-1, 1] as bytes with channels last, rounded."""
    return to_array(images)


def enlarge(pixels: UInt8[np.ndarray, "h w 3"], factor: int) -> UInt8[np.ndarray, "height width 3"]:
    """The picture with every pixel a square of side `factor`."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
