"""Find the faces of a photograph, from its landmarks file or with the optional extra `faces`.

The extra is dlib: its detector of frontal faces, which is part of the library, and the 68 landmarks (Kazemi
and Sullivan, CVPR 2014) of the package face-recognition-models. FFHQ was aligned by such landmarks (arXiv
1812.04948, appendix A). dlib was chosen because the package index has all of it, including weights, in 140
MB, and because it is maintained for the supported Python versions. MTCNN would need TensorFlow or an older
torch; OpenCV's YuNet and insightface download their weights from other servers.
"""

import importlib
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from clcae_lib.photos.landmarks import SUFFIX, Landmarks, by_size, load_landmarks
from clcae_lib.photos.reading import PhotoError, shown

#: An image is first reduced to this longer side. The smallest face that is then found has about 40 pixels.
DETECTION_SIDE = 1600
_SURE = 0.2  # minimum score above the detector's threshold; a clear frontal face has 1 or more
_MODELS = "face_recognition_models"
_LANDMARKS = "models/shape_predictor_68_face_landmarks.dat"


class FacesError(PhotoError):
    """No face was found in an image; the message says how to mark one."""


def has_detector() -> bool:
    """Return whether the optional extra `faces` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("dlib", _MODELS))


def detect_faces(image: Image.Image) -> list[Landmarks]:
    """Return the faces of an upright RGB image, the largest first, each with 68 landmarks.

    Faces that are turned far to the side or upside down are not found.

    Raises:
        FacesError: the detector is not installed.
    """
    find, mark = _detector()
    shrink = min(1.0, DETECTION_SIDE / max(image.size))
    size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
    small = image.resize(size, Image.Resampling.LANCZOS) if shrink < 1 else image
    pixels = np.asarray(small.convert("RGB"))
    boxes = find.run(pixels, 1, _SURE)[0]
    scale = torch.tensor([image.width / size[0], image.height / size[1]], dtype=torch.float64)
    faces = []
    for box in boxes:
        points = [(point.x + 0.5, point.y + 0.5) for point in mark(pixels, box).parts()]
        faces.append(Landmarks(torch.tensor(points, dtype=torch.float64) * scale))
    return by_size(faces)


def find_faces(photograph: Path | str, image: Image.Image) -> list[Landmarks]:
    """Return the faces of a photograph, the largest first: those of its landmarks file, else detected ones.

    Raises:
        FacesError: there is no file, and no detector or it finds no face.
        LandmarksError: the file is damaged.
    """
    faces = load_landmarks(photograph, size=image.size)
    if not faces and has_detector():
        faces = detect_faces(image)
    if faces:
        return faces
    fault = "no face was found; "
    if not has_detector():
        fault = "no landmarks file, and no face detector installed; install the detector "
        fault += "(pip install 'clcae[faces]' in this environment), "
    name = shown(Path(photograph).stem + SUFFIX)
    raise FacesError(
        f"{shown(photograph)}: {fault}write the landmarks into {name} in its folder (data/README.md; the "
        "explorer's Mark the face writes that file), or, if the photographs are cut already, make a world: "
        "`clcae world add NAME --images DIR --already-aligned`"
    )


@cache
def _detector() -> tuple[Any, Any]:
    if not has_detector():
        raise FacesError(
            "there is no face detector; install it with pip install 'clcae[faces]' in this environment, "
            f"or write a {SUFFIX} file with landmarks for each image"
        )
    dlib = importlib.import_module("dlib")
    # The package's module is not imported: it needs pkg_resources, which setuptools no longer has.
    folder = importlib.util.find_spec(_MODELS).submodule_search_locations[0]
    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(Path(folder) / _LANDMARKS))
