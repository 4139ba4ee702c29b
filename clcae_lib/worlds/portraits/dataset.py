"""Pictures of the `portraits` world by index, rendered when first asked for and kept on disk.

The renderer is the source; this is its memory. Every image is a function of its split, its index and
its view, so a data set is nothing but a range of numbers. What has been drawn lies under
`paths.cache_dir()` in blocks of consecutive images, each one memory-mapped uint8 file that appears in
its folder in one rename: a block is whole or absent, and two processes may fill the same folder.
The folder's name is a key of the program that draws, so a changed renderer never meets images of the
old one.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm.auto import tqdm

from clcae_lib import cache, paths
from clcae_lib.files import atomic_path
from clcae_lib.images import from_uint8, to_uint8
from clcae_lib.worlds.portraits import renderer
from clcae_lib.worlds.portraits.factors import SPLITS, sample_accessories, sample_factors

#: Number of images that make a pixel budget of 64x64x256 a block, about 3 MB at any resolution.
_BLOCK_AT_64 = 256
#: How far apart, in the index, the states of successive views of one person are taken.
_VIEW_STRIDE = 15_013

Indices = Tensor | np.ndarray | Sequence[int] | slice | range


def to_float(images: UInt8[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 height width"]:
    """Images of 0..255 as float32 in [-1, 1]."""
    return from_uint8(images)


def renderer_digest(drawn: ModuleType = renderer) -> str:
    """Return twelve hexadecimal digits that change with a renderer, its factors and this module.

    Args:
        drawn: the renderer of the world.
    """
    return cache.program(__name__, drawn.__name__)[:12]


class Portraits(torch.utils.data.Dataset):
    """A split of the `portraits` world: images in [-1, 1] with their true factors.

    Indices are local to the split, from 0 to `len(self)`; views of one index are the same person in
    other states.

    Args:
        split: a name of `factors.SPLITS`; the split `accessories` wears what no other does.
        size: number of images, all of the split if None.
        resolution: side in pixels.
        cache: keep what is rendered on disk; otherwise every request renders anew, to the same pixels.
        view: 0 for the picture of that index, 1, 2, ... for the same people in other states.

    Raises:
        ValueError: an unknown split, a size beyond it, a resolution or a view out of range.
    """

    #: The world's name, factors and renderer; the data set of another drawn world has its own.
    world: ClassVar[str] = "portraits"
    renderer: ClassVar[ModuleType] = renderer
    sample_factors = staticmethod(sample_factors)

    def __init__(
        self, split: str, size: int | None = None, *, resolution: int = 64, cache: bool = True, view: int = 0
    ):
        if split not in SPLITS:
            raise ValueError(
                f"split: there is no {split!r} in {self.world}; choose one of {', '.join(SPLITS)}"
            )
        size = len(SPLITS[split]) if size is None else size
        if not 0 < size <= len(SPLITS[split]):
            raise ValueError(f"size: {split!r} has 1 to {len(SPLITS[split])} images, got {size}")
        if resolution < 8:
            raise ValueError(f"resolution: at least 8 pixels, got {resolution}")
        if view < 0:
            raise ValueError(f"view: 0 or more, got {view}")
        self.split, self.size, self.resolution, self.cache, self.view = split, size, resolution, cache, view
        self._mapped: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Float[Tensor, "3 height width"]:
        return self.images([index])[0]

    def images(self, indices: Indices) -> Float[Tensor, "n 3 height width"]:
        """Images of these local indices, float32 in [-1, 1]."""
        return to_float(self.uint8(indices))

    def uint8(self, indices: Indices) -> UInt8[Tensor, "n 3 height width"]:
        """Images of these local indices, 0..255: what lies in the cache."""
        local = self._local(indices)
        if not self.cache:
            return self._render(local)
        out = np.empty((len(local), 3, self.resolution, self.resolution), dtype=np.uint8)
        blocks = local // self.block_size
        for block in np.unique(blocks):
            rows = np.flatnonzero(blocks == block)
            out[rows] = self._block(int(block))[local[rows] - block * self.block_size]
        return torch.from_numpy(out)

    def factors(self, indices: Indices) -> Float[Tensor, "n k"]:
        """True factors of these local indices, in the order and units of `factors.FACTORS`."""
        who, state = self._global(self._local(indices))
        return self.sample_factors(who, state_indices=state)

    def landmarks(self, indices: Indices) -> Float[Tensor, "n p 2"]:
        """Landmarks of these local indices in pixels, x then y; rendered, never cached."""
        return self._rendering(self._local(indices)).landmarks

    def with_factors(
        self, indices: Indices, factors: Float[Tensor, "n k"]
    ) -> Float[Tensor, "n 3 height width"]:
        """The people of these indices with other factors, wearing what they wear; rendered, never cached."""
        who, _ = self._global(self._local(indices))
        worn = sample_accessories(who) if self.split == "accessories" else None
        return self.renderer.render(factors, resolution=self.resolution, accessories=worn).image

    def prepare(self, *, progress: bool = True) -> "Portraits":
        """Render whatever is missing from the cache, with a progress bar, and return the data set."""
        missing = [b for b in range(self._block_count) if not self._block_path(b).is_file()]
        name = f"render {self.split}" + (f" view {self.view}" if self.view else "")
        for block in tqdm(
            missing if self.cache else [], desc=name, unit="block", disable=not (progress and missing)
        ):
            self._block(block)
        return self

    @property
    def block_size(self) -> int:
        """Images in a block of the cache, a power of two that shrinks with the resolution."""
        scaled = _BLOCK_AT_64 * (64 / self.resolution) ** 2
        return 2 ** int(np.clip(np.log2(scaled), 2, 10))

    @property
    def folder(self) -> Path:
        """Where the blocks lie: one folder for each renderer, split, view and resolution."""
        name = f"{self.split}-{self.view}-{self.resolution}"
        return paths.cache_dir() / self.world / renderer_digest(self.renderer) / name

    @property
    def _block_count(self) -> int:
        return -(-self.size // self.block_size)

    def _block_path(self, block: int) -> Path:
        return self.folder / f"{block:05d}.npy"

    def _block(self, block: int) -> np.ndarray:
        """The block's pixels, mapped from disk, rendered first where they are not there or not whole."""
        if block not in self._mapped:
            mapped = self._read_block(block)
            self._mapped[block] = self._write_block(block) if mapped is None else mapped
        return self._mapped[block]

    def _block_range(self, block: int) -> np.ndarray:
        start = block * self.block_size
        return np.arange(start, min(start + self.block_size, len(SPLITS[self.split])))

    def _read_block(self, block: int) -> np.ndarray | None:
        expected = (len(self._block_range(block)), 3, self.resolution, self.resolution)
        try:
            pixels = np.load(self._block_path(block), mmap_mode="r")
        except (FileNotFoundError, ValueError, EOFError):
            return None
        return pixels if pixels.shape == expected and pixels.dtype == np.uint8 else None

    def _write_block(self, block: int) -> np.ndarray:
        pixels = self._render(self._block_range(block)).numpy()
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._block_path(block)) as temporary, open(temporary, "wb") as file:
            np.save(file, pixels)
        mapped = self._read_block(block)
        return pixels if mapped is None else mapped

    def _local(self, indices: Indices) -> np.ndarray:
        if isinstance(indices, slice):
            indices = range(*indices.indices(self.size))
        local = np.asarray(indices, dtype=np.int64).reshape(-1)
        if local.size and (local.min() < 0 or local.max() >= self.size):
            raise IndexError(
                f"indices: {self.split!r} has indices 0 to {self.size - 1}, "
                f"got {local.min()} to {local.max()}"
            )
        return local

    def _global(self, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Global indices of the identities and of the states of these images."""
        indices = SPLITS[self.split]
        state = (local + self.view * _VIEW_STRIDE) % len(indices)
        return indices.start + local, indices.start + state

    def _rendering(self, local: np.ndarray) -> Any:
        who, state = self._global(local)
        worn = sample_accessories(who) if self.split == "accessories" else None
        factors = self.sample_factors(who, state_indices=state)
        return self.renderer.render(factors, resolution=self.resolution, accessories=worn)

    def _render(self, local: np.ndarray) -> UInt8[Tensor, "n 3 height width"]:
        """Render in chunks of one block's pixels, to bound the memory."""
        if not len(local):
            return torch.empty(0, 3, self.resolution, self.resolution, dtype=torch.uint8)
        chunks = np.array_split(local, -(-len(local) // self.block_size))
        return torch.cat([to_uint8(self._rendering(chunk).image.cpu()) for chunk in chunks])
