"""Portraits that look like photographs: larger, rotated, off centre, saved as JPEG.

They replace a reader's own photographs if there are none. Each has a landmarks file from the renderer, so
that the whole way from a folder to an edited photograph can be run.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clcae_lib.files import atomic_path
from clcae_lib.images import to_array
from clcae_lib.photos import Landmarks, save_landmarks
from clcae_lib.photos.warp import apply_affine, inverse, warp
from clcae_lib.worlds.portraits.factors import INDEX, SPLITS, sample_factors
from clcae_lib.worlds.portraits.renderer import render

_SIDE = 256  # side of the render that is photographed
_MOST_YAW = 12.0  # degrees: FFHQ's square depends on the eyes, so it is off centre for a turned head


def write_photographs(
    folder: Path | str,
    count: int,
    *,
    size: tuple[int, int] = (480, 360),
    seed: int = 0,
    degrees: float = 15.0,
) -> list[Path]:
    """Write photographs of people of the split `test`, each with its landmarks, and return their paths.

    Args:
        size: width and height in pixels.
        seed: seed of the people and of their positions.
        degrees: largest rotation of a photograph.
    """
    source = torch.Generator().manual_seed(seed)
    written = []
    for number, person in enumerate(photographed_people(count, seed)):
        drawn = render(person[None], resolution=_SIDE)
        matrix = _placed(size, degrees, source)
        photo = warp(drawn.image[0], matrix, (size[1], size[0]), beyond="border")
        photo = _photographed(photo, source)
        path = Path(folder) / f"portrait_{number:02}.jpg"
        with atomic_path(path) as partial:
            Image.fromarray(to_array(photo)).save(partial, format="JPEG", quality=92)
        points = apply_affine(inverse(matrix), drawn.landmarks[0][:5])
        save_landmarks(path, [Landmarks(points)], size=size)
        written.append(path)
    return written


def photographed_people(count: int, seed: int) -> Sequence[Tensor]:
    """Return the factors of the people of `write_photographs`: heads turned by a few degrees at most."""
    indices, found, yaw = SPLITS["test"], [], INDEX["yaw"]
    start = indices.start + 997 * seed % (len(indices) // 2)
    for at in range(start, indices.stop, 64):
        factors = sample_factors(range(at, min(at + 64, indices.stop)))
        found += list(factors[factors[:, yaw].abs() < _MOST_YAW])
        if len(found) >= count:
            break
    return found[:count]


def _placed(size: tuple[int, int], degrees: float, source: torch.Generator) -> Tensor:
    """Return a map from the photograph's pixels to the render's: rotated, scaled, near the centre."""
    turn, right, down, large = (2 * torch.rand(4, generator=source, dtype=torch.float64) - 1).tolist()
    angle, scale = math.radians(degrees) * turn, _SIDE / (min(size) * (0.72 + 0.1 * large))
    linear = scale * torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    middle = torch.tensor([size[0] * (0.5 + 0.14 * right), size[1] * (0.52 + 0.05 * down)])
    shift = _SIDE / 2 - linear @ middle
    return torch.cat([linear, shift[:, None]], dim=1).double()


def _photographed(photo: Tensor, source: torch.Generator) -> Tensor:
    """Add grain, and darken the corners slightly as a lens does."""
    height, width = photo.shape[-2:]
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    light = 1 - 0.1 * (x * x + y * y)
    grain = 0.012 * torch.randn(photo.shape, generator=source)
    return ((photo + 1) * light - 1 + grain).clamp(-1, 1)
