"""Where the faces of a photograph are: from the file beside it, or from the optional extra `faces`.

The extra is the package mtcnn (MIT; arXiv 1604.02878) on TensorFlow. It was chosen because its weights come
inside its wheel, it finds five landmarks, and it runs with today's numpy on the Pythons that this project
supports. Of the others, mediapipe, OpenCV's YuNet and insightface fetch their weights separately,
facenet-pytorch asks for a torch of 2024, and dlib has to be compiled.
"""

import importlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from clcae_lib.photos.landmarks import SUFFIX, Landmarks, by_size, load_landmarks
from clcae_lib.photos.reading import PhotoError, shown

#: The longer side that a picture is shrunk to before the detector looks at it: it scans every size of face.
DETECTION_SIDE = 1600
_SMALLEST = 24  # pixels of a face in the shrunk picture
_SURE = 0.9


class FacesError(PhotoError):
    """No face is known in a picture; the message says how to give one."""


def has_detector() -> bool:
    """Whether the optional extra `faces` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("mtcnn", "tensorflow"))


def detect_faces(picture: Image.Image, *, sure: float = _SURE) -> list[Landmarks]:
    """The faces of a picture, the largest first, each with five landmarks; an empty list where there is none.

    Faces turned half away are found with less certainty than frontal ones, faces upside down not at all.

    Args:
        picture: RGB, upright.
        sure: the least score, 0 to 1.

    Raises:
        FacesError: the detector is not installed.
    """
    detector = _detector()
    shrink = min(1.0, DETECTION_SIDE / max(picture.size))
    size = tuple(max(1, round(side * shrink)) for side in picture.size)
    small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS) if shrink < 1 else picture
    pixels = np.asarray(small.convert("RGB"))
    rows = detector.detect_faces(pixels, output_type="numpy", min_face_size=_SMALLEST)
    scale = torch.tensor([picture.size[0] / size[0], picture.size[1] / size[1]], dtype=torch.float64)
    return by_size([_face(row, scale) for row in np.asarray(rows) if row[5] >= sure])


def find_faces(photograph: Path | str, picture: Image.Image, *, detect: bool = True) -> list[Landmarks]:
    """The faces of a photograph, the largest first: those of the file beside it, else those detected.

    Args:
        photograph: its path.
        picture: what `read_image` made of it.
        detect: whether to ask the detector where there is no file.

    Raises:
        FacesError: there is no file, and no detector, or it finds nothing.
        LandmarksError: the file is damaged.
    """
    faces = load_landmarks(photograph, size=picture.size)
    if faces:
        return faces
    if detect and has_detector():
        faces = detect_faces(picture)
    if not faces:
        looked = "no face was found" if detect and has_detector() else "nobody said where the face is"
        raise FacesError(f"{shown(photograph)}: {looked}; {_remedy(Path(photograph))}")
    return faces


def _remedy(photograph: Path) -> str:
    install = "" if has_detector() else "install the detector (pip install 'clcae[faces]'), "
    return (
        f"{install}write the landmarks into {shown(photograph.stem + SUFFIX)} beside it, or, if the "
        "photographs are cut already, make a world of them: `clcae world add NAME --images DIR "
        "--already-aligned`"
    )


@cache
def _detector() -> Any:
    if not has_detector():
        raise FacesError(
            "there is no face detector; install it with pip install 'clcae[faces]', "
            f"or write landmarks into a {SUFFIX} file beside each picture"
        )
    level = "TF_CPP_MIN_LOG_LEVEL"  # read when TensorFlow is imported
    asked = os.environ.get(level)
    os.environ[level] = asked or "3"
    try:
        return importlib.import_module("mtcnn").MTCNN(device="CPU:0")
    finally:
        if asked is None:
            del os.environ[level]


def _face(row: np.ndarray, scale: torch.Tensor) -> Landmarks:
    """One of the detector's rows: picture, box (4), score, five x, five y."""
    points = torch.stack([torch.from_numpy(row[6:11]), torch.from_numpy(row[11:16])], dim=1).double()
    return Landmarks(points * scale, float(row[5]))
