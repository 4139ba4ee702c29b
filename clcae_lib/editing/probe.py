"""Linear probes of factors in codes or embeddings, and directions that are gradients of such a probe.

`alignment_probe` is this project's own finder: the latent encoder of the alignment (arXiv 2211.11448, section
3.1) embeds codes, a linear probe there is a smooth function of w, and its mean gradient is a direction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from clcae_lib.editing.direction import Direction
from clcae_lib.editing.response import Labelled

TESTED = 0.2
"""Share of the codes, the last ones, that a probe is tested on."""


@dataclass(frozen=True)
class LinearProbe:
    """Factors as an affine function of features."""

    weight: Float[Tensor, "d k"]
    bias: Float[Tensor, " k"]

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Return the predicted factors."""
        return features @ self.weight + self.bias


def fit_probe(
    features: Float[Tensor, "n d"], targets: Float[Tensor, "n k"], *, penalty: float = 1e-2
) -> LinearProbe:
    """Return a ridge regression of the targets, in closed form.

    Args:
        features: embeddings of sampled codes, or the codes.
        targets: factors of the codes, in any unit.
        penalty: ridge penalty, in units of the features' mean variance.
    """
    x, y = features.double(), targets.double()
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    covariance = x.T @ x / len(x)
    ridge = penalty * covariance.diagonal().mean() * torch.eye(x.shape[1]).to(x)
    weight = torch.linalg.solve(covariance + ridge, x.T @ y / len(x)).to(features)
    return LinearProbe(weight, targets.mean(dim=0) - features.mean(dim=0) @ weight)


def held_out_r_squared(
    features: Float[Tensor, "n d"], targets: Float[Tensor, "n k"], *, penalty: float = 1e-2
) -> Float[Tensor, " k"]:
    """Return the share of each target's variance that a probe explains on the last fifth of the rows.

    The probe is fitted on the other rows. The share is 1 at best, and 0 or less if it predicts nothing.
    """
    cut = len(features) - int(TESTED * len(features))
    probe = fit_probe(features[:cut], targets[:cut], penalty=penalty)
    test = targets[cut:]
    error = (probe(features[cut:]) - test).square().sum(dim=0)
    return 1 - error / (test - test.mean(dim=0)).square().sum(dim=0).clamp(min=1e-12)


def alignment_probe(
    encoder: Callable[[Tensor], Tensor],
    labelled: Labelled,
    columns: Mapping[str, int],
    *,
    penalty: float = 1e-2,
) -> dict[str, Direction]:
    """Return one direction in W for each factor: the mean gradient of its linear probe in the embedding.

    Args:
        encoder: latent encoder of the alignment, codes `[N, D]` to embeddings `[N, E]`, differentiable.
        columns: columns of the factors, by name.
    """
    with torch.no_grad():
        embedded = encoder(labelled.w)
    targets = labelled.factors[:, list(columns.values())]
    probe, score = fit_probe(embedded, targets, penalty=penalty), held_out_r_squared(embedded, targets)
    codes = labelled.w.detach().clone().requires_grad_()
    with torch.enable_grad():
        readings = probe(encoder(codes)).sum(dim=0)
    found = {}
    for reading, name, r_squared in zip(readings, columns, score.tolist(), strict=True):
        gradient = torch.autograd.grad(reading, codes, retain_graph=True)[0].mean(dim=0)
        facts = {"method": "alignment", "codes": len(codes), "penalty": penalty, "r_squared": r_squared}
        found[name] = Direction(normalize(gradient, dim=0), name, provenance=facts)
    return found
