"""Weights files from elsewhere: read without running them, recognised, converted."""

from clcae_lib.formats._errors import FormatError, UnsafeFileError
from clcae_lib.formats.contents import Contents, read_contents
from clcae_lib.formats.convert import convert_file
from clcae_lib.formats.recognise import Recognised, recognise
from clcae_lib.formats.report import Report, inspect_file

__all__ = [
    "Contents",
    "FormatError",
    "Recognised",
    "Report",
    "UnsafeFileError",
    "convert_file",
    "inspect_file",
    "read_contents",
    "recognise",
]
