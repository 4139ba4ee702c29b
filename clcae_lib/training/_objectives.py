"""The adversarial objectives: relativistic pairing (arXiv 2501.05441) or logistic, and the penalty."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["discriminator_loss", "generator_loss", "gradient_penalty"]

Scores = Float[Tensor, "n 1"]


def discriminator_loss(real: Scores, fake: Scores, *, kind: str) -> Float[Tensor, ""]:
    """Penalise fakes scored above their paired real ("relativistic") or above zero ("logistic")."""
    if kind == "relativistic":
        return F.softplus(fake - real).mean()
    return F.softplus(fake).mean() + F.softplus(-real).mean()


def generator_loss(real: Scores, fake: Scores, *, kind: str) -> Float[Tensor, ""]:
    """Penalise fakes scored below their paired real ("relativistic") or below zero ("logistic")."""
    return F.softplus(real - fake).mean() if kind == "relativistic" else F.softplus(-fake).mean()


def gradient_penalty(scores: Scores, images: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """Mean squared length of the scores' gradient at float32 `images` (R1 on renders, R2 on samples).

    The gradient arrives in the images' float32, and squares are summed in float32; bfloat16 inside the
    network has float32's range, so no gradient under- or overflows on the way and no scaling is needed.
    """
    (gradient,) = torch.autograd.grad(scores.float().sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()
