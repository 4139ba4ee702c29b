"""A folder of photographs as aligned crops: each file is read, framed and cut once, and the crop is kept.

What could not be used is listed by name with the reason; a run never meets it. Crops lie under
`paths.cache_dir()`, named by the photograph's content and by how it was framed, so that a changed file or
frame never meets an old crop. Splits go by content too: a copy of a photograph is in the split of the first.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from clcae_lib import paths
from clcae_lib.files import atomic_path, load_image, save_image, sha256, to_uint8
from clcae_lib.photos.alignment import Alignment, align, centred, from_square, to_tensor
from clcae_lib.photos.detection import find_faces
from clcae_lib.photos.folder import Refusal, read_folder
from clcae_lib.photos.landmarks import SUFFIX, landmarks_path
from clcae_lib.photos.reading import PhotoError, read_image

#: Changes with the arithmetic of the crop, so that old crops are not taken for new ones.
_VERSION = "1"
#: Shares of the photographs by split, in this order along the hash.
SHARES: dict[str, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}

Framing = Callable[[Path, Image.Image], Alignment]


def frame_face(path: Path, picture: Image.Image, *, side: int, widen: float = 1.0) -> Alignment:
    """The FFHQ square of the largest face of a photograph.

    Raises:
        PhotoError: no face is known; the message says how to give one.
    """
    return align(find_faces(path, picture)[0], picture.size, side=side, widen=widen)


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


def photographs(folder: Path, *, recursive: bool = False) -> tuple[list[Path], list[Refusal]]:
    """The pictures of a folder by name and what is none that can be used; landmark files are neither."""
    good, refused = read_folder(folder, recursive=recursive, decode=False)
    return good, [refusal for refusal in refused if not refusal.path.name.endswith(SUFFIX)]


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
    """Cuts photographs to squares of one side and remembers them.

    Attributes:
        name: of the world, for the cache's folder.
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
        """Where the crops lie."""
        kind = f"{self.framing}-{self.side}-{self.widen:g}-{_VERSION}"
        return paths.cache_dir() / "photos" / self.name / kind

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
        kept = self.folder / f"{self.key(path)}.png" if self.framing == "face" else None
        if kept is not None and kept.is_file():
            try:
                return load_image(kept)
            except OSError:  # cut again
                kept.unlink(missing_ok=True)
        picture = read_image(path)
        cut = self.alignment(path, picture).crop(to_tensor(picture))
        if self.framing == "wide":
            bar = self.side // 8
            cut[:, :bar], cut[:, -bar:] = -1, -1
        if kept is not None:
            save_image(kept, cut)
        return to_uint8(cut).float() / 127.5 - 1

    def key(self, path: Path) -> str:
        """Digits that change with the photograph and with the landmarks beside it."""
        return _key(sha256(path), landmarks_path(path) if self.framing == "face" else None)


def prepare(
    cutter: Cutter, files: Sequence[Path], *, progress: bool = True
) -> tuple[dict[Path, str], list[Refusal]]:
    """Cut every photograph once: the SHA-256 of each that can be used, and the others with the reason.

    What is known of a file is taken from an index while its size and time are unchanged.
    """
    index = _Index(cutter.folder / "index.json")
    digests: dict[Path, str] = {}
    refused: list[Refusal] = []
    try:
        for path in tqdm(files, desc=f"photographs of {cutter.name}", disable=not progress, leave=False):
            try:
                digests[path] = index.get(path) or index.add(path, _cut(cutter, path))
            except PhotoError as error:
                refused.append(Refusal(path, str(error)))
    finally:
        index.write()
    return digests, refused


def _cut(cutter: Cutter, path: Path) -> str:
    try:
        digest = sha256(path)
    except OSError as error:
        raise PhotoError(f"{path} cannot be read ({error.strerror}); change its permissions") from error
    cutter.crop(path)
    return digest


def _key(digest: str, beside: Path | None) -> str:
    known = beside.read_bytes() if beside is not None and beside.is_file() else b""
    return hashlib.sha256(digest.encode() + known).hexdigest()[:32]


class _Index:
    """Digests of the files that were usable when last looked at, by path, size and time."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows, self.changed = path, {}, False
        if path.is_file():
            try:
                rows = json.loads(path.read_text(encoding="utf-8"))
                self.rows = rows if isinstance(rows, dict) else {}
            except (OSError, ValueError):
                self.rows = {}

    def get(self, path: Path) -> str | None:
        row = self.rows.get(str(path.absolute()))
        return row[1] if row and row[0] == _stamp(path) else None

    def add(self, path: Path, digest: str) -> str:
        self.rows[str(path.absolute())] = [_stamp(path), digest]
        self.changed = True
        return digest

    def write(self) -> None:
        if self.changed:
            with atomic_path(self.path) as partial:
                partial.write_text(json.dumps(self.rows), encoding="utf-8")


def _stamp(path: Path) -> list[int]:
    files = [path, landmarks_path(path)]
    states = [file.stat() for file in files if file.is_file()]
    return [number for state in states for number in (state.st_size, state.st_mtime_ns)]


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
        crops = [self.cutter.crop(self.files[row]) for row in rows]
        side = self.cutter.side
        batch = torch.stack(crops) if crops else torch.empty(0, 3, side, side)
        return (batch if self.view is None else self.view(batch)).to(device)

    def uint8(self, indices: Tensor | Iterable[int]) -> UInt8[Tensor, "n 3 height width"]:
        """Crops of these indices as bytes."""
        return to_uint8(self.images(indices))
