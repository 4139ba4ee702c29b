"""SeFa as the official code runs it, slips included, so that its edits can be redone (arXiv 2007.06600)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.editing.direction import Direction
from clcae_lib.editing.sefa import weight_matrix


def published_sefa(
    generator: nn.Module, *, layers: Sequence[int] | None = None, count: int = 20
) -> list[Direction]:
    """The directions as the official code returns them: in its solver's order, on its rows of W+.

    It takes the symmetric matrix for a general one, so that the order is almost, not always, that of the
    eigenvalues; and a layer k edits row k - 1, so that layer 0, which counts in the matrix, edits none.
    Strength 1 is a length of 1, signs are the solver's.

    Raises:
        ValueError: a layer does not exist.
    """
    matrix, chosen = weight_matrix(generator, layers)
    vectors = published_eigen(matrix)[1]
    rows = tuple(k - 1 for k in chosen if k > 0)
    return [
        Direction(
            vector.float(), f"eigenvector {i}", "w_plus", 1.0, rows, {"method": "sefa", "preset": "published"}
        )
        for i, vector in enumerate(vectors[:count])
    ]


def published_eigen(matrix: Float[Tensor, "d d"]) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Eigenvalues and eigenvectors, one a row, in the order a solver for general matrices finds them."""
    values, vectors = torch.linalg.eig(matrix)
    return values.real, vectors.real.T.contiguous()
