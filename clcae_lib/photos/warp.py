"""Resample an image under an affine map without aliasing (no section of the paper).

Coordinates are continuous: the top left corner of an image is (0, 0), its first pixel's centre (0.5, 0.5).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, grid_sample, pad

_BUDGET = 4_000_000  # samples in memory at a time
_MOST = 16  # samples per pixel and axis; if more are needed, the image is averaged first


def warp(
    image: Float[Tensor, "c h w"],
    matrix: Float[Tensor, "2 3"],
    size: tuple[int, int],
    *,
    beyond: str = "reflection",
    cubic: bool = True,
) -> Float[Tensor, "c rows columns"]:
    """Return an image under an affine map; each pixel is the mean of the samples in it.

    Args:
        image: image of any channels, float32.
        matrix: float64 map from pixels of the result (x, y, 1) to pixels of `image` (x, y).
        size: rows and columns of the result.
        beyond: values outside `image`: its "reflection", its "border", or "zeros".
        cubic: whether samples are bicubic, else bilinear, which never overshoot.
    """
    image, matrix = _shrunk(image, matrix.double())
    count = max(1, min(_MOST, math.ceil(float(torch.linalg.matrix_norm(matrix[:, :2], 2)) - 1e-6)))
    rows, columns = size
    strip = max(1, _BUDGET // (columns * count * count))
    parts = []
    for top in range(0, rows, strip):
        grid = _positions(matrix, range(top, min(rows, top + strip)), columns, count, image.shape[-2:])
        mode = "bicubic" if cubic else "bilinear"
        seen = grid_sample(image[None], grid[None], mode=mode, padding_mode=beyond, align_corners=False)
        parts.append(avg_pool2d(seen, count)[0] if count > 1 else seen[0])
    return torch.cat(parts, dim=1)


def apply_affine(matrix: Float[Tensor, "2 3"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Return points (x, y) under an affine map, float64."""
    return points.double() @ matrix[:, :2].T + matrix[:, 2]


def inverse(matrix: Float[Tensor, "2 3"]) -> Float[Tensor, "2 3"]:
    """Return the inverse of an affine map, float64."""
    linear = torch.linalg.inv(matrix[:, :2].double())
    return torch.cat([linear, -linear @ matrix[:, 2:].double()], dim=1)


def blurred(image: Float[Tensor, "c h w"], sigma: float) -> Float[Tensor, "c h w"]:
    """Return an image under a Gaussian of `sigma` pixels; its borders are repeated."""
    radius = max(1, math.ceil(3 * sigma))
    taps = torch.exp(-(torch.arange(-radius, radius + 1).to(image) ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).view(1, 1, 1, -1)
    planes = pad(image[:, None], (radius, radius, radius, radius), mode="replicate")
    return conv2d(conv2d(planes, taps), taps.transpose(2, 3))[:, 0]


def _shrunk(image: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return image and map, after averaging blocks of pixels if too many samples would be needed."""
    factor = int(float(torch.linalg.svdvals(matrix[:, :2]).min()) / 4)
    factor = min(factor, *image.shape[-2:])
    if factor < 2:
        return image, matrix
    extra = (0, -image.shape[-1] % factor, 0, -image.shape[-2] % factor)
    return avg_pool2d(pad(image[None], extra, mode="replicate"), factor)[0], matrix / factor


def _positions(matrix: Tensor, rows: range, columns: int, count: int, shape: torch.Size) -> Tensor:
    y = torch.arange(rows.start * count, rows.stop * count, dtype=torch.float64) / count + 0.5 / count
    x = torch.arange(columns * count, dtype=torch.float64) / count + 0.5 / count
    height, width = shape
    offset = y[:, None, None] * matrix[:, 1] + matrix[:, 2]
    source = x[None, :, None] * matrix[:, 0] + offset
    return (source * 2 / torch.tensor([width, height], dtype=torch.float64) - 1).float()
