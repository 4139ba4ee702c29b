"""All loss terms of all trainings.

CLCAE: contrastive alignment, reconstruction and feature terms (arXiv 2211.11448, sections 3.1 and 3.3).
Generator: relativistic pairing (arXiv 2501.05441) or the logistic loss (arXiv 1406.2661), with gradient
penalties (arXiv 1801.04406), and the distance of two batches' features (arXiv 1803.11188). e4e: length of the
offsets (arXiv 2102.02766).
"""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, logsigmoid, mse_loss, softplus

PairDistance = Callable[[Tensor, Tensor], Tensor]
Scalar = Float[Tensor, ""]
Scores = Float[Tensor, "..."]


class _Scaled(nn.Module):
    """The factor on similarities: 1 / temperature, trained as its logarithm and clamped to `max_scale`."""

    def __init__(self, scale: float, max_scale: float, learnable: bool) -> None:
        super().__init__()
        self.max_scale = max_scale
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learnable)

    @property
    def scale(self) -> Scalar:
        """The factor on similarities, at most `max_scale`."""
        return self.log_scale.exp().clamp(max=self.max_scale)


def contrastive_loss(
    images: Float[Tensor, "n d"],
    codes: Float[Tensor, "n d"],
    *,
    scale: Scalar,
    negatives: Float[Tensor, "m d"] | None = None,
) -> Scalar:
    """Return the symmetric cross-entropy of unit vectors in pairs, row by row (equation 1).

    Args:
        images: embedded images; each must be nearest to its own code.
        codes: embedded codes; each must be nearest to its own image.
        scale: 1 / temperature.
        negatives: further embedded codes, used only in the images' cross-entropy.
    """
    similarity = scale * images @ codes.T
    choices = similarity
    if negatives is not None:
        choices = torch.cat([similarity, scale * images @ negatives.T], dim=1)
    own = torch.arange(len(images), device=images.device)
    return 0.5 * cross_entropy(choices, own) + 0.5 * cross_entropy(similarity.T, own)


class ContrastiveLoss(_Scaled):
    """`contrastive_loss` with a trained temperature.

    The scale, 1 / temperature, is clamped to `max_scale`; without the clamp, training diverges.
    """

    def __init__(self, *, scale: float = 1 / 0.07, max_scale: float = 100.0, learnable: bool = True) -> None:
        super().__init__(scale, max_scale, learnable)

    def forward(
        self,
        images: Float[Tensor, "n d"],
        codes: Float[Tensor, "n d"],
        *,
        negatives: Float[Tensor, "m d"] | None = None,
    ) -> Scalar:
        """Return the loss, as `contrastive_loss`."""
        return contrastive_loss(images, codes, scale=self.scale, negatives=negatives)


class SigmoidContrastiveLoss(_Scaled):
    """Binary classification of each pair as match or no match (SigLIP, arXiv 2303.15343).

    The factor on similarities is at most `max_scale`; it and the bias are trained if `learnable`.
    """

    def __init__(self, *, scale: float = 10.0, max_scale: float = 100.0, learnable: bool = True) -> None:
        super().__init__(scale, max_scale, learnable)
        self.bias = nn.Parameter(torch.tensor(-10.0), requires_grad=learnable)

    def forward(
        self,
        images: Float[Tensor, "n d"],
        codes: Float[Tensor, "n d"],
        *,
        negatives: Float[Tensor, "m d"] | None = None,
    ) -> Scalar:
        """Return the loss of unit vectors in pairs: a sum over codes and a mean over images."""
        logits = self.scale * images @ codes.T + self.bias
        signs = 2 * torch.eye(len(images), device=images.device) - 1
        loss = -logsigmoid(signs * logits).sum() / len(images)
        if negatives is not None:
            loss = loss - logsigmoid(-self.scale * images @ negatives.T - self.bias).sum() / len(images)
        return loss


class PerceptualLoss(nn.Module):
    """A perceptual distance at one scale, or summed over three (full, half and quarter side).

    The official code computes the sum of three and then overwrites it with the first. `distance` maps two
    batches of images to `[N]`. If it has the attribute `repeats_targets`, it accepts fewer targets than
    images and repeats their features, which are then computed once.
    """

    def __init__(self, distance: PairDistance, *, scales: int = 1) -> None:
        super().__init__()
        if scales not in (1, 3):
            raise ValueError(f"lpips_scales={scales} is not 1 or 3")
        self.distance, self.scales = distance, scales
        self.repeats_targets = getattr(distance, "repeats_targets", False)

    def forward(
        self, images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "m 3 h w"]
    ) -> Float[Tensor, " n"]:
        """Return the distance of each image from its target; targets are repeated to the images' number."""
        if not self.repeats_targets:
            targets = targets.repeat(len(images) // len(targets), 1, 1, 1)
        total = self.distance(images, targets)
        for _ in range(self.scales - 1):
            images, targets = avg_pool2d(images, 2), avg_pool2d(targets, 2)
            total = total + self.distance(images, targets)
        return total


class IdentityLoss(nn.Module):
    """One minus the cosine between the identity embeddings, unit vectors, of two images."""

    def __init__(self, embed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embed = embed

    def forward(
        self, images: Float[Tensor, "m 3 h w"], targets: Float[Tensor, "n 3 h w"]
    ) -> Float[Tensor, " m"]:
        """Return 0 (same face) to 2; `targets` is repeated to the length of `images`, without gradient."""
        with torch.no_grad():
            wanted = self.embed(targets)
        return 1 - (self.embed(images) * wanted.repeat(len(images) // len(targets), 1)).sum(dim=1)


class ReconstructionLoss(nn.Module):
    """L2, perceptual and identity terms of several images of one target, computed in one batch.

    Terms whose distance is None are left out.
    """

    def __init__(
        self, *, perceptual: PerceptualLoss | None = None, identity: IdentityLoss | None = None
    ) -> None:
        super().__init__()
        self.perceptual, self.identity = perceptual, identity

    def forward(
        self, images: Mapping[str, Float[Tensor, "n 3 h w"]], target: Float[Tensor, "n 3 h w"]
    ) -> dict[str, dict[str, Scalar]]:
        """Return the mean of each term (`l2`, `perceptual`, `identity`) for each image, unweighted."""
        joined = torch.cat(list(images.values()))
        targets = target.repeat(len(images), 1, 1, 1)
        rows = {"l2": (joined - targets).square().mean(dim=(1, 2, 3))}
        if self.perceptual is not None:
            rows["perceptual"] = self.perceptual(joined, target)
        if self.identity is not None:
            rows["identity"] = self.identity(joined, target)
        shape = (len(images), len(target))
        means = {term: row.float().unflatten(0, shape).mean(dim=1) for term, row in rows.items()}
        return {name: {term: mean[i] for term, mean in means.items()} for i, name in enumerate(images)}


def feature_loss(feature: Float[Tensor, "n c h w"], activation: Float[Tensor, "n c h w"]) -> Scalar:
    """Return the mean squared distance of F from the generator's own activation, which has no gradient."""
    return mse_loss(feature.float(), activation.detach().float())


def feature_blend(step: int, steps: int, *, ramp: str = "run", epoch: int = 1000) -> float:
    """Return the share of F in the generator's activation, 0 to 1, at a step of the training.

    With the ramp `run` it rises once, over the first half of the run; with `epoch`, as published, from 0 to 1
    in every epoch, which has `epoch` steps. Another ramp is a ValueError.
    """
    if ramp == "run":
        return min(1.0, 2 * step / max(1, steps))
    if ramp == "epoch":
        return (step % epoch) / max(1, epoch - 1)
    raise ValueError(f"ramp={ramp!r} is not one of 'run', 'epoch'")


def discriminator_loss(real: Scores, fake: Scores, *, kind: str) -> Scalar:
    """Return the loss of fakes scored above their paired real ("relativistic") or above zero ("logistic")."""
    if kind == "relativistic":
        return softplus(fake - real).mean()
    return softplus(fake).mean() + softplus(-real).mean()


def generator_loss(real: Scores | None, fake: Scores, *, kind: str) -> Scalar:
    """Return the loss of fakes scored below their paired real ("relativistic") or below zero ("logistic")."""
    return softplus(real - fake).mean() if kind == "relativistic" else softplus(-fake).mean()


def gradient_penalty(scores: Scores, inputs: Float[Tensor, "n ..."]) -> Scalar:
    """Return the mean squared norm of the scores' gradient (R1 on real inputs, R2 on fakes).

    The gradient and its squares are float32. bfloat16 inside the network has the range of float32, so no
    scaling against under- or overflow is needed.
    """
    (gradient,) = torch.autograd.grad(scores.float().sum(), inputs, create_graph=True)
    return gradient.float().square().sum(dim=tuple(range(1, gradient.ndim))).mean()


def sliced_wasserstein(
    found: Float[Tensor, "n k"], wanted: Float[Tensor, "n k"], directions: Float[Tensor, "m k"]
) -> Scalar:
    """Return the squared Wasserstein distance of two batches, averaged over directions (arXiv 1803.11188).

    Along one direction, a unit vector, the optimal pairing of two batches is that of their sorted
    projections. Each column is in units of the standard deviation of `wanted`. Gradients flow to `found`.
    """
    wanted = wanted.detach()
    mean, std = wanted.mean(dim=0), wanted.std(dim=0).clamp(min=1e-3)
    projected = (((rows - mean) / std) @ directions.T for rows in (found, wanted))
    first, second = (rows.sort(dim=0).values for rows in projected)
    return (first - second).square().mean()


def delta_loss(deltas: Float[Tensor, "n l d"]) -> Scalar:
    """Return the mean over images of the offsets' lengths, summed over layers (e4e, equation 4)."""
    return torch.linalg.vector_norm(deltas.float(), dim=2).sum(dim=1).mean()
