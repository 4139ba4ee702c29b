"""What every inversion network returns."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Codes(NamedTuple):
    """The three codes of a batch of pictures; `feature` is None where a network has no F."""

    w: Float[Tensor, "batch dim"]
    w_plus: Float[Tensor, "batch layers dim"]
    feature: Float[Tensor, "batch channels height width"] | None
