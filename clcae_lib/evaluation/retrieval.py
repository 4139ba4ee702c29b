"""Measure how precisely an image finds its code (arXiv 2211.11448, section 3.1).

Alignment is good if the embedding of `G(w)` is nearer to that of its own `w` than to any other. Among random
codes this is easy and the measure saturates; among neighbours of the true code it does not.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from clcae_lib.editing import sample_codes


@torch.no_grad()
def neighbour_retrieval(
    image_encoder: Callable[[Tensor], Tensor],
    latent_encoder: Callable[[Tensor], Tensor],
    generator: nn.Module,
    *,
    steps: Sequence[float] = (0.1, 0.2, 0.5, 1.0),
    codes: int = 200,
    distractors: int = 100,
    seed: int = 0,
) -> dict[float, float]:
    """Return, for each distance, the share (0 to 1) of images whose own code is nearer than its neighbours.

    A neighbour is `w + step * std * eps`: `eps` standard normal, `std` the standard deviation of each
    coordinate of W. On this scale two unrelated codes have distance 1.4. Chance is `1 / (distractors + 1)`.

    Args:
        image_encoder: map of images `[N, 3, R, R]` to embeddings `[N, E]`.
        latent_encoder: map of codes `[N, D]` to embeddings `[N, E]`.
        steps: distances of the neighbours, in standard deviations of W.
        distractors: number of neighbours of each true code.
        seed: seed of codes and neighbours; their directions are the same at every step.
    """
    w = sample_codes(generator, codes, seed=seed)
    std = sample_codes(generator, 4096, seed=seed + 1).std(dim=0)
    source = torch.Generator().manual_seed(seed + 2)
    found: dict[float, list[Tensor]] = {step: [] for step in steps}
    for batch in w.split(50):
        images = normalize(image_encoder(generator.synthesis(batch)).float(), dim=1)
        direction = torch.randn(len(batch), distractors, w.shape[1], generator=source).to(w.device) * std
        own = (images * _embed(latent_encoder, batch)).sum(dim=1)
        for step in steps:
            near = _embed(latent_encoder, (batch[:, None] + step * direction).flatten(0, 1))
            rivals = torch.einsum("ne,nde->nd", images, near.unflatten(0, (len(batch), distractors)))
            found[step].append((own[:, None] > rivals).all(dim=1))
    return {step: torch.cat(hits).double().mean().item() for step, hits in found.items()}


def _embed(latent_encoder: Callable[[Tensor], Tensor], w: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
    return normalize(latent_encoder(w).float(), dim=1)
