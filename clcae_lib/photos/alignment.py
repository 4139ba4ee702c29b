"""Cutting a face out of a photograph as FFHQ was cut, and knowing the way back.

The crop is the oriented square of FFHQ's own preparation (arXiv 1812.04948, appendix A): its axis lies along
the eyes and across the line from eyes to mouth, its side is four times the distance of the eyes or 3.6 times
that from eyes to mouth, whichever is longer (so a profile, whose eyes lie together, is still framed), and
its middle a tenth of the way from the eyes to the mouth. What lies beyond the photograph is its reflection,
which loses its detail outward.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clcae_lib.images import from_array
from clcae_lib.photos.landmarks import Landmarks, LandmarksError
from clcae_lib.photos.warp import apply_affine, blurred, inverse, warp

_PER_EYES, _PER_MOUTH = 4.0, 3.6
_DOWN = 0.1


@dataclass(frozen=True)
class Alignment:
    """Where a square crop lies in a photograph.

    Attributes:
        size: width and height of the photograph.
        side: of the crop, in pixels.
        to_photo: float64, from the crop's pixels (x, y, 1) to the photograph's (x, y); a rotation, one scale
            and a shift.
    """

    size: tuple[int, int]
    side: int
    to_photo: Float[Tensor, "2 3"]

    @property
    def to_crop(self) -> Float[Tensor, "2 3"]:
        """From the photograph's pixels to the crop's."""
        return inverse(self.to_photo)

    @property
    def scale(self) -> float:
        """Pixels of the photograph along one pixel of the crop."""
        return float(self.to_photo[:, 0].norm())

    @property
    def quad(self) -> Float[Tensor, "4 2"]:
        """The crop's corners in the photograph: top left, bottom left, bottom right, top right."""
        s = float(self.side)
        return self.points_to_photo(torch.tensor([[0.0, 0.0], [0.0, s], [s, s], [s, 0.0]]))

    def points_to_photo(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Points of the crop, in the photograph."""
        return apply_affine(self.to_photo, points)

    def points_to_crop(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Points of the photograph, in the crop."""
        return apply_affine(self.to_crop, points)

    def resized(self, side: int) -> "Alignment":
        """The same square with another number of pixels."""
        matrix = self.to_photo.clone()
        matrix[:, :2] *= self.side / side
        return Alignment(self.size, side, matrix)

    def crop(self, photograph: Float[Tensor, "3 height width"]) -> Float[Tensor, "3 side side"]:
        """The square out of the photograph, both in [-1, 1].

        Raises:
            ValueError: the photograph has another size.
        """
        check_size(self, photograph)
        seen = warp(photograph, self.to_photo, (self.side, self.side)).clamp(-1, 1)
        outside = self._outside()
        if not outside.any():
            return seen
        soft = blurred(seen, max(0.5, 0.02 * self.side))
        seen = torch.lerp(seen, soft, (outside / 0.03).clamp(max=1)[None])
        middle = photograph.flatten(1).median(dim=1).values[:, None, None]
        return torch.lerp(seen, middle.expand_as(seen), ((outside - 0.1) / 0.4).clamp(0, 1)[None])

    def _outside(self) -> Float[Tensor, "side side"]:
        """How far each pixel of the crop lies beyond the photograph, in sides of the crop."""
        at = torch.arange(self.side, dtype=torch.float64) + 0.5
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(-1, 2)
        places = self.points_to_photo(grid)
        far = torch.maximum(-places, places - torch.tensor(self.size, dtype=torch.float64)).clamp(min=0)
        return (far.norm(dim=1) / (self.scale * self.side)).view(self.side, self.side).float()


def align(landmarks: Landmarks, size: tuple[int, int], *, side: int, widen: float = 1.0) -> Alignment:
    """The FFHQ square of a face.

    Args:
        landmarks: five or 68 points; left and right may be those of the picture or of the person.
        size: width and height of the photograph.
        side: of the crop, in pixels.
        widen: more than 1 shows more around the face.

    Raises:
        LandmarksError: the points lie on one spot, or off the photograph.
    """
    eyes, across, down = _vectors(landmarks)
    if max(float(across.norm()), float(down.norm())) < 1.0:
        raise LandmarksError(
            "landmarks: eyes and mouth lie within a pixel; mark them again, or a larger face"
        )
    beside = torch.stack([down[1], -down[0]])  # a quarter turn: along the eyes of an upright face
    if across @ beside < 0:
        across = -across
    axis = across + beside
    half = widen * max(_PER_EYES * float(across.norm()), _PER_MOUTH * float(down.norm())) / 2
    axis = axis / axis.norm() * half
    centre = eyes + _DOWN * down
    if not (0 <= centre[0] <= size[0] and 0 <= centre[1] <= size[1]):
        raise LandmarksError(f"landmarks: the face lies off the picture of {size[0]} x {size[1]} pixels")
    return from_square(centre, axis, size, side=side)


def from_square(
    centre: Float[Tensor, "2"], axis: Float[Tensor, "2"], size: tuple[int, int], *, side: int
) -> Alignment:
    """The crop around a centre whose half side, from there to its right, is the vector `axis`."""
    below = torch.stack([-axis[1], axis[0]])
    linear = torch.stack([axis, below], dim=1) * 2 / side
    return Alignment(tuple(size), side, torch.cat([linear, (centre - axis - below)[:, None]], dim=1).double())


def centred(size: tuple[int, int], *, side: int) -> Alignment:
    """The largest square in the middle: for pictures that are cut already, and for what has no face."""
    centre = torch.tensor(size, dtype=torch.float64) / 2
    axis = torch.tensor([min(size) / 2, 0.0], dtype=torch.float64)
    return from_square(centre, axis, size, side=side)


def to_tensor(picture: Image.Image) -> Float[Tensor, "3 height width"]:
    """An RGB picture as float32 in [-1, 1]."""
    return from_array(np.array(picture.convert("RGB")))


def check_size(alignment: Alignment, photograph: Tensor) -> None:
    """Raise a ValueError unless the photograph has the size that the alignment was made for."""
    height, width = photograph.shape[-2:]
    if (width, height) != tuple(alignment.size):
        expected = f"{alignment.size[0]} x {alignment.size[1]}"
        raise ValueError(f"photograph: the alignment is of one of {expected} pixels, got {width} x {height}")


def _vectors(landmarks: Landmarks) -> tuple[Tensor, Tensor, Tensor]:
    """Middle of the eyes, from eye to eye, from there to the middle of the mouth."""
    left, right, _, *corners = landmarks.five
    eyes = (left + right) / 2
    return eyes, right - left, torch.stack(corners).mean(dim=0) - eyes
