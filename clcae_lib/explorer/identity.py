"""Edits that keep the person: a step in W or StyleSpace without what changes the identity embedding most.

Edits should keep who is seen (arXiv 2211.11448, section 4.3). The embedding's Jacobian with respect to the
step says how it moves with a small one; the right singular vectors of its largest singular values span the
steps that change it most, and a locked edit is projected off them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

RANK = 4
"""How many singular vectors a locked edit loses.

Four keep most of an edit; with eight, yaw and glasses, which the embedding also sees, hardly move any more.
"""
_CHUNK = 16
"""Rows of the Jacobian at once, to bound the memory."""


def identity_basis(
    embed: nn.Module,
    decode: Callable[[Tensor], Tensor],
    still: Float[Tensor, "1 d"],
    *,
    rank: int = RANK,
) -> Float[Tensor, "k d"]:
    """Orthonormal steps that change the identity most around a code, the worst first.

    Args:
        embed: images to vectors; the judge in the role "train", for the other one measures.
        decode: steps `[N, D]` from the code to pictures `[N, 3, R, R]`, differentiable.
        still: the step that is none, zeros.
        rank: how many steps.
    """

    def embedded(steps: Tensor) -> Tensor:
        return embed(decode(steps))

    count = embedded(still).shape[1]
    parts = [_gradients(embedded, part, still) for part in torch.arange(count).split(_CHUNK)]
    jacobian = torch.cat(parts)
    return torch.linalg.svd(jacobian.double(), full_matrices=False).Vh[:rank].to(still)


def _gradients(embedded: Callable[[Tensor], Tensor], entries: Tensor, like: Tensor) -> Float[Tensor, "e d"]:
    """Gradients of these entries of the embedding at no step, each from its own copy of the code."""
    with torch.enable_grad():
        steps = like.new_zeros(len(entries), like.shape[-1]).requires_grad_()
        chosen = embedded(steps).gather(1, entries.to(like.device)[:, None])
        return torch.autograd.grad(chosen.sum(), steps)[0]


def off(basis: Float[Tensor, "k d"], step: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """The step, row by row, without its part in the span of the basis."""
    return step - (step @ basis.T) @ basis
