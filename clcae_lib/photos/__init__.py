"""Photographs: read or refused by name, aligned as FFHQ was, and pasted back (no section of the paper)."""

from clcae_lib.images import save_image
from clcae_lib.photos.crop import Crop, align, centred, to_tensor
from clcae_lib.photos.cutting import SHARES, CroppedPhotos, Cutter, face_crop, split_of
from clcae_lib.photos.detection import FacesError, detect_faces, find_faces
from clcae_lib.photos.folder import Refusal, has_header, list_files, none_usable, read_folder, sort_out
from clcae_lib.photos.landmarks import (
    Landmarks,
    LandmarksError,
    choose_face,
    landmarks_text,
    load_landmarks,
    save_landmarks,
)
from clcae_lib.photos.pasting import paste, paste_mask
from clcae_lib.photos.reading import Limits, PhotoError, check_image, decode_image, read_image

__all__ = [
    "SHARES",
    "Crop",
    "CroppedPhotos",
    "Cutter",
    "FacesError",
    "Landmarks",
    "LandmarksError",
    "Limits",
    "PhotoError",
    "Refusal",
    "align",
    "centred",
    "check_image",
    "choose_face",
    "decode_image",
    "detect_faces",
    "face_crop",
    "find_faces",
    "has_header",
    "landmarks_text",
    "list_files",
    "load_landmarks",
    "none_usable",
    "paste",
    "paste_mask",
    "read_folder",
    "read_image",
    "save_image",
    "save_landmarks",
    "sort_out",
    "split_of",
    "to_tensor",
]
