"""InterFaceGAN (arXiv 1907.10786): the normal of the plane between codes with and without an attribute."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clcae_lib.editing.direction import Direction


def interfacegan(
    w: Float[Tensor, "n d"],
    scores: Float[Tensor, " n"],
    *,
    name: str,
    share: float = 0.1,
    penalty: float = 1e-3,
    seed: int = 0,
) -> Direction:
    """Return the unit normal, toward higher scores, of a linear support vector machine between the extremes.

    Codes are divided by the root mean square of their standard deviations, so that `penalty` means the same
    for every generator.

    Args:
        scores: attribute of each code's image, as a network reads it, in any unit.
        share: share of the codes that is taken from each end, at most 0.5.
        penalty: parameter C of the machine; with smaller values the normal tends to the difference of the
            means.

    Raises:
        ValueError: an end has fewer than two codes, or both ends have the same scores.
    """
    from sklearn.svm import LinearSVC

    count = int(share * len(w))
    if not 0 < share <= 0.5 or count < 2:
        raise ValueError(f"share={share} of {len(w)} codes selects {count} at each end; 2 or more are needed")
    order = scores.argsort()
    low, high = order[:count], order[-count:]
    if scores[low].max() >= scores[high].min():
        raise ValueError(f"{name}: the ends overlap at score {scores[low].max():.4g}; take a smaller share")
    codes = w[torch.cat([low, high])].double()
    codes = ((codes - codes.mean(dim=0)) / codes.std(dim=0).square().mean().sqrt()).cpu().numpy()
    labels = torch.arange(2).repeat_interleave(count).numpy()
    machine = LinearSVC(C=penalty, dual=False, random_state=seed).fit(codes, labels)
    accuracy = float(machine.score(codes, labels))
    vector = normalize(torch.from_numpy(machine.coef_[0]), dim=0).to(w)
    facts = {"method": "interfacegan", "codes": len(w), "share": share, "penalty": penalty}
    return Direction(vector, name, provenance=facts | {"accuracy": accuracy, "seed": seed})


def condition(direction: Direction, others: Sequence[Direction]) -> Direction:
    """Return the direction, in W, projected onto the orthogonal complement of other directions in W.

    Raises:
        ValueError: the direction is in the span of the others.
    """
    if not others:
        return direction
    basis, _ = torch.linalg.qr(torch.stack([other.vector.double() for other in others], dim=1))
    vector = direction.vector.double()
    rest = vector - basis @ (basis.T @ vector)
    if rest.norm() < 1e-6 * vector.norm():
        names = ", ".join(other.name for other in others)
        raise ValueError(f"{direction.name} is in the span of {names}: nothing is left to edit with")
    facts = direction.provenance | {"conditioned_on": [other.name for other in others]}
    return replace(direction, vector=normalize(rest, dim=0).to(direction.vector), provenance=facts)
