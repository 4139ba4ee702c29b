"""Landmarks of faces, and the landmarks file in a photograph's folder.

Points are (x, y) in pixels of the upright photograph from its top left corner; (0.5, 0.5) is the centre of
the first pixel. Left and right are those of the image. Five points are: left eye, right eye, nose tip, left
and right corner of the mouth; 68 are in the order of the iBUG annotation.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, ValidationError
from torch import Tensor

from clcae_lib.files import write_text
from clcae_lib.photos.reading import PhotoError, shown
from clcae_lib.settings import explain

SUFFIX = ".landmarks.json"
COUNTS = (5, 68)
_SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif")
#: The indices of the eyes among 68 points; the corners of the mouth are 48 and 54.
_EYES = (slice(36, 42), slice(42, 48))
_CORNERS = (48, 54)


class LandmarksError(PhotoError):
    """Landmarks are missing or not those of a face; the message names the file and the remedy."""


@dataclass(frozen=True)
class Landmarks:
    """The landmarks of one face.

    Attributes:
        points: five or 68 points, float64, in pixels.

    Raises:
        LandmarksError: another number of points, or one that is not finite.
    """

    points: Float[Tensor, "n 2"]

    def __post_init__(self) -> None:
        points = torch.as_tensor(self.points, dtype=torch.float64)
        if points.shape not in [(count, 2) for count in COUNTS] or not torch.isfinite(points).all():
            raise LandmarksError(
                f"landmarks: five or 68 finite points (x, y) are needed, not {tuple(points.shape)}"
            )
        object.__setattr__(self, "points", points)

    @property
    def five(self) -> Float[Tensor, "5 2"]:
        """Left eye, right eye, nose tip, left and right corner of the mouth."""
        if len(self.points) == 5:
            return self.points
        eyes = [self.points[part].mean(dim=0) for part in _EYES]
        return torch.stack([*eyes, self.points[30], *(self.points[corner] for corner in _CORNERS)])

    @property
    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The middle of the eyes, the vector from eye to eye, and that from eyes to mouth."""
        left, right, _, *corners = self.five
        eyes = (left + right) / 2
        return eyes, right - left, torch.stack(corners).mean(dim=0) - eyes

    @property
    def size(self) -> float:
        """The larger of the distances from eye to eye and from eyes to mouth, in pixels."""
        return float(max(vector.norm() for vector in self.vectors[1:]))


def _check_count(face: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(face) not in COUNTS:
        raise ValueError(f"a face has {len(face)} points; give five or 68")
    return face


_Pixels = Annotated[int, Field(ge=1)]
_Face = Annotated[list[tuple[FiniteFloat, FiniteFloat]], AfterValidator(_check_count)]


class _File(BaseModel, extra="forbid"):
    """The width and height of a photograph, and the points of each face."""

    size: tuple[_Pixels, _Pixels] | None = None
    faces: list[_Face] = Field(min_length=1, max_length=1000)  # more would take seconds to check and sort


def landmarks_files(photograph: Path | str) -> tuple[Path, Path]:
    """Return the two paths that a photograph's landmarks file may have; neither need exist.

    `anna.jpg.landmarks.json` belongs to `anna.jpg` only and is used first, then `anna.landmarks.json`.
    """
    photograph = Path(photograph)
    return photograph.with_name(photograph.name + SUFFIX), photograph.with_name(photograph.stem + SUFFIX)


def landmarks_path(photograph: Path | str) -> Path:
    """Return the landmarks file of a photograph; it need not exist.

    Raises:
        LandmarksError: its name fits several photographs.
    """
    full, short = landmarks_files(photograph)
    if full.is_file() or not short.is_file():
        return full if full.is_file() else short
    others = _of_the_same_stem(Path(photograph))
    if others:
        names = " and ".join(shown(path.name) for path in (Path(photograph), *others))
        raise LandmarksError(
            f"{shown(photograph)}: {shown(short.name)} may belong to {names}; name the file of each after "
            f"its full name, such as {shown(full.name)}"
        )
    return short


def _of_the_same_stem(photograph: Path) -> list[Path]:
    """Return the images in a photograph's folder whose names differ from its name only in the suffix."""
    names = {photograph.stem + end for suffix in _SUFFIXES for end in (suffix, suffix.upper())}
    others = [photograph.with_name(name) for name in sorted(names - {photograph.name})]
    return [path for path in others if path.is_file() and not path.samefile(photograph)]


def save_landmarks(photograph: Path | str, faces: Sequence[Landmarks], *, size: tuple[int, int]) -> Path:
    """Write the landmarks file of a photograph of this width and height, and return its path."""
    full, short = landmarks_files(photograph)
    path = full if full.is_file() or _of_the_same_stem(Path(photograph)) else short
    return write_text(path, landmarks_text(faces, size=size))


def landmarks_text(faces: Sequence[Landmarks], *, size: tuple[int, int]) -> str:
    """Return the content of the landmarks file of a photograph of this width and height."""
    rows = [[[round(float(x), 3), round(float(y), 3)] for x, y in face.points] for face in faces]
    return json.dumps({"size": list(size), "faces": rows}) + "\n"


def load_landmarks(photograph: Path | str, *, size: tuple[int, int] | None = None) -> list[Landmarks]:
    """Return the faces in the landmarks file of a photograph, the largest first; none without a file.

    If the size in the file is that of a smaller or larger copy, points are scaled to `size`, width and height
    of the upright image.

    Raises:
        LandmarksError: the file is damaged, belongs to an image of another shape, or its name fits several
            photographs.
    """
    path = landmarks_path(photograph)
    if not path.is_file():
        return []
    try:
        content = _File.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        reason = explain(error) if isinstance(error, ValidationError) else error
        raise LandmarksError(f"{path}: {reason}; see data/README.md for the format") from error
    scale = 1.0 if size is None or content.size is None else size[0] / content.size[0]
    if size is not None and content.size and abs(scale * content.size[1] - size[1]) > 2 * max(1, scale):
        raise LandmarksError(
            f"{path} is for an image of {content.size[0]} x {content.size[1]} pixels, "
            f"this one has {size[0]} x {size[1]}; mark the landmarks again"
        )
    return by_size([Landmarks(torch.tensor(face) * scale) for face in content.faces])


def choose_face(faces: Sequence[Landmarks], which: int | str, size: tuple[int, int]) -> Landmarks:
    """Return one of the faces of a photograph.

    Args:
        faces: one or more faces, the largest first.
        which: "largest", "middle" (the one nearest the middle), or a number: 1 is the leftmost face.
        size: width and height of the photograph.

    Raises:
        LandmarksError: there are fewer faces than the number.
    """
    middle = torch.tensor(size, dtype=torch.float64) / 2
    if which == "largest":
        return faces[0]
    if which == "middle":
        return min(faces, key=lambda face: float((face.vectors[0] - middle).norm()))
    if int(which) > len(faces):
        raise LandmarksError(
            f"landmarks: face {which} was requested, but {len(faces)} are known; name another, or write "
            f"those of every face into a {SUFFIX} file of the photograph (data/README.md)"
        )
    return sorted(faces, key=lambda face: float(face.vectors[0][0]))[int(which) - 1]


def by_size(faces: Sequence[Landmarks]) -> list[Landmarks]:
    """Return the faces, the largest first."""
    return sorted(faces, key=lambda face: -face.size)
