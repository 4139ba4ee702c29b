"""Cut a face out of a photograph as FFHQ was cut, with a map back to the photograph.

The crop is the rotated square of FFHQ's own preparation (arXiv 1812.04948, appendix A). Its axis follows the
eyes and is perpendicular to the line from eyes to mouth. Its side is the longer of four times the distance
of the eyes and 3.6 times the distance from eyes to mouth, so that profiles fit too. Its centre is a tenth of
the way from the eyes to the mouth. Outside of the photograph its reflection is shown, increasingly blurred.
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
class Crop:
    """The place of a square crop in a photograph.

    Attributes:
        size: width and height of the photograph.
        side: side of the crop in pixels.
        to_photo: float64 map from the crop's pixels (x, y, 1) to the photograph's (x, y): a rotation, one
            scale and a shift.
    """

    size: tuple[int, int]
    side: int
    to_photo: Float[Tensor, "2 3"]

    @property
    def to_crop(self) -> Float[Tensor, "2 3"]:
        """Map from the photograph's pixels to the crop's."""
        return inverse(self.to_photo)

    @property
    def scale(self) -> float:
        """Pixels of the photograph per pixel of the crop."""
        return float(self.to_photo[:, 0].norm())

    @property
    def quad(self) -> Float[Tensor, "4 2"]:
        """The crop's corners in the photograph: top left, bottom left, bottom right, top right."""
        s = float(self.side)
        return self.points_to_photo(torch.tensor([[0.0, 0.0], [0.0, s], [s, s], [s, 0.0]]))

    def points_to_photo(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Return the coordinates in the photograph of points of the crop."""
        return apply_affine(self.to_photo, points)

    def points_to_crop(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
        """Return the coordinates in the crop of points of the photograph."""
        return apply_affine(self.to_crop, points)

    def resized(self, side: int) -> "Crop":
        """Return the same square with another number of pixels."""
        matrix = self.to_photo.clone()
        matrix[:, :2] *= self.side / side
        return Crop(self.size, side, matrix)

    def cut(self, photograph: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 side side"]:
        """Return the square of a photograph of the right size, both in [-1, 1]."""
        self.check_size(photograph)
        seen = warp(photograph, self.to_photo, (self.side, self.side)).clamp(-1, 1)
        outside = self._outside()
        if not outside.any():
            return seen
        soft = blurred(seen, max(0.5, 0.02 * self.side))
        seen = torch.lerp(seen, soft, (outside / 0.03).clamp(max=1)[None])
        middle = photograph.flatten(1).median(dim=1).values[:, None, None]
        return torch.lerp(seen, middle.expand_as(seen), ((outside - 0.1) / 0.4).clamp(0, 1)[None])

    def check_size(self, photograph: Tensor) -> None:
        """Raise a ValueError unless a photograph has the size that the crop was made for."""
        height, width = photograph.shape[-2:]
        if (width, height) != tuple(self.size):
            expected = f"{self.size[0]} x {self.size[1]}"
            raise ValueError(
                f"photograph: the crop was made for {expected} pixels, this photograph has {width} x {height}"
            )

    def _outside(self) -> Float[Tensor, "side side"]:
        """Return the distance of each pixel to the photograph, in sides of the crop."""
        at = torch.arange(self.side, dtype=torch.float64) + 0.5
        grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(-1, 2)
        places = self.points_to_photo(grid)
        far = torch.maximum(-places, places - torch.tensor(self.size, dtype=torch.float64)).clamp(min=0)
        return (far.norm(dim=1) / (self.scale * self.side)).view(self.side, self.side).float()


def align(landmarks: Landmarks, size: tuple[int, int], *, side: int, widen: float = 1.0) -> Crop:
    """Return the FFHQ square of a face.

    Args:
        landmarks: five or 68 points; left and right may be those of the image or of the person.
        size: width and height of the photograph.
        side: side of the crop in pixels.
        widen: factor of the square's side; more than 1 shows more around the face.

    Raises:
        LandmarksError: the points are less than a pixel apart, or outside the photograph.
    """
    eyes, across, down = landmarks.vectors
    if landmarks.size < 1.0:
        raise LandmarksError(
            "landmarks: eyes and mouth are less than a pixel apart; mark them again, or a larger face"
        )
    sideways = torch.stack([down[1], -down[0]])  # a quarter turn: along the eyes of an upright face
    if across @ sideways < 0:
        across = -across
    axis = across + sideways
    half = widen * max(_PER_EYES * float(across.norm()), _PER_MOUTH * float(down.norm())) / 2
    centre = eyes + _DOWN * down
    if not (0 <= centre[0] <= size[0] and 0 <= centre[1] <= size[1]):
        raise LandmarksError(
            f"landmarks: the face is outside the image of {size[0]} x {size[1]} pixels; mark it again"
        )
    return from_square(centre, axis / axis.norm() * half, size, side=side)


def from_square(
    centre: Float[Tensor, "2"], axis: Float[Tensor, "2"], size: tuple[int, int], *, side: int
) -> Crop:
    """Return the crop around a centre; the vector `axis` is half a side, from the centre to its right."""
    below = torch.stack([-axis[1], axis[0]])
    linear = torch.stack([axis, below], dim=1) * 2 / side
    return Crop(tuple(size), side, torch.cat([linear, (centre - axis - below)[:, None]], dim=1).double())


def centred(size: tuple[int, int], *, side: int, aspect: float = 1.0) -> Crop:
    """Return the square around the largest centred rectangle, for images that are already cut and for cars.

    The rectangle's width is `aspect` times its height; above 1 the square may exceed the image.
    """
    half = min(size[0], size[1] * aspect) / 2
    centre = torch.tensor(size, dtype=torch.float64) / 2
    return from_square(centre, torch.tensor([half, 0.0], dtype=torch.float64), size, side=side)


def to_tensor(image: Image.Image) -> Float[Tensor, "3 h w"]:
    """Return a PIL image as float32 RGB in [-1, 1]."""
    return from_array(np.array(image.convert("RGB")))
