"""Edits that keep the person: remove from a step in W or StyleSpace what changes the identity most.

Edits should not change the person (arXiv 2211.11448, section 4.3). The Jacobian of the identity embedding
with respect to a step describes small steps: the right singular vectors of its largest singular values span
the steps that change the embedding most. A locked edit is projected onto their orthogonal complement.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

RANK = 4
"""Number of singular vectors that are removed from a locked edit.

With four, most of an edit remains; with eight, yaw and glasses, to which the embedding also reacts, hardly
move.
"""
_CHUNK = 16
"""Rows of the Jacobian in one pass, to bound the memory."""


def identity_basis(
    embed: nn.Module,
    decode: Callable[[Tensor], Tensor],
    still: Float[Tensor, "1 d"],
    *,
    rank: int = RANK,
) -> Float[Tensor, "k d"]:
    """Return orthonormal steps that change the identity most around a code, the largest change first.

    Args:
        embed: images to vectors; the loss network, because the evaluation network is for measures only.
        decode: steps `[N, D]` from the code to images `[N, 3, H, W]`, differentiable.
        still: the step that changes nothing, zeros.
        rank: number of steps.
    """
    with torch.enable_grad():
        count = embed(decode(still)).shape[1]
        jacobian = []
        for entries in torch.arange(count, device=still.device).split(_CHUNK):
            steps = still.new_zeros(len(entries), still.shape[-1]).requires_grad_()
            chosen = embed(decode(steps)).gather(1, entries[:, None])  # each from its own copy of the code
            jacobian.append(torch.autograd.grad(chosen.sum(), steps)[0])
    return torch.linalg.svd(torch.cat(jacobian).double(), full_matrices=False).Vh[:rank].to(still)


def project_off(basis: Float[Tensor, "k d"], step: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    """Return the step, row by row, without its part in the span of the basis."""
    return step - (step @ basis.T) @ basis
