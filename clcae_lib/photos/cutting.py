"""A folder of photographs as aligned crops: each photograph is read, framed and cut once, and kept.

What could not be used is listed by name with the reason; a run never meets it. Crops lie under
`paths.cache_dir()`, named by the content of the photograph and of its landmarks, in a folder named by the
framing and the program. An index there keeps the digest of each photograph by path, size and time of change,
so that a photograph is read again only after it was replaced. Splits go by content too: a copy of a
photograph is in the split of the first.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from clcae_lib import cache, paths
from clcae_lib.images import from_uint8, load_image, save_image, to_uint8
from clcae_lib.photos.alignment import Alignment, align, centred, from_square, to_tensor
from clcae_lib.photos.detection import find_faces
from clcae_lib.photos.folder import Refusal
from clcae_lib.photos.landmarks import LandmarksError, landmarks_files, landmarks_path
from clcae_lib.photos.reading import PhotoError, check_image, decode_image, read_content, shown

#: Shares of the photographs by split, in this order along the hash.
SHARES: dict[str, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}


def frame_face(path: Path, picture: Image.Image, *, side: int, widen: float = 1.0) -> Alignment:
    """The FFHQ square of the largest face of a photograph.

    Raises:
        PhotoError: no face is known, or its landmarks describe none; the message names the photograph.
    """
    face = find_faces(path, picture)[0]
    try:
        return align(face, picture.size, side=side, widen=widen)
    except LandmarksError as error:
        raise LandmarksError(f"{shown(path)}: {error}") from error


def frame_middle(path: Path, picture: Image.Image, *, side: int) -> Alignment:
    """The largest square in the middle, for pictures that are cut already."""
    del path
    return centred(picture.size, side=side)


def frame_wide(path: Path, picture: Image.Image, *, side: int) -> Alignment:
    """The square around the largest 4:3 part in the middle; it may reach beyond the picture."""
    del path
    half = min(picture.width, picture.height * 4 / 3) / 2
    centre = torch.tensor(picture.size, dtype=torch.float64) / 2
    return from_square(centre, torch.tensor([half, 0.0], dtype=torch.float64), picture.size, side=side)


def split_of(digest: str, shares: Mapping[str, float] = SHARES) -> str:
    """The split of a photograph by its content's SHA-256: the same on every machine, for ever."""
    place, edge = int(digest[:12], 16) / 16**12, 0.0
    for name, share in shares.items():
        edge += share
        if place < edge:
            return name
    return next(reversed(shares))


@dataclass(frozen=True)
class Cutter:
    """Cuts photographs to squares of one side and keeps the crops.

    Attributes:
        name: of the world, for messages.
        side: of the crops.
        framing: `face` (FFHQ's square), `middle` (the largest square), or `wide`: the largest 4:3 part in the
            middle, with black above and below, as the cars of StyleGAN2 are.
        widen: how much more than FFHQ's square is shown, for faces.
    """

    name: str
    side: int
    framing: str = "face"
    widen: float = 1.0

    @property
    def folder(self) -> Path:
        """Where the crops lie: one folder for each framing, side and version of the program."""
        key = cache.key(self.framing, self.side, self.widen, modules=[__name__])
        return paths.cache_dir() / "photos" / key

    def alignment(self, path: Path, picture: Image.Image) -> Alignment:
        """Where the crop of a photograph lies."""
        if self.framing == "middle":
            return frame_middle(path, picture, side=self.side)
        if self.framing == "wide":
            return frame_wide(path, picture, side=self.side)
        return frame_face(path, picture, side=self.side, widen=self.widen)

    def crop(self, path: Path) -> Float[Tensor, "3 side side"]:
        """The crop of a photograph in [-1, 1]; from the cache if it is there.

        Raises:
            PhotoError: the photograph cannot be used, or no face is known in it.
        """
        known = self._index.get(path)
        kept = None if known is None else self._kept(known.name)
        return self._cut(path)[1] if kept is None else kept

    def digest(self, path: Path) -> str:
        """The SHA-256 of a photograph's content; the photograph is cut if it was not before.

        Raises:
            PhotoError: the photograph cannot be used.
        """
        return self._known(path).digest

    def key(self, path: Path) -> str:
        """Digits that change with the photograph and with the landmarks beside it.

        Raises:
            PhotoError: the photograph cannot be used.
        """
        return self._known(path).name

    @cached_property
    def _index(self) -> "_Index":
        return _Index(self.folder / "index.jsonl", landmarks=self.framing == "face")

    def _known(self, path: Path) -> "_Known":
        return self._index.get(path) or self._cut(path)[0]

    def _kept(self, name: str) -> Tensor | None:
        """A crop from the cache; None where it is not there or damaged."""
        try:
            return load_image(self.folder / f"{name}.png")
        except OSError:
            return None

    def _cut(self, path: Path) -> tuple["_Known", Tensor]:
        """Read a photograph once: for its digest, for its crop, and for the index."""
        stamp = self._index.stamp(path)  # before it is read, so that a later change is noticed
        check_image(path)
        data = read_content(path)
        digest = hashlib.sha256(data).hexdigest()
        beside = _landmarks(path) if self.framing == "face" else b""
        known = _Known(digest, hashlib.sha256(digest.encode() + beside).hexdigest()[:32])
        crop = self._kept(known.name)  # cut already if another path has the same content
        if crop is None:
            picture = decode_image(data, name=shown(path))
            crop = self.alignment(path, picture).crop(to_tensor(picture))
            if self.framing == "wide":
                bar = self.side // 8
                crop[:, :bar], crop[:, -bar:] = -1, -1
            save_image(self.folder / f"{known.name}.png", crop)
            crop = from_uint8(to_uint8(crop))
        self._index.add(path, stamp, known)
        return known, crop


def _landmarks(path: Path) -> bytes:
    """The content of the file that holds a photograph's landmarks; nothing where there is none."""
    beside = landmarks_path(path)
    try:
        return beside.read_bytes() if beside.is_file() else b""
    except OSError as error:
        message = f"{shown(beside)} cannot be read ({error.strerror}); change its permissions"
        raise LandmarksError(message) from error


def prepare(
    cutter: Cutter, files: Sequence[Path], *, progress: bool = True
) -> tuple[dict[Path, str], list[Refusal]]:
    """Cut every photograph once: the SHA-256 of each that can be used, and the others with the reason.

    A photograph that was cut before is not opened while its size and time are unchanged. One that could not
    be used is tried again: landmarks or a detector may have come.
    """
    digests: dict[Path, str] = {}
    refused: list[Refusal] = []
    for path in tqdm(files, desc=f"photographs of {cutter.name}", disable=not progress, leave=False):
        try:
            digests[path] = cutter.digest(path)
        except PhotoError as error:
            refused.append(Refusal(path, str(error)))
    return digests, refused


class _Known(NamedTuple):
    """The SHA-256 of a photograph's content, and the name of its crop."""

    digest: str
    name: str


class _Index:
    """What is known of the photographs that were cut, by path, size and time of change; a line each.

    Lines are only added, so that processes can share the file: the last one of a path counts, and one that
    was not written to its end is left out.

    Args:
        path: the file.
        landmarks: whether the files of landmarks count beside the photographs.
    """

    def __init__(self, path: Path, *, landmarks: bool) -> None:
        self.path, self.landmarks = path, landmarks
        self.rows: dict[str, tuple[Any, _Known]] = {}
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for line in filter(None, text.split("\n")):
            with suppress(ValueError, TypeError):
                place, stamp, digest, name = json.loads(line)
                self.rows[place] = stamp, _Known(digest, name)

    def get(self, path: Path) -> _Known | None:
        """What is known of a photograph; None if it is new, or was changed since."""
        stamp, known = self.rows.get(str(path.absolute()), (None, None))
        return known if stamp == self.stamp(path) else None

    def add(self, path: Path, stamp: list[list[int] | None], known: _Known) -> None:
        """Remember a photograph that had this stamp before it was read."""
        self.rows[str(path.absolute())] = stamp, known
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps([str(path.absolute()), stamp, *known])
        with self.path.open("ab") as file:  # a line break on both sides: a torn line before spoils no other
            file.write(f"\n{line}\n".encode())

    def stamp(self, path: Path) -> list[list[int] | None]:
        """Size and time of change of a photograph and of each file that may hold its landmarks."""
        return [_state(file) for file in (path, *(landmarks_files(path) if self.landmarks else ()))]


def _state(file: Path) -> list[int] | None:
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


class Crops:
    """Aligned crops of photographs, addressed by index; read when asked for.

    Args:
        cutter: how they are cut.
        files: the photographs, all of which `prepare` could use.
        view: what happens to a batch of crops last, such as the cut of a car's picture; None for nothing.
    """

    streamed = True  # a training reads them as it goes: they may be more than memory holds

    def __init__(
        self, cutter: Cutter, files: Sequence[Path], view: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.cutter, self.files, self.view = cutter, list(files), view

    def __len__(self) -> int:
        return len(self.files)

    def images(
        self, indices: Tensor | Iterable[int], device: torch.device | str = "cpu"
    ) -> Float[Tensor, "n 3 height width"]:
        """Crops of these indices, float32 in [-1, 1]."""
        rows = indices.tolist() if isinstance(indices, Tensor) else list(indices)
        if rows and not 0 <= min(rows) <= max(rows) < len(self):
            raise IndexError(
                f"indices: {min(rows)} to {max(rows)} were asked for, but {self.cutter.name!r} has "
                f"{len(self)} photographs here; ask for fewer, or put more into its folder"
            )
        crops = [self.cutter.crop(self.files[row]) for row in rows]
        side = self.cutter.side
        batch = torch.stack(crops) if crops else torch.empty(0, 3, side, side)
        return (batch if self.view is None else self.view(batch)).to(device)

    def uint8(self, indices: Tensor | Iterable[int]) -> UInt8[Tensor, "n 3 height width"]:
        """Crops of these indices as bytes."""
        return to_uint8(self.images(indices))
