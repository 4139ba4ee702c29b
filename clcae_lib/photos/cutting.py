"""Cut a folder of photographs; each one is read and cut once, and its crop is stored.

Crops are stored under `paths.cache_dir()`, in a folder named by the framing and the program. The name of a
crop contains a stamp (path, size and modification time of the photograph and of its landmarks) and the digest
of its content, so that a photograph is read again only after it was replaced. Splits depend on the digest, so
a copy of a photograph is in the same split.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from clcae_lib import cache, paths
from clcae_lib.images import load_image, save_image
from clcae_lib.photos.crop import Crop, align, centred, to_tensor
from clcae_lib.photos.detection import find_faces
from clcae_lib.photos.landmarks import LandmarksError, choose_face, landmarks_files, landmarks_path
from clcae_lib.photos.reading import check_image, decode_image, read_content, shown

#: Shares of the photographs by split, in the order of the hash.
SHARES: dict[str, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}


def face_crop(
    path: Path, image: Image.Image, *, side: int, widen: float = 1.0, face: int | str = "largest"
) -> Crop:
    """Return the FFHQ square of a face in a photograph; `face` is a choice of `choose_face`.

    Raises:
        PhotoError: no face is known, or its landmarks are not those of a face; it names the photograph.
    """
    faces = find_faces(path, image)
    try:
        return align(choose_face(faces, face, image.size), image.size, side=side, widen=widen)
    except LandmarksError as error:
        raise LandmarksError(f"{shown(path)}: {error}") from error


def split_of(digest: str) -> str:
    """Return the split of a photograph by its content's SHA-256, the same on every machine."""
    place, edges = int(digest[:12], 16) / 16**12, accumulate(SHARES.values())
    return next(name for name, edge in zip(SHARES, edges, strict=True) if place < edge)


@dataclass(frozen=True)
class Cutter:
    """Cuts photographs to squares of one side and stores the crops.

    All methods raise a PhotoError if a photograph cannot be used.

    Attributes:
        name: name of the world, for messages.
        side: side of the crops in pixels.
        framing: `face` (FFHQ's square), `middle` (the largest square), or `wide`: the largest 4:3 part in the
            middle, with black above and below, as the cars of StyleGAN2.
        widen: factor of the side of FFHQ's square, for faces.
        face: the face that is cut if there are several: "largest", "middle", or its number from the left.
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
        """Return the place of the crop in a photograph."""
        if self.framing == "face":
            return face_crop(path, image, side=self.side, widen=self.widen, face=self.face)
        return centred(image.size, side=self.side, aspect=4 / 3 if self.framing == "wide" else 1.0)

    def crop(self, path: Path) -> Float[Tensor, "3 side side"]:
        """Return the crop of a photograph in [-1, 1], from the cache if possible."""
        try:
            return load_image(self.file(path))
        except OSError:  # damaged or removed
            return load_image(self._cut(path))

    def file(self, path: Path) -> Path:
        """Return the file of a photograph's crop; a new or changed photograph is cut first."""
        return self._kept.get(self._stamp(path)) or self._cut(path)

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a photograph's content."""
        return self.file(path).stem.partition("-")[2]

    def key(self, path: Path) -> str:
        """Return digits that change with the photograph and with its landmarks file."""
        content, marks = self.digest(path).encode(), landmarks_path(path) if self.framing == "face" else None
        if marks is not None and marks.is_file():
            content += marks.read_bytes()
        return hashlib.sha256(content).hexdigest()[:32]

    @cached_property
    def _kept(self) -> dict[str, Path]:
        """Return the files of crops by stamp; only the folder is read."""
        return {file.name.partition("-")[0]: file for file in self.folder.glob("*-*.png")}

    def _stamp(self, path: Path) -> str:
        files = (path, *(landmarks_files(path) if self.framing == "face" else ()))
        return cache.key(str(path.absolute()), [_state(file) for file in files])

    def _cut(self, path: Path) -> Path:
        """Read a photograph once, for its digest and for its crop, and return the crop's file."""
        stamp = self._stamp(path)  # taken before reading, so that a later change is noticed
        check_image(path)
        data = read_content(path)
        image = decode_image(data, name=shown(path))
        crop = self.find_crop(path, image).cut(to_tensor(image))
        if self.framing == "wide":
            bar = self.side // 8
            crop[:, :bar], crop[:, -bar:] = -1, -1
        digest = hashlib.sha256(data).hexdigest()
        self._kept[stamp] = save_image(self.folder / f"{stamp}-{digest}.png", crop)
        return self._kept[stamp]


def _state(file: Path) -> list[int] | None:
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


class CroppedPhotos:
    """Crops of usable photographs, addressed by index and read on request."""

    streamed = True  # training reads them step by step, since they may exceed the memory

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
                f"indices: {min(rows)} to {max(rows)} were requested, but {self.cutter.name!r} has "
                f"{len(self)} photographs here; request fewer, or add more to its folder"
            )
        side = self.cutter.side
        crops = [self.cutter.crop(self.files[row]) for row in rows]
        return (torch.stack(crops) if crops else torch.empty(0, 3, side, side)).to(device)
