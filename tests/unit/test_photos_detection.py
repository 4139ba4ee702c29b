"""Faces are found in the file beside a photograph, or by the optional detector."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from clcae_lib.images import to_uint8
from clcae_lib.photos import detection
from clcae_lib.photos.detection import FacesError, detect_faces, find_faces, has_detector
from clcae_lib.photos.landmarks import Landmarks, save_landmarks
from tests.unit.test_photos_alignment import FIVE, portrait


@pytest.fixture
def pretended(monkeypatch):
    """A detector in place of the extra's, which finds the rows of a test: points and a score."""
    seen, rows = [], []

    class Detector:
        def run(self, pixels, times, sure):
            assert pixels.dtype == np.uint8
            seen.append(pixels.shape)
            found = [row for row in rows if row[1] >= sure]
            return [points for points, _ in found], [score for _, score in found], None

    def mark(pixels, points):
        parts = [SimpleNamespace(x=float(x) - 0.5, y=float(y) - 0.5) for x, y in points]
        return SimpleNamespace(parts=lambda: parts)

    monkeypatch.setattr(detection, "_detector", lambda: (Detector(), mark))
    monkeypatch.setattr(detection, "has_detector", lambda: True)
    return rows, seen


def row(points, score=1.2):
    return np.asarray(points, dtype=float), score


def test_the_file_beside_the_photograph_comes_first(tmp_path, pretended):
    photo, image = tmp_path / "a.jpg", Image.new("RGB", (120, 110))
    save_landmarks(photo, [Landmarks(FIVE)], size=image.size)
    assert torch.allclose(find_faces(photo, image)[0].points, FIVE)
    assert not pretended[1], "the detector was not called"


def test_several_faces_come_by_size_and_uncertain_ones_do_not(pretended):
    rows, _ = pretended
    rows += [row(FIVE / 3), row(FIVE), row(FIVE / 2, score=0.1)]
    faces = detect_faces(Image.new("RGB", (120, 110)))
    assert [round(face.size, 1) for face in faces] == sorted([round(f.size, 1) for f in faces], reverse=True)
    assert len(faces) == 2
    assert torch.allclose(faces[0].points, FIVE)


def test_a_large_image_is_shrunk_for_the_detector_and_points_come_back(pretended):
    rows, seen = pretended
    rows.append(row(FIVE))
    found = detect_faces(Image.new("RGB", (3200, 1600)))
    assert seen == [(800, 1600, 3)]
    assert torch.allclose(found[0].points, 2 * FIVE)


def test_no_face_says_what_to_do(tmp_path, pretended):
    with pytest.raises(FacesError, match=r"b\.jpg: no face was found.*b\.landmarks\.json.*--already-aligned"):
        find_faces(tmp_path / "b.jpg", Image.new("RGB", (64, 64)))


def test_no_detector_says_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(detection, "has_detector", lambda: False)
    detection._detector.cache_clear()
    with pytest.raises(FacesError, match=r"clcae\[faces\].*c\.landmarks\.json"):
        find_faces(tmp_path / "c.jpg", Image.new("RGB", (64, 64)))
    with pytest.raises(FacesError, match=r"clcae\[faces\]"):
        detect_faces(Image.new("RGB", (64, 64)))


# Why: the detector is an optional extra of 140 MB, which the pinned environment does not install.
@pytest.mark.skipif(
    not has_detector(), reason="the optional extra `faces` (dlib and its landmarks) is not installed"
)
def test_the_real_detector_finds_a_drawn_face_where_it_is():
    image, landmarks = portrait(512)
    image = Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy())
    faces = detect_faces(image)
    assert len(faces) == 1
    assert (faces[0].five - landmarks.five)[:2].norm(dim=1).max() < 0.05 * 512
    assert detect_faces(Image.new("RGB", (200, 200))) == []
