"""What a step in latent space does to the factors of a picture, read by the judge that gives labels."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.editing.apply import apply
from clcae_lib.editing.direction import Direction
from clcae_lib.editing.sampling import in_batches, sample_codes
from clcae_lib.inversion import Inversion
from clcae_lib.spaces import broadcast_w


@dataclass(frozen=True)
class Labelled:
    """Sampled codes and the factors of their pictures, one column a factor, in the factors' own units."""

    w: Float[Tensor, "n d"]
    factors: Float[Tensor, "n k"]


@torch.no_grad()
def label_codes(
    generator: nn.Module, oracle: nn.Module, count: int, *, seed: int, batch_size: int = 64
) -> Labelled:
    """Codes of W with the factors that the oracle reads off their pictures.

    Args:
        generator: draws codes and pictures.
        oracle: the copy that gives labels, never the one that measures; images `[N, 3, R, R]` to `[N, K]`.
        count: how many.
        seed: of the codes.
        batch_size: pictures at once.
    """
    w = sample_codes(generator, count, seed=seed)
    return Labelled(w, in_batches(lambda part: oracle(generator.synthesis(part)), w, size=batch_size))


@torch.no_grad()
def response(
    generator: nn.Module,
    oracle: nn.Module,
    direction: Direction,
    w: Float[Tensor, "n d"],
    *,
    strength: float | int = 1.0,
    batch_size: int = 64,
) -> Float[Tensor, "n k"]:
    """Half of what each factor changes between strength `-strength` and `+strength`, code by code.

    Args:
        generator: decodes the codes.
        oracle: images `[N, 3, R, R]` to factors `[N, K]`.
        direction: the step.
        w: codes to start from.
        strength: in the direction's unit.
        batch_size: pictures at once.
    """

    def difference(part: Tensor) -> Tensor:
        codes = Inversion(part, broadcast_w(part, generator.n_latent))
        ends = (apply(generator, codes, direction, sign * strength) for sign in (1, -1))
        up, down = (oracle(generator.synthesis(end.w_plus, style_offsets=end.styles)) for end in ends)
        return (up - down) / 2

    return in_batches(difference, w, size=batch_size)
