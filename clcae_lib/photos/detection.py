"""Find the faces of a photograph: in the file beside it, or with the optional extra `faces`.

The extra is the package mtcnn (MIT; arXiv 1604.02878) on TensorFlow. It was chosen because its wheel contains
its weights, it finds five landmarks, and it runs with current numpy on the supported Pythons. Of the others,
mediapipe, OpenCV's YuNet and insightface fetch their weights separately, facenet-pytorch needs a torch of
2024, and dlib has to be compiled.
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

#: The detector scans every size of face, so that an image is shrunk to this longer side first.
DETECTION_SIDE = 1600
_SMALLEST = 24  # pixels of a face in the shrunk image
_SURE = 0.9


class FacesError(PhotoError):
    """No face is known in an image; the message says how to give one."""


def has_detector() -> bool:
    """Return whether the optional extra `faces` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("mtcnn", "tensorflow"))


def detect_faces(image: Image.Image, *, sure: float = _SURE) -> list[Landmarks]:
    """Return the faces of an image, the largest first, each with five landmarks; the list may be empty.

    Faces turned half away are found with less confidence than frontal ones, faces upside down are not found.

    Args:
        image: RGB, upright.
        sure: least score, 0 to 1.

    Raises:
        FacesError: the detector is not installed.
    """
    detector = _detector()
    shrink = min(1.0, DETECTION_SIDE / max(image.size))
    size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
    small = image.resize(size, Image.Resampling.LANCZOS) if shrink < 1 else image
    pixels = np.asarray(small.convert("RGB"))
    rows = detector.detect_faces(pixels, output_type="numpy", min_face_size=_SMALLEST)
    scale = torch.tensor([image.width / size[0], image.height / size[1]], dtype=torch.float64)
    return by_size([_face(row, scale) for row in np.asarray(rows) if row[5] >= sure])


def find_faces(photograph: Path | str, image: Image.Image) -> list[Landmarks]:
    """Return the faces of a photograph, the largest first: those of the file beside it, else detected ones.

    Args:
        photograph: path of the photograph.
        image: result of `read_image` for it.

    Raises:
        FacesError: there is no file, and no detector, or it finds nothing.
        LandmarksError: the file is damaged.
    """
    faces = load_landmarks(photograph, size=image.size)
    if not faces and has_detector():
        faces = detect_faces(image)
    if not faces:
        looked = (
            "no face was found" if has_detector() else "no landmarks file, and no face detector installed"
        )
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
            f"or write landmarks into a {SUFFIX} file beside each image"
        )
    level = "TF_CPP_MIN_LOG_LEVEL"  # read when TensorFlow is imported
    given = os.environ.get(level)
    os.environ[level] = given or "3"
    try:
        return importlib.import_module("mtcnn").MTCNN(device="CPU:0")
    finally:
        if given is None:
            del os.environ[level]


def _face(row: np.ndarray, scale: torch.Tensor) -> Landmarks:
    """Convert one of the detector's rows: image, box (4), score, five x, five y."""
    points = torch.stack([torch.from_numpy(row[6:11]), torch.from_numpy(row[11:16])], dim=1).double()
    return Landmarks(points * scale, float(row[5]))
