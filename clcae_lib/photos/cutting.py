"""Cut a folder of photographs: each one is read and cut once, and its crop is kept.

Crops are stored under `paths.cache_dir()`, named by the content of the photograph and of its landmarks, in a
folder named by the framing and the program. An index there keeps the digest of each photograph by path, size
and time of change, so that a photograph is read again only after it was replaced. Splits depend on content
too: a copy of a photograph is in the split of the first.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from clcae_lib import cache, paths
from clcae_lib.images import from_uint8, load_image, save_image, to_uint8
from clcae_lib.photos.crop import Crop, align, centred, to_tensor
from clcae_lib.photos.detection import find_faces
from clcae_lib.photos.landmarks import LandmarksError, choose_face, landmarks_files, landmarks_path
from clcae_lib.photos.reading import check_image, decode_image, read_content, shown

#: Shares of the photographs by split, in this order along the hash.
SHARES: dict[str, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}


def face_crop(
    path: Path, image: Image.Image, *, side: int, widen: float = 1.0, face: int | str = "largest"
) -> Crop:
    """Return the FFHQ square of a face of a photograph; `face` is one of the choices of `choose_face`.

    Raises:
        PhotoError: no face is known, or its landmarks describe none; the message names the photograph.
    """
    faces = find_faces(path, image)
    try:
        return align(choose_face(faces, face, image.size), image.size, side=side, widen=widen)
    except LandmarksError as error:
        raise LandmarksError(f"{shown(path)}: {error}") from error


def split_of(digest: str) -> str:
    """Return the split of a photograph by its content's SHA-256, the same on every machine."""
    place, edge = int(digest[:12], 16) / 16**12, 0.0
    for name, share in SHARES.items():
        edge += share
        if place < edge:
            return name
    return next(reversed(SHARES))


@dataclass(frozen=True)
class Cutter:
    """Cuts photographs to squares of one side and keeps the crops.

    Attributes:
        name: name of the world, for messages.
        side: side of the crops in pixels.
        framing: `face` (FFHQ's square), `middle` (the largest square), or `wide`: the largest 4:3 part in the
            middle, with black above and below, as the cars of StyleGAN2.
        widen: factor of the side of FFHQ's square, for faces.
        face: the face of several: "largest", "middle", or its number from the left.
    """

    name: str
    side: int
    framing: str = "face"
    widen: float = 1.0
    face: int | str = "largest"

    @property
    def folder(self) -> Path:
        """The folder of the crops: one for each framing, side and version of the program."""
        key = cache.key(self.framing, self.side, self.widen, self.face, modules=[__name__])
        return paths.cache_dir() / "photos" / key

    def find_crop(self, path: Path, image: Image.Image) -> Crop:
        """Return the place of the crop in a photograph.

        Raises:
            PhotoError: no face is known in it.
        """
        if self.framing == "face":
            return face_crop(path, image, side=self.side, widen=self.widen, face=self.face)
        return centred(image.size, side=self.side, aspect=4 / 3 if self.framing == "wide" else 1.0)

    def crop(self, path: Path) -> Float[Tensor, "3 side side"]:
        """Return the crop of a photograph in [-1, 1], from the cache if it is there.

        Raises:
            PhotoError: the photograph cannot be used, or no face is known in it.
        """
        known = self._index.get(path)
        kept = None if known is None else self._kept(known.name)
        return self._cut(path)[1] if kept is None else kept

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a photograph's content, after cutting it if it was not cut before.

        Raises:
            PhotoError: the photograph cannot be used.
        """
        return self._known(path).digest

    def key(self, path: Path) -> str:
        """Return digits that change with the photograph and with the landmarks beside it.

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
        """Return a crop from the cache; None where it is missing or damaged."""
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
            image = decode_image(data, name=shown(path))
            crop = self.find_crop(path, image).cut(to_tensor(image))
            if self.framing == "wide":
                bar = self.side // 8
                crop[:, :bar], crop[:, -bar:] = -1, -1
            save_image(self.folder / f"{known.name}.png", crop)
            crop = from_uint8(to_uint8(crop))
        self._index.add(path, stamp, known)
        return known, crop


def _landmarks(path: Path) -> bytes:
    """Return the content of the file that holds a photograph's landmarks; nothing if there is none."""
    beside = landmarks_path(path)
    try:
        return beside.read_bytes() if beside.is_file() else b""
    except OSError as error:
        message = f"{shown(beside)} cannot be read ({error.strerror}); change its permissions"
        raise LandmarksError(message) from error


class _Known(NamedTuple):
    """The SHA-256 of a photograph's content, and the name of its crop."""

    digest: str
    name: str


class _Index:
    """Digests of the photographs that were cut, by path, size and time of change; one per line.

    Lines are only added, so that processes can share the file: the last one of a path counts, and one that
    was not written to its end is left out. The stamps cover the files of landmarks if `landmarks` is set.
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
        """Return the row of a photograph; None if it is new, or was changed since."""
        stamp, known = self.rows.get(str(path.absolute()), (None, None))
        return known if stamp == self.stamp(path) else None

    def add(self, path: Path, stamp: list[list[int] | None], known: _Known) -> None:
        """Add a photograph that had this stamp before it was read."""
        self.rows[str(path.absolute())] = stamp, known
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps([str(path.absolute()), stamp, *known])
        with self.path.open("ab") as file:  # a line break on both sides: a torn line before spoils no other
            file.write(f"\n{line}\n".encode())

    def stamp(self, path: Path) -> list[list[int] | None]:
        """Return size and time of change of a photograph and of each file that may hold its landmarks."""
        return [_state(file) for file in (path, *(landmarks_files(path) if self.landmarks else ()))]


def _state(file: Path) -> list[int] | None:
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


class CroppedPhotos:
    """Crops of photographs, addressed by index and read on request.

    Args:
        cutter: cutter of the photographs.
        files: usable photographs.
    """

    streamed = True  # a training reads them step by step: they may exceed the memory

    def __init__(self, cutter: Cutter, files: Sequence[Path]) -> None:
        self.cutter, self.files = cutter, list(files)

    def __len__(self) -> int:
        return len(self.files)

    def images(
        self, indices: Tensor | Iterable[int], device: torch.device | str = "cpu"
    ) -> Float[Tensor, "n 3 h w"]:
        """Return the crops of these indices, float32 in [-1, 1]."""
        rows = indices.tolist() if isinstance(indices, Tensor) else list(indices)
        if rows and not 0 <= min(rows) <= max(rows) < len(self):
            raise IndexError(
                f"indices: {min(rows)} to {max(rows)} were asked for, but {self.cutter.name!r} has "
                f"{len(self)} photographs here; ask for fewer, or put more into its folder"
            )
        side = self.cutter.side
        crops = [self.cutter.crop(self.files[row]) for row in rows]
        return (torch.stack(crops) if crops else torch.empty(0, 3, side, side)).to(device)

    def uint8(self, indices: Tensor | Iterable[int]) -> UInt8[Tensor, "n 3 h w"]:
        """Return the crops of these indices as bytes."""
        return to_uint8(self.images(indices))
