"""SeFa (arXiv 2007.06600): the directions that a generator's modulation weights amplify most."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from clcae_lib.editing.direction import Direction
from clcae_lib.editing.ganspace import signed


def sefa(generator: nn.Module, *, layers: Sequence[int] | None = None, count: int = 20) -> list[Direction]:
    """Return the leading eigenvectors of the modulation weights, the most amplified first.

    Layer k is the convolution that reads row k of W+: `conv1`, then each of `convs`. The weights of each
    channel are scaled to length 1. Two faults of the official code are corrected: it treats the symmetric
    matrix as a general one and sorts its eigenvectors wrongly, and it edits the row before a layer's own.

    Args:
        layers: layers that are factorised and edited; None for all of them and a direction in W.

    Raises:
        ValueError: a layer does not exist.
    """
    values, vectors = factorise(generator, layers=layers)
    space, rows = ("w", None) if layers is None else ("w_plus", tuple(layers))
    length = float(generator.w_std.norm()) if hasattr(generator, "w_std") else 1.0
    facts = [{"method": "sefa", "component": i, "eigenvalue": float(v)} for i, v in enumerate(values[:count])]
    chosen = zip(facts, vectors, strict=False)
    return [Direction(v, f"eigenvector {f['component']}", space, length, rows, f) for f, v in chosen]


def factorise(
    generator: nn.Module, *, layers: Sequence[int] | None = None
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Return all eigenvalues, falling, and eigenvectors, one per row, of the modulation weights of layers.

    Raises:
        ValueError: a layer does not exist.
    """
    modulated = [generator.conv1, *generator.convs]
    chosen = range(len(modulated)) if layers is None else layers
    if not chosen or not all(0 <= k < len(modulated) for k in chosen):
        raise ValueError(f"layers={list(chosen)}: the convolutions are 0 to {len(modulated) - 1}")
    weights = torch.cat([modulated[k].conv.modulation.weight.detach().double() for k in chosen])
    rows = normalize(weights, dim=1)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    return values.flip(0).float(), signed(vectors.T.flip(0)).float()
