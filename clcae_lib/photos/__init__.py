"""Photographs: read them, align them as FFHQ was, and paste edits back (no section of the paper)."""

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
