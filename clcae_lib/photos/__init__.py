"""Photographs: read or refused by name, aligned as FFHQ was, and pasted back (no section of the paper)."""

from clcae_lib.images import save_image
from clcae_lib.photos.alignment import Alignment, align, centred, to_tensor
from clcae_lib.photos.detection import FacesError, detect_faces, find_faces
from clcae_lib.photos.folder import Refusal, none_usable, read_folder
from clcae_lib.photos.landmarks import Landmarks, LandmarksError, load_landmarks, save_landmarks
from clcae_lib.photos.pasting import paste, paste_mask
from clcae_lib.photos.reading import PhotoError, check_image, decode_image, read_image

__all__ = [
    "Alignment",
    "FacesError",
    "Landmarks",
    "LandmarksError",
    "PhotoError",
    "Refusal",
    "align",
    "centred",
    "check_image",
    "decode_image",
    "detect_faces",
    "find_faces",
    "load_landmarks",
    "none_usable",
    "paste",
    "paste_mask",
    "read_folder",
    "read_image",
    "save_image",
    "save_landmarks",
    "to_tensor",
]
