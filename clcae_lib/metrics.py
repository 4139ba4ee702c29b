"""Measures of tensors: pairs of images, sets of images, and codes.

Per image: mean squared error, PSNR, SSIM (Wang et al. 2004), as in section 4.2 of arXiv 2211.11448, and
MS-SSIM. Per set: the Fréchet distance (Heusel et al. 2017), the kernel distance (Bińkowski et al. 2018),
manifold precision and recall (Kynkäänniemi et al. 2019), and the distance of factor distributions.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from scipy.stats import wasserstein_distance
from torch import Tensor
from torch.nn.functional import normalize

from clcae_lib import vision_repair

PEAK = 2.0
"""Range of images, from black, -1, to white, 1."""
DETAIL_THRESHOLD = 0.1
"""Pixels that differ by more than this, on [-1, 1], belong to a detail."""
DETAIL_PIXELS = 12
"""A detail of fewer pixels is not measured."""


def mse(images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Return the mean squared difference of each pair; images are clipped to [-1, 1], as a saved image is."""
    return (images.clamp(-1, 1) - targets.clamp(-1, 1)).square().mean(dim=(1, 2, 3))


def psnr(images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Return the peak signal-to-noise ratio of each pair in dB, 106 if they are equal."""
    return 10 * torch.log10(PEAK**2 / mse(images, targets).clamp(min=1e-10))


def ssim(images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Return the structural similarity of each pair, 1 if equal; Gaussian window of 11 pixels."""
    vision_repair.ensure_torchvision()
    from torchmetrics.functional.image import structural_similarity_index_measure

    pair = (batch.float().clamp(-1, 1) for batch in (images, targets))
    return structural_similarity_index_measure(*pair, data_range=PEAK, reduction="none").reshape(len(images))


_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, found with observers
_WINDOW = 11


def ms_ssim_scales(side: int) -> int:
    """Return how many of the five scales of MS-SSIM fit images of this side: 3 at 64 pixels, 5 from 176.

    At the coarsest scale, the window of 11 pixels must still fit; a ValueError if not even one scale does.
    """
    fitting = [k for k in range(1, 6) if side // 2 ** (k - 1) >= _WINDOW]
    if not fitting:
        raise ValueError(f"ms_ssim: images of {side} pixels are smaller than its window of {_WINDOW}")
    return fitting[-1]


def ms_ssim(images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
    """Return the multi-scale structural similarity of each pair (Wang et al. 2003), 0 to 1, 1 if equal.

    Small images use the first `ms_ssim_scales` scales, whose weights are divided by their sum. Values of
    different numbers of scales must not be compared. Negative terms count as 0 (torchmetrics'
    `normalize="relu"`).
    """
    vision_repair.ensure_torchvision()
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    weights = _SCALE_WEIGHTS[: ms_ssim_scales(min(images.shape[-2:]))]
    pair = (batch.float().clamp(-1, 1) for batch in (images, targets))
    options = {"data_range": PEAK, "reduction": "none", "normalize": "relu"}
    betas = tuple(weight / sum(weights) for weight in weights)
    return multiscale_structural_similarity_index_measure(*pair, betas=betas, **options).reshape(len(images))


def detail_kept(
    images: Float[Tensor, "n 3 h w"], worn: Float[Tensor, "n 3 h w"], bare: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, " n"]:
    """Return how much of a detail (a hat, an earring) images show: 1 is as in `worn`, 0 as in `bare`.

    Section 3.3 of arXiv 2211.11448 states that F keeps what W+ cannot. The measure is one minus the squared
    error under the detail over that of `bare`, and may be below 0. It is nan if the detail covers fewer than
    `DETAIL_PIXELS` pixels.

    Args:
        images: reconstructions of `worn`; or edited ones, if `worn` and `bare` show the edited person.
        worn: renders with the detail, in [-1, 1].
        bare: renders of the same people without it.
    """
    mask = (worn - bare).abs().amax(dim=1, keepdim=True) > DETAIL_THRESHOLD
    missed, all_of_it = (((x - worn).square() * mask).sum(dim=(1, 2, 3)) for x in (images, bare))
    visible = mask.sum(dim=(1, 2, 3)) >= DETAIL_PIXELS
    return torch.where(visible, 1 - missed / all_of_it.clamp(min=1e-12), float("nan"))


def frechet_distance(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """Return the squared 2-Wasserstein distance of two Gaussians with the features' means and covariances.

    `|mean difference|^2 + trace(A + B - 2 sqrt(A^1/2 B A^1/2))`, in float64 by symmetric eigenvalues, which
    stay real where the usual `sqrtm(A B)` does not. A set of fewer than two rows is a ValueError.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"frechet_distance: needs two rows or more in each set, got {len(a)} and {len(b)}")
    a, b = a.double(), b.double()
    values, vectors = torch.linalg.eigh(torch.cov(a.T).reshape(a.shape[1], -1))
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    covariance = torch.cov(b.T).reshape(a.shape[1], -1)
    cross = torch.linalg.eigvalsh(root @ covariance @ root).clamp(min=0).sqrt().sum()
    spread = a.var(dim=0).sum() + b.var(dim=0).sum() - 2 * cross
    return ((a.mean(dim=0) - b.mean(dim=0)).square().sum() + spread).clamp(min=0).item()


def kernel_distance(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> float:
    """Return the unbiased squared maximum mean discrepancy under the kernel `(x.y / f + 1)^3`."""
    a, b = a.double(), b.double()
    within = [(_cubic(x, x).sum() - _cubic(x, x).diagonal().sum()) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return (within[0] + within[1] - 2 * _cubic(a, b).mean()).item()


def _cubic(a: Float[Tensor, "n f"], b: Float[Tensor, "m f"]) -> Float[Tensor, "n m"]:
    return (a @ b.T / a.shape[1] + 1) ** 3


def precision_recall(
    samples: Float[Tensor, "n f"], reals: Float[Tensor, "m f"], *, neighbours: int = 3, chunk: int = 1024
) -> tuple[float, float]:
    """Return the share of samples that look real (precision) and of real images that samples cover (recall).

    A set's manifold is the union of balls around its points; the ball of a point reaches its k-th nearest
    other point, k being `neighbours`. `chunk` rows are compared together. A set of k rows or fewer is a
    ValueError.
    """
    if min(len(samples), len(reals)) <= neighbours:
        raise ValueError(f"precision_recall: needs more than neighbours={neighbours} rows in each set")

    def covered(points: Tensor, centres: Tensor) -> float:
        parts = [torch.cdist(x, centres).kthvalue(neighbours + 1, dim=1).values for x in centres.split(chunk)]
        radii = torch.cat(parts)
        inside = [(torch.cdist(x, centres) <= radii).any(dim=1) for x in points.split(chunk)]
        return torch.cat(inside).double().mean().item()

    samples, reals = samples.double(), reals.double()
    return covered(samples, reals), covered(reals, samples)


def factor_distribution_distance(
    a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], *, std: Float[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """Return the 1-Wasserstein distance of the two distributions of each factor, in units of `std`."""
    columns = zip(a.double().T.cpu().numpy(), b.double().T.cpu().numpy(), std.tolist(), strict=True)
    return torch.tensor([wasserstein_distance(x, y) / scale for x, y, scale in columns])


def r_squared(predicted: Float[Tensor, "n k"], truth: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
    """Return the share of each column's variance that is predicted: 1 at best, 0 for its mean, or less."""
    error = (predicted - truth).double().square().sum(dim=0)
    return 1 - error / (truth - truth.mean(dim=0)).double().square().sum(dim=0)


def code_distance(
    found: Float[Tensor, "n d"], truth: Float[Tensor, "n d"], *, w_std: Float[Tensor, " d"]
) -> Float[Tensor, " n"]:
    """Return the root mean square distance of each code to the true one, in standard deviations of W.

    The unit is the root mean square of `w_std`. The mean code is about 1 from a sample, two unrelated samples
    are about 1.4 apart.
    """
    return (found - truth).square().mean(dim=1).sqrt() / w_std.square().mean().sqrt()


@torch.no_grad()
def recall_at_k(
    queries: Float[Tensor, "m e"],
    keys: Float[Tensor, "n e"],
    ks: Sequence[int] = (1, 10),
    *,
    chunk: int = 1024,
) -> dict[int, float]:
    """Return the share (0 to 1) of queries whose own key, that of the same row, is among the k most similar.

    Similarity is the cosine. A tie counts against the query, so a collapsed embedding and one of nan score 0.
    Swap queries and keys for the other direction. `chunk` rows are compared together, in `chunk * n` floats.
    Different or no rows are a ValueError.
    """
    if queries.shape != keys.shape or len(queries) == 0:
        shapes = f"queries {tuple(queries.shape)} and keys {tuple(keys.shape)}"
        raise ValueError(f"recall_at_k: {shapes} must be pairs, row by row")
    queries, keys = normalize(queries.float(), dim=1), normalize(keys.float(), dim=1)
    ranks = []
    for first in range(0, len(queries), chunk):
        similarity = queries[first : first + chunk] @ keys.T
        own = similarity.diagonal(first)[:, None]
        ranks.append((~(similarity < own)).sum(dim=1) - 1)  # keys at least as similar as the query's own
    return {k: (torch.cat(ranks) < k).double().mean().item() for k in ks}
