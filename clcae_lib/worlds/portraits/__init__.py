"""The embedded world: procedural portraits whose factors are all known."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from clcae_lib import cache
from clcae_lib.worlds.portraits.dataset import Portraits
from clcae_lib.worlds.portraits.factors import FACTORS, SPLITS
from clcae_lib.worlds.portraits.judges import IdentityEmbedding, Judge, Oracle, Perceptual, load_judge
from clcae_lib.worlds.portraits.renderer import render
from clcae_lib.worlds.world import WORLDS, Role, World, WorldError, copy_of


class PortraitsWorld(World):
    """Portraits of 64x64 pixels with known factors, a StyleGAN2 trained on them, and six networks."""

    name = "portraits"
    resolution = 64
    widen = 0.87
    splits: Sequence[str] = tuple(SPLITS)
    factors: Sequence = FACTORS

    @property
    def renderer(self) -> str:
        """Digest of the program that draws the images: the renderer and all modules that it imports."""
        return cache.program(render.__module__)[:12]

    @property
    def untrained(self) -> dict[str, str]:
        """Empty: all links of the chain of weights are trained."""
        return {}

    def images(self, split: str, size: int | None = None, *, view: int = 0) -> Portraits:
        """Return the first `size` renders of a split; `view` 1, 2, ... shows the same people in other states.

        Raises:
            WorldError: the split is unknown, or has fewer images.
        """
        try:
            return Portraits(split, size, resolution=self.resolution, view=view)
        except ValueError as error:
            raise WorldError(str(error)) from error

    def render(
        self, factors: Float[Tensor, "n k"], *, resolution: int | None = None
    ) -> Float[Tensor, "n 3 h w"]:
        """Return the images of these factors without accessories; see `World.render`."""
        return render(factors, resolution=resolution or self.resolution).image

    def oracle(self, role: Role, device="cpu") -> Oracle:
        """Return the attribute regressor of this role, frozen."""
        return self._judge("oracle", role, device)

    def identity(self, role: Role, device="cpu") -> IdentityEmbedding:
        """Return the identity network of this role, frozen."""
        return self._judge("identity", role, device)

    def perceptual(self, role: Role, device="cpu") -> Perceptual:
        """Return the perceptual network of this role, frozen."""
        return self._judge("perceptual", role, device)

    def _judge(self, kind: str, role: str, device) -> Judge:
        copy = copy_of(role)
        command = f"clcae train judges --world {self.name} --set kind={kind} --set copy={copy}"
        path = self.require(f"{kind}_{copy}", command=command)
        return load_judge(path, kind, device=device)


WORLDS["portraits"] = PortraitsWorld
