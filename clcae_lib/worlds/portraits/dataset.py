"""Images of the `portraits` world by index, rendered on first use and kept on disk.

Every image is a function of its split, its index and its view. Rendered images are stored under
`paths.cache_dir()` in blocks of consecutive images. Each block is one memory-mapped uint8 file that is
renamed into place when it is complete, so that two processes may fill the same folder. The folder's name is a
key of the renderer's program, so that a changed renderer does not use images of the old one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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

#: Images of 64x64 pixels in a block, which then has about 3 MB at any resolution.
_BLOCK_AT_64 = 256
#: Distance, in the index, between the states of successive views of one person.
_VIEW_STRIDE = 15_013

Indices = Tensor | np.ndarray | Sequence[int] | slice | range


def renderer_digest() -> str:
    """Return twelve hexadecimal digits that change with the renderer, its factors and this module."""
    return cache.program(__name__)[:12]


class Portraits(torch.utils.data.Dataset):
    """A split of the `portraits` world: images in [-1, 1] with their true factors.

    Indices are local to the split, from 0 to `len(self) - 1`; views of one index are the same person in
    different states.

    Args:
        split: name in `factors.SPLITS`; only the people of the split `accessories` wear accessories.
        size: number of images, all of the split if None.
        view: 0 for the index's own image, 1, 2, ... for the same people in other states.

    Raises:
        ValueError: an unknown split, a size beyond it, a resolution or a view out of range.
    """

    def __init__(self, split: str, size: int | None = None, *, resolution: int = 64, view: int = 0):
        if split not in SPLITS:
            raise ValueError(f"split: there is no {split!r}; choose one of {', '.join(SPLITS)}")
        size = len(SPLITS[split]) if size is None else size
        if not 0 < size <= len(SPLITS[split]):
            raise ValueError(f"size: {split!r} has 1 to {len(SPLITS[split])} images, got {size}")
        if resolution < 8 or view < 0:
            raise ValueError(f"resolution={resolution}, view={view}: 8 pixels and 0 or more are needed")
        self.split, self.size, self.resolution, self.view = split, size, resolution, view
        self._mapped: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Float[Tensor, "3 h w"]:
        return self.images([index])[0]

    def images(self, indices: Indices) -> Float[Tensor, "n 3 h w"]:
        """Return the images of these local indices, float32 in [-1, 1]."""
        return from_uint8(self.uint8(indices))

    def uint8(self, indices: Indices) -> UInt8[Tensor, "n 3 h w"]:
        """Return the images of these local indices, 0 to 255, as stored in the cache."""
        local = self._local(indices)
        out = np.empty((len(local), 3, self.resolution, self.resolution), dtype=np.uint8)
        blocks = local // self.block_size
        for block in np.unique(blocks):
            rows = np.flatnonzero(blocks == block)
            out[rows] = self._block(int(block))[local[rows] - block * self.block_size]
        return torch.from_numpy(out)

    def factors(self, indices: Indices) -> Float[Tensor, "n k"]:
        """Return the true factors of these local indices, in the order and units of `factors.FACTORS`."""
        who, state = self._global(self._local(indices))
        return sample_factors(who, state_indices=state)

    def landmarks(self, indices: Indices) -> Float[Tensor, "n p 2"]:
        """Return the landmarks of these local indices in pixels, x then y; they are not cached."""
        local = self._local(indices)
        return self._draw(local, self.factors(local)).landmarks

    def with_factors(self, indices: Indices, factors: Float[Tensor, "n k"]) -> Float[Tensor, "n 3 h w"]:
        """Return images of these people with other factors and the same accessories; they are not cached."""
        return self._draw(self._local(indices), factors).image

    def prepare(self) -> "Portraits":
        """Render the blocks that are not in the cache, with a progress bar, and return the data set."""
        blocks = range(-(-self.size // self.block_size))
        missing = [block for block in blocks if not self._block_path(block).is_file()]
        name = f"render {self.split}" + (f" view {self.view}" if self.view else "")
        for block in tqdm(missing, desc=name, unit="block", disable=not missing):
            self._block(block)
        return self

    @property
    def block_size(self) -> int:
        """Number of images in a block of the cache, a power of two that is smaller for higher resolutions."""
        scaled = _BLOCK_AT_64 * (64 / self.resolution) ** 2
        return 2 ** int(np.clip(np.log2(scaled), 2, 10))

    @property
    def folder(self) -> Path:
        """The folder of the blocks: one for each renderer, split, view and resolution."""
        name = f"{self.split}-{self.view}-{self.resolution}"
        return paths.cache_dir() / "portraits" / renderer_digest() / name

    def _block_path(self, block: int) -> Path:
        return self.folder / f"{block:05d}.npy"

    def _block(self, block: int) -> np.ndarray:
        """Return a block's pixels, mapped from disk; a missing or damaged block is rendered first."""
        if block not in self._mapped:
            mapped = self._read_block(block)
            if mapped is None:
                rows = self._block_range(block)
                who, state = self._global(rows)
                factors = sample_factors(who, state_indices=state)
                pixels = to_uint8(self._draw(rows, factors).image.cpu()).numpy()
                with atomic_path(self._block_path(block)) as temporary, open(temporary, "wb") as file:
                    np.save(file, pixels)
                mapped = self._read_block(block)
            self._mapped[block] = pixels if mapped is None else mapped
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
        """Return the global indices of the identities and of the states of these images."""
        indices = SPLITS[self.split]
        state = (local + self.view * _VIEW_STRIDE) % len(indices)
        return indices.start + local, indices.start + state

    def _draw(self, local: np.ndarray, factors: Tensor) -> Any:
        worn = sample_accessories(self._global(local)[0]) if self.split == "accessories" else None
        return renderer.render(factors, resolution=self.resolution, accessories=worn)
