"""The embedded world: procedural portraits whose every factor is known."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib import cache
from clcae_lib.worlds.portraits.dataset import Portraits
from clcae_lib.worlds.portraits.factors import (
    FACTORS,
    IDENTITY_NAMES,
    INDEX,
    MEAN,
    NAMES,
    SPLITS,
    STATE_NAMES,
    STD,
    sample_factors,
)
from clcae_lib.worlds.portraits.judges import IdentityEmbedding, Oracle, Perceptual, load_judge
from clcae_lib.worlds.portraits.renderer import render
from clcae_lib.worlds.world import Role, World, WorldError, copy_of, register_world


@register_world("portraits")
class PortraitsWorld(World):
    """Portraits of 64x64 pixels with known factors, a StyleGAN2 trained on them, and six judges."""

    name = "portraits"
    resolution = 64
    widen = 1.1
    splits: Sequence[str] = tuple(SPLITS)
    factor_names: Sequence[str] = NAMES
    state_names: Sequence[str] = STATE_NAMES
    factor_mean: Tensor = MEAN
    factor_std: Tensor = STD
    factor_low: Tensor = torch.tensor([float(factor.low) for factor in FACTORS])
    factor_high: Tensor = torch.tensor([float(factor.high) for factor in FACTORS])
    factor_texts: Sequence[str] = tuple(factor.text for factor in FACTORS)
    #: The table of factors, the data set and the renderer; a world drawn otherwise has its own.
    factors: Sequence = FACTORS
    data: type[Portraits] = Portraits
    draw = staticmethod(render)

    @property
    def renderer(self) -> str:
        """Digest of the program that draws the images: the renderer and all that it imports."""
        return cache.program(self.data.renderer.__name__)[:12]

    @property
    def untrained(self) -> dict[str, str]:
        """Nothing: all links of the chain of weights are trained."""
        return {}

    def images(self, split: str, size: int | None = None, *, view: int = 0) -> Portraits:
        """The first `size` renders of a split; `view` 1, 2, ... shows the same people in other states.

        Raises:
            WorldError: there is no such split, or it has fewer images.
        """
        try:
            return self.data(split, size, resolution=self.resolution, view=view)
        except ValueError as error:
            raise WorldError(str(error)) from error

    def render(
        self, factors: Float[Tensor, "n k"], *, resolution: int | None = None
    ) -> Float[Tensor, "n 3 height width"]:
        """Pictures of these factors, in [-1, 1], without accessories; at the world's own side if None."""
        return self.draw(factors, resolution=resolution or self.resolution).image

    def oracle(self, role: Role, device="cpu") -> Oracle:
        """The factor regressor of this role, frozen."""
        return self._judge("oracle", role, device)

    def identity(self, role: Role, device="cpu") -> IdentityEmbedding:
        """The identity embedding of this role, frozen."""
        return self._judge("identity", role, device)

    def perceptual(self, role: Role, device="cpu") -> Perceptual:
        """The perceptual distance of this role, frozen."""
        return self._judge("perceptual", role, device)

    def _judge(self, kind: str, role: str, device):
        copy = copy_of(role)
        path = self.require(
            f"{kind}_{copy}",
            command=f"clcae train judges --world {self.name} --set kind={kind} --set copy={copy}",
        )
        return load_judge(path, kind, device=device, factors=self.factors)


__all__ = [
    "FACTORS",
    "IDENTITY_NAMES",
    "INDEX",
    "NAMES",
    "SPLITS",
    "STATE_NAMES",
    "IdentityEmbedding",
    "Oracle",
    "Perceptual",
    "Portraits",
    "PortraitsWorld",
    "load_judge",
    "sample_factors",
]
