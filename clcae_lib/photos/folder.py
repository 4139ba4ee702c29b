"""The photographs in a folder: those that can be used, and for each of the others the reason."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from clcae_lib.photos.landmarks import SUFFIX
from clcae_lib.photos.reading import (
    MAX_BYTES,
    MAX_PIXELS,
    MIN_SIDE,
    PhotoError,
    check_image,
    read_image,
    shown,
)

# What systems leave in folders of pictures; names that begin with a dot are left out as well.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}
_MOST = 10  # reasons that one message lists


class Refusal(NamedTuple):
    """A file that cannot be used, and the sentence that says why and what to do."""

    path: Path
    reason: str


def read_folder(
    folder: Path | str,
    *,
    recursive: bool = False,
    decode: bool = True,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    min_side: int = MIN_SIDE,
    progress: bool = False,
) -> tuple[list[Path], list[Refusal]]:
    """The pictures of a folder in the order of their names, and the files that are none that can be used.

    Hidden files and files of landmarks are left out, every other file is in one of the lists. Both may be
    empty.

    Args:
        folder: where to look.
        recursive: whether to look into its folders too (links to folders are not followed).
        decode: whether each file is decoded, which finds damage; else only its header is looked at.
        max_pixels: see `read_image`.
        max_bytes: see `read_image`.
        min_side: see `read_image`.
        progress: whether to show a bar.

    Raises:
        PhotoError: `folder` is no folder, or may not be read.
    """
    good: list[Path] = []
    found, refused = list_files(folder, recursive=recursive)
    check = read_image if decode else check_image
    for path in tqdm(found, desc="reading photographs", disable=not progress, leave=False):
        try:
            check(path, max_pixels=max_pixels, max_bytes=max_bytes, min_side=min_side)
            good.append(path)
        except PhotoError as error:
            refused.append(Refusal(path, str(error)))
    return good, sorted(refused)


def list_files(folder: Path | str, *, recursive: bool = False) -> tuple[list[Path], list[Refusal]]:
    """The files that may be photographs, in the order of their names, and folders that cannot be read.

    No file is opened.

    Args:
        folder: where to look.
        recursive: whether to look into its folders too.

    Raises:
        PhotoError: `folder` is no folder, or may not be read.
    """
    folder = Path(folder)
    refused: list[Refusal] = []
    found = sorted(_files(folder, recursive, refused), key=lambda path: path.relative_to(folder).parts)
    return found, refused


def none_usable(folder: Path | str, refused: Sequence[Refusal] = ()) -> str:
    """What to say of a folder in which no photograph can be used: why, and what to do.

    Args:
        folder: where they were looked for.
        refused: the files that cannot be used, if there are any.
    """
    lines = [refusal.reason for refusal in refused[:_MOST]]
    if len(refused) > _MOST:
        lines.append(f"... and {len(refused) - _MOST} more")
    looked_at = {refusal.path for refusal in refused}
    below = [path for path in list_files(folder, recursive=True)[0] if path.parent != Path(folder)]
    first = None if looked_at.intersection(below) else next(filter(_has_header, below), None)
    if first is not None:
        lines.append(
            f"photographs lie in its folders, such as {shown(first.parent)}: name that one (or, for "
            "`clcae world add`, say --recursive)"
        )
    lines = lines or ["it is empty; name the folder of your photographs"]
    return "\n".join([f"{shown(folder)} has no photograph that can be used:", *lines])


def _has_header(path: Path) -> bool:
    try:
        check_image(path)
    except PhotoError:
        return False
    return True


def _files(folder: Path, recursive: bool, refused: list[Refusal]) -> Iterator[Path]:
    """Every file that is not left out; folders that cannot be read join the refusals."""
    if not os.path.isdir(folder):  # False for what may not be looked at, too
        raise PhotoError(f"{shown(folder)} is no folder; name one that holds photographs.")

    def unreadable(error: OSError) -> None:
        place = Path(error.filename)
        sentence = f"{shown(place)} cannot be read ({error.strerror}); change its permissions."
        if place == folder:
            raise PhotoError(sentence) from error
        refused.append(Refusal(place, sentence))

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if recursive and not _left_out(name)]
        yield from (Path(place) / name for name in names if not _left_out(name))


def _left_out(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER or name.endswith(SUFFIX)
