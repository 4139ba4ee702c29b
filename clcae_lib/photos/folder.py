"""List the photographs in a folder, and the reason for each file that cannot be used."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tqdm import tqdm  # not tqdm.auto: the notebook version ignores `disable=None`

from clcae_lib.photos.landmarks import SUFFIX
from clcae_lib.photos.reading import PhotoError, check_image, read_image, shown
from clcae_lib.spaces import SPACES

# Files that operating systems create in folders of images; hidden files are ignored as well.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}
_CODES = ".safetensors"
_MOST = 10  # reasons in one message
Used = TypeVar("Used")


class Refusal(NamedTuple):
    """A file that cannot be used, and a sentence with the reason and the remedy."""

    path: Path
    reason: str


def read_folder(
    folder: Path | str, *, recursive: bool = False, decode: bool = True
) -> tuple[list[Path], list[Refusal]]:
    """Return the usable images of a folder, sorted by name, and the other files.

    Each file is decoded, which finds damage; without `decode` only its header is read. Files that
    `list_files` leaves out are in neither list.

    Raises:
        PhotoError: `folder` is not a folder, or may not be read.
    """
    files, unreadable = list_files(folder, recursive=recursive)
    read = read_image if decode else check_image
    good, refused = sort_out(files, lambda path: bool(read(path)), title="reading photographs")
    return list(good), sorted([*unreadable, *refused])


def sort_out(
    files: Iterable[Path], use: Callable[[Path], Used], *, title: str
) -> tuple[dict[Path, Used], list[Refusal]]:
    """Return the results of `use` for all files, and the files for which it raises a PhotoError.

    In a terminal, a progress bar with the title is shown.
    """
    good: dict[Path, Used] = {}
    refused = []
    for path in tqdm(files, desc=title, disable=None, leave=False):
        try:
            good[path] = use(path)
        except PhotoError as error:
            refused.append(Refusal(path, str(error)))
    return good, refused


def list_files(folder: Path | str, *, recursive: bool = False) -> tuple[list[Path], list[Refusal]]:
    """Return the files that may be photographs, sorted by name, and the folders that cannot be read.

    No file is opened. Hidden files, files of landmarks and results of `clcae invert` are left out; links to
    folders are not followed.

    Raises:
        PhotoError: `folder` is not a folder, or may not be read.
    """
    folder, found, refused = Path(folder), list[Path](), list[Refusal]()
    if not os.path.isdir(folder):  # also False for a folder without read permission
        raise PhotoError(f"{shown(folder)} is not a folder; name one that holds photographs.")

    def unreadable(error: OSError) -> None:
        place = Path(error.filename)
        sentence = f"{shown(place)} cannot be read ({error.strerror}); change its permissions."
        if place == folder:
            raise PhotoError(sentence) from error
        refused.append(Refusal(place, sentence))

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if recursive and not _left_out(name)]
        written = _written(set(names))
        found += [Path(place) / name for name in names if not _left_out(name) and name not in written]
    return sorted(found, key=lambda path: path.relative_to(folder).parts), refused


def none_usable(folder: Path | str, refused: Sequence[Refusal] = ()) -> str:
    """Return the message for a folder without a usable photograph: the reasons, and what to do."""
    lines = [refusal.reason for refusal in refused[:_MOST]]
    if len(refused) > _MOST:
        lines.append(f"... and {len(refused) - _MOST} more")
    below = [path for path in list_files(folder, recursive=True)[0] if path.parent != Path(folder)]
    if not set(below).intersection(refusal.path for refusal in refused):
        first = next(filter(has_header, below), None)
        if first is not None:
            lines.append(
                f"photographs are in its subfolders, such as {shown(first.parent)}: name that one (or, "
                "for `clcae world add`, add --recursive)"
            )
    lines = lines or ["it is empty, or has only results of `clcae invert`; name a folder of photographs"]
    return "\n".join([f"{shown(folder)} has no photograph that can be used:", *lines])


def has_header(path: Path) -> bool:
    """Return whether a file has the header of a usable photograph."""
    try:
        return bool(check_image(path))
    except PhotoError:
        return False


def _written(names: set[str]) -> set[str]:
    """Return the names of results of `clcae invert` in a folder: images with codes, and the table."""
    codes = [name for name in names if name.endswith(_CODES)]
    images = {f"{code.removesuffix(_CODES)}.{space}.png": code for code in codes for space in SPACES}
    found = images.keys() & names
    return found | {images[name] for name in found} | ({"measures.csv"} if found else set())


def _left_out(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER or name.endswith(SUFFIX)
