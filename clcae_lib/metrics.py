"""Numbers for pictures and for sets of pictures.

Per image: mean squared error, PSNR, SSIM (Wang et al. 2004), as in section 4.2 of arXiv 2211.11448, and
MS-SSIM. Per set: the Fréchet distance (Heusel et al. 2017), the kernel distance (Bińkowski et al. 2018),
manifold precision and recall (Kynkäänniemi et al. 2019), and how far apart single factors are distributed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import wasserstein_distance
from torch import Tensor
from torch.nn.functional import normalize

from clcae_lib import vision_repair

PEAK = 2.0
"""From black, -1, to white, 1."""


def mse(images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """The mean squared difference of each pair; images are clipped to [-1, 1], as a saved picture is."""
    return (images.clamp(-1, 1) - targets.clamp(-1, 1)).square().mean(dim=(1, 2, 3))


def psnr(images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """The peak signal-to-noise ratio of each pair in dB; 106 where the two are equal, so that means exist."""
    return 10 * torch.log10(PEAK**2 / mse(images, targets).clamp(min=1e-10))


def ssim(images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """The structural similarity of each pair, 1 where equal; Gaussian window of 11 pixels."""
    vision_repair.ensure_torchvision()
    from torchmetrics.functional.image import structural_similarity_index_measure

    pair = (picture.float().clamp(-1, 1) for picture in (images, targets))
    return structural_similarity_index_measure(*pair, data_range=PEAK, reduction="none").reshape(len(images))


_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, found with observers
_WINDOW = 11


def ms_ssim_scales(side: int) -> int:
    """How many of the five scales of MS-SSIM pictures of this side have room for: 3 at 64 pixels, 5 from 176.

    At the coarsest, the window of 11 pixels must still fit.

    Raises:
        ValueError: not even one fits.
    """
    fitting = [k for k in range(1, 6) if side // 2 ** (k - 1) >= _WINDOW]
    if not fitting:
        raise ValueError(f"ms_ssim: pictures of {side} pixels are smaller than its window of {_WINDOW}")
    return fitting[-1]


def ms_ssim(images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """The multi-scale structural similarity of each pair (Wang et al. 2003), 1 where equal, 0 to 1.

    Small pictures have no room for all five scales: `ms_ssim_scales` says how many are used, and their
    weights
    are divided by their sum. Values of different numbers of scales must not be compared. Negative terms count
    as 0, as torchmetrics' `normalize="relu"` does it.
    """
    vision_repair.ensure_torchvision()
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    weights = _SCALE_WEIGHTS[: ms_ssim_scales(min(images.shape[-2:]))]
    pair = (picture.float().clamp(-1, 1) for picture in (images, targets))
    options = {"data_range": PEAK, "reduction": "none", "normalize": "relu"}
    betas = tuple(weight / sum(weights) for weight in weights)
    return multiscale_structural_similarity_index_measure(*pair, betas=betas, **options).reshape(len(images))


def frechet_distance(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """The squared 2-Wasserstein distance of two Gaussians with the features' means and covariances.

    `|mean difference|^2 + trace(A + B - 2 sqrt(A^1/2 B A^1/2))`, in float64 by symmetric eigenvalues, which
    stay real where the usual `sqrtm(A B)` does not.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"frechet_distance: needs two rows or more in each set, got {len(a)} and {len(b)}")
    a, b = a.double(), b.double()
    root = _symmetric_root(torch.cov(a.T).reshape(a.shape[1], -1))
    covariance = torch.cov(b.T).reshape(a.shape[1], -1)
    cross = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
    spread = a.var(dim=0).sum() + b.var(dim=0).sum() - 2 * cross
    return ((a.mean(dim=0) - b.mean(dim=0)).square().sum() + spread).clamp(min=0).item()


def _symmetric_root(matrix: Float[Tensor, "f f"]) -> Float[Tensor, "f f"]:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def kernel_distance(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """The unbiased squared maximum mean discrepancy under the kernel `(x.y / f + 1)^3`."""
    a, b = a.double(), b.double()
    within = [(_cubic(x, x).sum() - _cubic(x, x).diagonal().sum()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return (within[0] + within[1] - 2 * _cubic(a, b).mean()).item()


def _cubic(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> Float[Tensor, "n m"]:
    return (a @ b.T / a.shape[1] + 1) ** 3


@dataclass(frozen=True)
class PrecisionRecall:
    """The share of samples that look real, and the share of what is real that the samples cover; 0 to 1."""

    precision: float
    recall: float


def precision_recall(
    samples: Float[Tensor, "n f"], reals: Float[Tensor, "m f"], *, neighbours: int = 3, chunk: int = 1024
) -> PrecisionRecall:
    """Manifold precision and recall: a set's manifold is the union of balls out to each k-th neighbour.

    Args:
        samples: features of generated pictures.
        reals: features of real ones.
        neighbours: k; the ball of a point reaches its k-th nearest other point.
        chunk: rows compared at once.

    Raises:
        ValueError: a set has no k-th neighbour.
    """
    if min(len(samples), len(reals)) <= neighbours:
        raise ValueError(f"precision_recall: needs more than neighbours={neighbours} rows in each set")
    samples, reals = samples.double(), reals.double()
    return PrecisionRecall(
        precision=_covered(samples, reals, neighbours=neighbours, chunk=chunk),
        recall=_covered(reals, samples, neighbours=neighbours, chunk=chunk),
    )


def _covered(points: Tensor, centres: Tensor, *, neighbours: int, chunk: int) -> float:
    """The share of points inside any centre's ball."""
    radii = torch.cat(
        [torch.cdist(part, centres).kthvalue(neighbours + 1, dim=1).values for part in centres.split(chunk)]
    )
    inside = [(torch.cdist(part, centres) <= radii).any(dim=1) for part in points.split(chunk)]
    return torch.cat(inside).double().mean().item()


def factor_distribution_distance(
    a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], *, std: Float[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """How far apart two sets' distributions of each factor lie: 1-Wasserstein, in units of `std`."""
    columns = zip(a.double().T.cpu().numpy(), b.double().T.cpu().numpy(), std.tolist(), strict=True)
    return torch.tensor([wasserstein_distance(x, y) / scale for x, y, scale in columns])


def r_squared(predicted: Float[Tensor, "n k"], truth: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """The share of each column's variance that is predicted: 1 at best, 0 for its mean, or even less."""
    error = (predicted - truth).double().square().sum(dim=0)
    return 1 - error / (truth - truth.mean(dim=0)).double().square().sum(dim=0)


@torch.no_grad()
def recall_at_k(
    queries: Float[Tensor, "m e"],
    keys: Float[Tensor, "n e"],
    ks: Sequence[int] = (1, 10),
    *,
    chunk: int = 1024,
) -> dict[int, float]:
    """The share (0 to 1) of queries whose own key, the one in the same row, is among the k most similar keys.

    Similarity is the cosine. A tie counts against the query, so a collapsed embedding scores zero, and
    so does one that is not a number.

    Args:
        queries: one embedding a row.
        keys: row i belongs to query i. Swap the two arguments for the other direction.
        ks: how far down the ranking the key may be.
        chunk: rows compared at once; memory is `chunk * n` floats.

    Raises:
        ValueError: the two do not have the same, positive number of rows.
    """
    if queries.shape != keys.shape or len(queries) == 0:
        shapes = f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)}"
        raise ValueError(f"recall_at_k: {shapes} must be pairs, row by row")
    queries, keys = normalize(queries.float(), dim=1), normalize(keys.float(), dim=1)
    ranks = torch.cat([_ranks(queries[i : i + chunk], keys, first=i) for i in range(0, len(queries), chunk)])
    return {k: (ranks < k).double().mean().item() for k in ks}


def _ranks(queries: Float[Tensor, "c e"], keys: Float[Tensor, "n e"], *, first: int) -> Tensor:
    """For each query the number of foreign keys not less similar than its own."""
    similarity = queries @ keys.T
    rows = torch.arange(len(queries), device=similarity.device)
    own = similarity[rows, rows + first]
    return (~(similarity < own[:, None])).sum(dim=1) - 1
