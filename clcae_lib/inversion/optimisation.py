"""Inversion by optimisation, image by image: the slow baseline that every encoder is measured against.

Adam moves a code until its picture matches (as in arXiv 1904.03189 for W+, and arXiv 1912.04958, appendix D,
for W); nothing ties the code to where edits work.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from clcae_lib.inversion.inversion import SPACES, Inversion
from clcae_lib.models import Generator


class OptimisationInverter:
    """Adam on the codes of each picture, from the mean code, without noise; the network stays as it is.

    Steps are measured in standard deviations of W (and of the activation, for F), so that one learning rate
    suits every generator. It rises over the first twentieth of the steps and falls to zero along a cosine.

    Args:
        generator: what decodes the codes.
        perceptual: distance of two batches of images, or None to leave the term out.
        space: `w`, `w_plus`, or `f` (W+ and F together).
        steps: of Adam.
        lr: the highest learning rate.
        perceptual_weight: beside the mean squared error.

    Raises:
        ValueError: there is no such space.
    """

    def __init__(
        self,
        generator: Generator,
        perceptual: nn.Module | Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        space: str = "w_plus",
        steps: int = 500,
        lr: float = 0.1,
        perceptual_weight: float = 0.2,
    ) -> None:
        if space not in SPACES:
            raise ValueError(f"space={space!r} is not one of {', '.join(map(repr, SPACES))}")
        self.generator, self.perceptual, self.space = generator, perceptual, space
        self.steps, self.lr, self.perceptual_weight = steps, lr, perceptual_weight

    def invert(
        self, images: Float[Tensor, "batch 3 side side"], *, batch_size: int = 32, progress: bool = False
    ) -> Inversion:
        """The codes of images in [-1, 1]; with `w_plus` and `f`, `w` is the mean of the layers' codes."""
        batches = images.to(self.generator.w_avg.device).split(batch_size)
        return Inversion.cat([self._invert(batch, progress=progress) for batch in batches])

    def _invert(self, targets: Tensor, *, progress: bool) -> Inversion:
        variables = self._start(len(targets))
        optimizer = torch.optim.Adam(list(variables.values()), lr=self.lr)
        with torch.enable_grad():
            for step in tqdm(range(self.steps), desc=f"optimise {self.space}", disable=not progress):
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * _schedule(step, self.steps)
                optimizer.zero_grad(set_to_none=True)
                self._loss(self._codes(variables).decode(self.generator, self.space, noise="none"), targets)
                optimizer.step()
        return self._codes({name: value.detach() for name, value in variables.items()})

    def _start(self, count: int) -> dict[str, Tensor]:
        """Zeros: how far each code is from the mean one, in standard deviations."""
        generator = self.generator
        layers = (generator.n_latent,) if self.space != "w" else ()
        w_avg = generator.w_avg
        variables = {"code": torch.zeros(count, *layers, generator.style_dim, device=w_avg.device)}
        self._w_scale = generator.w_std.square().mean().sqrt()
        if self.space == "f":
            with torch.no_grad():
                features = generator.synthesis(w_avg[None], noise="none", return_features=True)[1]
            self._activation = features[5]
            variables["feature"] = torch.zeros(count, *features[5].shape[1:], device=w_avg.device)
        return {name: value.requires_grad_() for name, value in variables.items()}

    def _codes(self, variables: dict[str, Tensor]) -> Inversion:
        code = self.generator.w_avg + self._w_scale * variables["code"]
        if self.space == "w":
            return Inversion(code, code[:, None].expand(-1, self.generator.n_latent, -1))
        feature = None
        if self.space == "f":
            feature = self._activation + self._activation.std() * variables["feature"]
        return Inversion(code.mean(dim=1), code, feature)

    def _loss(self, pictures: Tensor, targets: Tensor) -> None:
        """Add the gradient of the batch's loss; a sum over pictures, so that each has its own optimum."""
        loss = (pictures - targets).square().mean(dim=(1, 2, 3)).sum()
        if self.perceptual is not None and self.perceptual_weight > 0:
            loss = loss + self.perceptual_weight * self.perceptual(pictures, targets).sum()
        loss.backward()


def _schedule(step: int, steps: int) -> float:
    """The learning rate's factor: up in the first twentieth, then down along a cosine."""
    done = step / max(1, steps)
    return min(1.0, done / 0.05 + 1 / max(1, steps)) * 0.5 * (1 + math.cos(math.pi * done))
