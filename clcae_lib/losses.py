"""The terms of CLCAE's objective, one concept each (arXiv 2211.11448, sections 3.1 and 3.3)."""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, logsigmoid, mse_loss

PairDistance = Callable[[Tensor, Tensor], Tensor]


class _Scaled(nn.Module):
    """Holds what similarities are multiplied by: 1 / temperature, trained as its logarithm and clamped."""

    def __init__(self, scale: float, max_scale: float, learnable: bool) -> None:
        super().__init__()
        self.max_scale = max_scale
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learnable)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """The factor on similarities, at most `max_scale`."""
        return self.log_scale.exp().clamp(max=self.max_scale)


class ContrastiveLoss(_Scaled):
    """Symmetric cross-entropy: each picture must find its own code, and each code its own picture.

    Args:
        scale: 1 / temperature at the start; similarities are multiplied by it.
        max_scale: the scale is clamped to it, so that training cannot run away.
        learnable: whether the scale is trained.
    """

    def __init__(self, *, scale: float = 1 / 0.07, max_scale: float = 100.0, learnable: bool = True) -> None:
        super().__init__(scale, max_scale, learnable)

    def forward(
        self,
        images: Float[Tensor, "batch embedding"],
        codes: Float[Tensor, "batch embedding"],
        *,
        negatives: Float[Tensor, "bank embedding"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of unit vectors in pairs, row by row.

        `negatives` are embedded codes that belong to no picture here; they make the picture's choice harder.
        """
        similarity = self.scale * images @ codes.T
        choices = similarity
        if negatives is not None:
            choices = torch.cat([similarity, self.scale * images @ negatives.T], dim=1)
        own = torch.arange(len(images), device=images.device)
        return 0.5 * cross_entropy(choices, own) + 0.5 * cross_entropy(similarity.T, own)


class SigmoidContrastiveLoss(_Scaled):
    """Every pair judged alone, match or no match (SigLIP, arXiv 2303.15343); kinder to small batches.

    Args:
        scale: factor on similarities at the start.
        max_scale: the scale is clamped to it.
        learnable: whether scale and bias are trained.
    """

    def __init__(self, *, scale: float = 10.0, max_scale: float = 100.0, learnable: bool = True) -> None:
        super().__init__(scale, max_scale, learnable)
        self.bias = nn.Parameter(torch.tensor(-10.0), requires_grad=learnable)

    def forward(
        self,
        images: Float[Tensor, "batch embedding"],
        codes: Float[Tensor, "batch embedding"],
        *,
        negatives: Float[Tensor, "bank embedding"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of unit vectors in pairs, row by row, a sum over codes and a mean over pictures."""
        logits = self.scale * images @ codes.T + self.bias
        signs = 2 * torch.eye(len(images), device=images.device) - 1
        loss = -logsigmoid(signs * logits).sum() / len(images)
        if negatives is not None:
            loss = loss - logsigmoid(-self.scale * images @ negatives.T - self.bias).sum() / len(images)
        return loss


class PerceptualLoss(nn.Module):
    """A perceptual distance at one scale, or summed over three (full, half and quarter side).

    The official code computes the sum of three and then overwrites it with the first.

    Args:
        distance: two batches of images to `[batch]`.
        scales: 1 or 3.

    Raises:
        ValueError: another number of scales.
    """

    def __init__(self, distance: PairDistance, *, scales: int = 1) -> None:
        super().__init__()
        if scales not in (1, 3):
            raise ValueError(f"lpips_scales={scales} is not 1 or 3")
        self.distance, self.scales = distance, scales

    def forward(
        self, images: Float[Tensor, "batch 3 h w"], targets: Float[Tensor, "batch 3 h w"]
    ) -> Float[Tensor, " batch"]:
        """The distance of each image from its target."""
        total = self.distance(images, targets)
        for _ in range(self.scales - 1):
            images, targets = avg_pool2d(images, 2), avg_pool2d(targets, 2)
            total = total + self.distance(images, targets)
        return total


class IdentityLoss(nn.Module):
    """One minus the cosine between the identity embeddings of two images.

    Args:
        embed: images to unit vectors.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embed = embed

    def forward(
        self, images: Float[Tensor, "pictures 3 h w"], targets: Float[Tensor, "batch 3 h w"]
    ) -> Float[Tensor, " pictures"]:
        """0 for the same face, 2 at most; the targets, repeated as often as it takes, carry no gradient."""
        with torch.no_grad():
            wanted = self.embed(targets)
        return 1 - (self.embed(images) * wanted.repeat(len(images) // len(targets), 1)).sum(dim=1)


class ReconstructionLoss(nn.Module):
    """L2, perceptual and identity terms of several pictures of one target, all judged in one batch.

    Args:
        perceptual: distance of two batches, or None to leave the term out.
        identity: as `perceptual`.
    """

    def __init__(
        self, *, perceptual: PerceptualLoss | None = None, identity: IdentityLoss | None = None
    ) -> None:
        super().__init__()
        self.perceptual, self.identity = perceptual, identity

    def forward(
        self, pictures: Mapping[str, Float[Tensor, "batch 3 h w"]], target: Float[Tensor, "batch 3 h w"]
    ) -> dict[str, dict[str, Float[Tensor, ""]]]:
        """The mean of each term (`l2`, `perceptual`, `identity`) for each picture, unweighted."""
        joined = torch.cat(list(pictures.values()))
        targets = target.repeat(len(pictures), 1, 1, 1)
        rows = {"l2": (joined - targets).square().mean(dim=(1, 2, 3))}
        if self.perceptual is not None:
            rows["perceptual"] = self.perceptual(joined, targets)
        if self.identity is not None:
            rows["identity"] = self.identity(joined, target)
        shape = (len(pictures), len(target))
        means = {term: row.float().unflatten(0, shape).mean(dim=1) for term, row in rows.items()}
        return {name: {term: mean[i] for term, mean in means.items()} for i, name in enumerate(pictures)}


def feature_loss(
    feature: Float[Tensor, "batch channels h w"], activation: Float[Tensor, "batch channels h w"]
) -> Float[Tensor, ""]:
    """How far F is from the generator's own activation, which carries no gradient (mean square)."""
    return mse_loss(feature.float(), activation.detach().float())


def feature_blend(step: int, steps: int, *, ramp: str = "run", epoch: int = 1000) -> float:
    """How much of F replaces the generator's activation at a step of the training, 0 to 1.

    Args:
        step: from 0.
        steps: of the whole training.
        ramp: `run`: rises once, over the first half of the run; `epoch`: as published, from 0 to 1 within
            every epoch, then back.
        epoch: steps of an epoch.

    Raises:
        ValueError: `ramp` has another value.
    """
    if ramp == "run":
        return min(1.0, 2 * step / max(1, steps))
    if ramp == "epoch":
        return (step % epoch) / max(1, epoch - 1)
    raise ValueError(f"ramp={ramp!r} is not one of 'run', 'epoch'")
