"""Photographs: read or refused by name, never a crash in the middle of a run (no section of the paper)."""

from clcae_lib.files import save_image
from clcae_lib.photos.folder import Refusal, read_folder
from clcae_lib.photos.reading import PhotoError, check_image, decode_image, read_image

__all__ = [
    "PhotoError",
    "Refusal",
    "check_image",
    "decode_image",
    "read_folder",
    "read_image",
    "save_image",
]
