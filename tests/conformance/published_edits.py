"""GANSpace's and SeFa's edits as the official code of the paper makes them, faults included."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clcae_lib.editing import Components, Direction
from clcae_lib.models import Generator


def set_coordinate(
    w_plus: Tensor, components: Components, index: int, value: float, *, layers: Sequence[int]
) -> Tensor:
    """Return codes `[N, L, D]` moved until the coordinate of their row 0 along a component is `value`.

    It sets a coordinate, to which a `Direction` adds; the rows in `layers` all move by the same step.
    """
    vector, std = components.vectors[index].to(w_plus), components.std[index].to(w_plus)
    now = (w_plus[:, 0] - components.mean.to(w_plus)) @ vector / std
    edited = w_plus.clone()
    edited[:, list(layers)] += ((value - now) * std)[:, None, None] * vector
    return edited


def published_sefa(generator: Generator, layers: Sequence[int] | None, vectors: Tensor) -> list[Direction]:
    """Return SeFa's directions from eigenvectors, one per row, of `published_eigen`.

    A layer k edits row k - 1, so layer 0, which counts in the matrix, does not edit any.
    """
    rows = tuple(k - 1 for k in layers or range(1 + len(generator.convs)) if k > 0)
    return [Direction(v.float(), f"eigenvector {i}", "w_plus", 1.0, rows) for i, v in enumerate(vectors)]


def published_eigen(generator: Generator, layers: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """Return eigenvalues `[D]` and eigenvectors `[D, D]`, one per row, in the order of that solver."""
    modulated = [generator.conv1, *generator.convs]
    chosen = range(len(modulated)) if layers is None else layers
    rows = normalize(torch.cat([modulated[k].conv.modulation.weight.double() for k in chosen]), dim=1)
    values, vectors = torch.linalg.eig(rows.T @ rows)
    return values.real, vectors.real.T.contiguous()
