"""Where the explorer's codes come from: drawn by seed, or inverted from the gallery or an upload.

An encoder's one pass (arXiv 2211.11448, section 3) is far dearer than a generator's, so inversions are kept.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.editing import sample_codes
from clcae_lib.explorer._recent import Recent
from clcae_lib.explorer.state import ExplorerError, State
from clcae_lib.explorer.uploads import from_text
from clcae_lib.images import from_array
from clcae_lib.inversion import ClcaeInverter, Inversion
from clcae_lib.models import Generator
from clcae_lib.spaces import broadcast_w
from clcae_lib.weights.networks import ENCODERS
from clcae_lib.worlds import Images, World, WorldError

GALLERY = 1000
"""Pictures of the gallery at most."""


class Sources:
    """The codes that states of one world start from.

    Args:
        world: whose pictures and encoders they are.
        generator: the world's own.
        device: where the networks run.

    Attributes:
        methods: presets of encoders that the world has weights of.
        gallery_size: pictures in the gallery.
    """

    def __init__(self, world: World, generator: Generator, device: torch.device) -> None:
        self.world, self.generator, self.device = world, generator, device
        self.methods = tuple(name for name in ENCODERS if world.inversion(name) is not None)
        self._images = _images(world)
        self.gallery_size = 0 if self._images is None else min(GALLERY, len(self._images))
        self._codes, self._inverters = Recent(24), Recent(len(ENCODERS))

    @staticmethod
    def key(state: State) -> tuple:
        """What the source's code depends on."""
        if state.source == "seed":
            return ("seed", state.seed)
        return (state.source, state.method, state.index if state.source == "gallery" else state.upload)

    def codes(self, state: State) -> Inversion:
        """The code of the state's source before any change.

        Raises:
            ExplorerError: the world lacks the picture or the method.
        """
        return self._codes.get(self.key(state), lambda: self._find(state))

    def sampled(self, seed: int) -> Inversion:
        """The code of a seed."""
        w = sample_codes(self.generator, 1, seed=seed)
        return Inversion(w, broadcast_w(w, self.generator.n_latent))

    def target(self, state: State) -> Float[Tensor, "1 3 side side"]:
        """The picture to invert, in [-1, 1].

        Raises:
            ExplorerError: there is none.
        """
        if state.source == "gallery":
            return self.gallery([state.index])
        if state.upload is None:
            raise ExplorerError("Nothing is uploaded yet: choose a picture.")
        picture = from_text(state.upload, side=self.generator.size)
        return from_array(picture)[None]

    def gallery(self, indices: list[int]) -> Float[Tensor, "n 3 side side"]:
        """Pictures of the gallery, in [-1, 1].

        Raises:
            ExplorerError: there is no gallery, or an index is outside it.
        """
        if self._images is None:
            raise ExplorerError(f"The world {self.world.name} has no gallery: draw by seed, or upload.")
        if not all(0 <= index < self.gallery_size for index in indices):
            raise ExplorerError(f"index: the gallery has pictures 0 to {self.gallery_size - 1}.")
        return self._images.images(indices)

    def _find(self, state: State) -> Inversion:
        if state.source == "seed":
            return self.sampled(state.seed)
        if state.method not in self.methods:
            known = ", ".join(self.methods) or "no method"
            raise ExplorerError(f"{state.method}: the world {self.world.name} has weights of {known}.")
        return self._inverters.get(state.method, lambda: self._load(state.method)).invert(self.target(state))

    def _load(self, method: str) -> ClcaeInverter:
        return ClcaeInverter.load(self.world, method, self.device, generator=self.generator)


def _images(world: World) -> Images | None:
    """The pictures that the gallery shows, or None where the world has none."""
    if not world.splits:
        return None
    try:
        return world.images("test" if "test" in world.splits else world.splits[0])
    except WorldError:
        return None
