"""The judges that measure, gathered. For portraits they are not the copies that gave losses and labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.editing import in_batches
from clcae_lib.worlds import World
from clcae_lib.worlds.perceptual import distance_name


@dataclass(frozen=True, eq=False)
class Judges:
    """The networks that measure images of one world, in the role "measure", each loaded when first used.

    Attributes:
        world: the world whose factors are read.
        device: where the networks run.

    Raises:
        WorldError: (on use) the world lacks the judge.
    """

    world: World
    device: torch.device

    @classmethod
    def of(cls, world: World, device: torch.device | str = "cpu") -> Judges:
        """Return all the judges of a world, loaded.

        Raises:
            WorldError: the world lacks one of them.
        """
        judges = cls(world, resolve_device(device) if isinstance(device, str) else device)
        _ = judges.oracle, judges.identity, judges.perceptual
        return judges

    @cached_property
    def oracle(self) -> nn.Module:
        """The attribute regressor: images to factors."""
        return self.world.oracle("measure", self.device)

    @cached_property
    def identity(self) -> nn.Module:
        """The identity network: images to unit vectors."""
        return self.world.identity("measure", self.device)

    @cached_property
    def perceptual(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The perceptual distance of pairs of images; its `name` belongs beside every number it gives."""
        return self.world.perceptual("measure", self.device)

    @property
    def perceptual_name(self) -> str:
        """What the perceptual distance is called in a table."""
        return distance_name(self.perceptual)

    @property
    def state_columns(self) -> list[int]:
        """Where the state factors stand among all factors."""
        return [list(self.world.factor_names).index(name) for name in self.world.state_names]

    def factors(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Return every factor as the oracle reads it, in its standard deviations, not centred."""
        return (
            in_batches(lambda part: self.oracle(part.to(self.device)).cpu(), images) / self.world.factor_std
        )

    def similarity(self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the identity similarities, -1 to 1, of pairs of images."""
        return (self.embed(a) * self.embed(b)).sum(dim=1)

    def embed(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e"]:
        """Return the identity embeddings, unit vectors."""
        return in_batches(lambda part: self.identity(part.to(self.device)).cpu(), images)

    def distance(self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Perceptual distances of pairs of pictures."""
        with torch.no_grad():
            pairs = zip(a.split(64), b.split(64), strict=True)
            return torch.cat([self.perceptual(x.to(self.device), y.to(self.device)).cpu() for x, y in pairs])


def same_person_similarity(
    world: World, *, split: str = "test", count: int = 500, device: torch.device | str = "cpu"
) -> Float[Tensor, " n"]:
    """Identity similarities of two pictures of one person in different states: what an edit may cost.

    Args:
        world: one that has views.
        split: where the people are from.
        count: how many.
        device: where the judge runs.
    """
    first, second = (world.images(split, count, view=view).images(range(count)) for view in (0, 1))
    return Judges.of(world, device).similarity(first, second)
