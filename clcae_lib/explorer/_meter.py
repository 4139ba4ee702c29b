"""What an edit changed: every factor and the identity, before and after (arXiv 2211.11448, section 4.3).

The judges have the role "measure": for portraits, not the copies that made directions and locks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.worlds import World, WorldError

Reading = tuple[Float[Tensor, " k"] | None, Float[Tensor, " e"] | None]
"""Factors in standard deviations, not centred, and a unit vector of who is seen; None without the judge."""


@dataclass(frozen=True)
class Meter:
    """A world's judges in the role "measure", each None where the world has none."""

    world: World
    oracle: nn.Module | None
    identity: nn.Module | None

    @classmethod
    def of(cls, world: World, device: torch.device) -> "Meter":
        """The judges that a world has."""
        oracle = _or_none(lambda: world.oracle("measure", device))
        return cls(world, oracle, _or_none(lambda: world.identity("measure", device)))

    @torch.inference_mode()
    def read(self, image: Float[Tensor, "1 3 h w"]) -> Reading:
        """What the judges see in a picture of [-1, 1]."""
        factors = None if self.oracle is None else self.oracle(image)[0].cpu() / self.world.factor_std
        return factors, None if self.identity is None else self.identity(image)[0].cpu()

    def compare(self, before: Reading, after: Reading) -> tuple[pd.DataFrame | None, float | None]:
        """The table of factors, and the cosine of the identities."""
        table = None
        if before[0] is not None and after[0] is not None:
            columns = {"before": before[0], "after": after[0], "change": after[0] - before[0]}
            values = {name: column.numpy() for name, column in columns.items()}
            table = pd.DataFrame(values, index=pd.Index(self.world.factor_names, name="factor"))
        if before[1] is None or after[1] is None:
            return table, None
        return table, float(before[1] @ after[1])


def _or_none(load: Callable[[], nn.Module]) -> nn.Module | None:
    try:
        return load()
    except WorldError:
        return None
