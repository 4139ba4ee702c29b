"""The evaluation networks of a world. For portraits they are other copies than the loss networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.editing import factor_column, in_batches
from clcae_lib.evaluation.measures import FIDELITY, Measure
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import World
from clcae_lib.worlds.perceptual import distance_name

PairMeasure = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images to one number per pair."""

LEAST_R_SQUARED = 0.8
"""Minimum R² on held-out renders for a factor that the attribute regressor can read."""
LEAST_SPREAD = 0.6
"""Minimum spread of a factor in the generator's samples, as a share of its spread in the world."""


@dataclass(frozen=True, eq=False)
class Judges:
    """The networks that measure images of one world, in the role "measure", each loaded when first used.

    Raises:
        WorldError: (on use) the world lacks the network.
    """

    world: World
    device: torch.device

    @classmethod
    def of(cls, world: World, device: torch.device | str = "cpu") -> Judges:
        """Return all evaluation networks of a world, loaded.

        Raises:
            WorldError: the world lacks one of them.
        """
        judges = cls(world, resolve_device(device))
        _ = judges.oracle, judges.identity, judges.perceptual
        return judges

    @cached_property
    def oracle(self) -> nn.Module:
        """The attribute regressor, images to factors."""
        return self.world.oracle("measure", self.device)

    @cached_property
    def identity(self) -> nn.Module:
        """The identity network, images to unit vectors."""
        return self.world.identity("measure", self.device)

    @cached_property
    def perceptual(self) -> PairMeasure:
        """The perceptual network, pairs of images to distances."""
        return self.world.perceptual("measure", self.device)

    @property
    def perceptual_name(self) -> str:
        """The name of the perceptual distance, which every table states."""
        return distance_name(self.perceptual)

    @property
    def fidelity(self) -> dict[str, Measure]:
        """The measures of a reconstruction, with the name of the perceptual distance."""
        named = FIDELITY["perceptual"]._replace(name=f"perceptual distance ({self.perceptual_name})")
        return FIDELITY | {"perceptual": named}

    @cached_property
    def unreliable(self) -> frozenset[str]:
        """The factors that the regressor cannot read or the generator hardly varies, by measures on cards.

        Changes of these factors are noise, and averages leave them out. Without a card no factor is excluded.
        """
        read = self._on_card("oracle_b", "r2").items()
        made = self._on_card("generator", "spread").items()
        poorly_read = {name for name, share in read if share < LEAST_R_SQUARED}
        return frozenset(poorly_read | {name for name, share in made if share < LEAST_SPREAD})

    def _on_card(self, weights: str, measure: str) -> dict[str, float]:
        """Return a measure of each factor from the card of some weights; empty if the card lacks it."""
        try:
            card = checkpoints.read_card(self.world.weights(weights))
        except FileNotFoundError:
            return {}
        return card.get("measures", {}).get(measure, {})

    @property
    def state_columns(self) -> list[int]:
        """The columns of the state factors among all factors."""
        return [factor_column(self.world, name) for name in self.world.state_names]

    def factors(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Return the factors that the regressor reads, in their standard deviations, not centred."""
        read = in_batches(lambda part: self.oracle(part.to(self.device)).cpu(), images)
        return read / self.world.factor_std

    def similarity(self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the identity similarities, cosines from -1 to 1, of pairs of images."""
        return (self.embed(a) * self.embed(b)).sum(dim=1)

    def embed(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n e"]:
        """Return the identity embeddings, unit vectors."""
        return in_batches(lambda part: self.identity(part.to(self.device)).cpu(), images)

    def distance(self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the perceptual distances of pairs of images."""
        return self.measure_pairs(self.perceptual, a, b)

    def measure_pairs(
        self, measure: PairMeasure, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return a measure of pairs of images, computed in batches on the device."""
        with torch.no_grad():
            pairs = zip(a.split(64), b.split(64), strict=True)
            return torch.cat([measure(x.to(self.device), y.to(self.device)).cpu() for x, y in pairs])


def same_person_similarity(
    world: World, *, count: int = 500, device: torch.device | str = "cpu"
) -> Float[Tensor, " n"]:
    """Return identity similarities of two images of one person in different states, as after a true edit.

    Args:
        world: world with two views of each person.
    """
    first, second = (world.images("test", count, view=view).images(range(count)) for view in (0, 1))
    return Judges.of(world, device).similarity(first, second)
