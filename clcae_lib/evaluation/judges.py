"""The judges that measure, gathered. For portraits they are not the copies that gave losses and labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.editing import in_batches
from clcae_lib.worlds import World
from clcae_lib.worlds.perceptual import distance_name


@dataclass(frozen=True)
class Judges:
    """What pictures of one world are measured with.

    Attributes:
        world: whose factors they are.
        oracle: images to factors.
        identity: images to unit vectors.
        perceptual: pairs of images to distances; its `name` belongs beside every number it gives.
        device: where they run.
    """

    world: World
    oracle: nn.Module
    identity: nn.Module
    perceptual: Callable[[Tensor, Tensor], Tensor]
    device: torch.device

    @classmethod
    def of(cls, world: World, device: torch.device | str = "cpu") -> Judges:
        """The world's judges in the role "measure".

        Raises:
            WorldError: the world lacks one of them.
        """
        device = resolve_device(device) if isinstance(device, str) else device
        oracle, identity = world.oracle("measure", device), world.identity("measure", device)
        return cls(world, oracle, identity, world.perceptual("measure", device), device)

    @property
    def perceptual_name(self) -> str:
        """What the perceptual distance is called in a table."""
        return distance_name(self.perceptual)

    @property
    def state_columns(self) -> list[int]:
        """Where the state factors stand among all factors."""
        return [list(self.world.factor_names).index(name) for name in self.world.state_names]

    def factors(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Every factor as the oracle reads it, in standard deviations of its distribution, not centred."""
        return (
            in_batches(lambda part: self.oracle(part.to(self.device)).cpu(), images) / self.world.factor_std
        )

    def similarity(self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Cosines, -1 to 1, of the identities in pairs of pictures."""
        embedded = [in_batches(lambda part: self.identity(part.to(self.device)).cpu(), x) for x in (a, b)]
        return (embedded[0] * embedded[1]).sum(dim=1)

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
