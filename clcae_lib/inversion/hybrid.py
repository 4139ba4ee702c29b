"""An encoder's answer, then a few steps of optimisation from there (as in arXiv 1609.03552, section 3.4)."""

import time
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.inversion._budget import Clock
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.inversion.inverter import Inverter
from clcae_lib.inversion.optimisation import OptimisationInverter, objective_name


class HybridInverter:
    """Any encoder's codes, refined in the last of its spaces: W+, and F with it where the encoder has F.

    `w` stays the encoder's. There is no noise on the code, which would throw away where the encoder came to.

    Args:
        encoder: gives the codes to begin with, and the generator.
        perceptual: distance of two batches of images, or None to leave the term out.
        steps: of Adam; with 0 the encoder's codes are the answer.
        lr: the highest learning rate, in standard deviations of W a step.
        perceptual_weight: beside the mean squared error.
        feature_weight: of F's distance from the encoder's, in standard deviations of the activation.
        max_seconds: for a whole call of `invert`, the encoder's pass included; None for no limit.
        seed: taken as the other methods take one; nothing is drawn here.
        clock: gives seconds.

    Attributes:
        taken: how many steps each batch of the last call was given.
    """

    def __init__(
        self,
        encoder: Inverter,
        perceptual: nn.Module | Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        steps: int = 50,
        lr: float = 0.05,
        perceptual_weight: float = 0.2,
        feature_weight: float = 0.03,
        max_seconds: float | None = None,
        seed: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.encoder, self.generator, self.perceptual = encoder, encoder.generator, perceptual
        self.steps, self.max_seconds, self.clock = steps, max_seconds, clock
        self.weights = {"perceptual_weight": perceptual_weight, "feature_weight": feature_weight}
        self.lr, self.seed = lr, seed
        self.taken: list[int] = []

    @property
    def objective(self) -> str:
        """What is minimised for each image, with the perceptual distance by name."""
        return objective_name(self.perceptual, self.weights["perceptual_weight"])

    def invert(
        self, images: Float[Tensor, "batch 3 side side"], *, batch_size: int = 32, progress: bool = False
    ) -> Inversion:
        """The refined codes of images in [-1, 1], `batch_size` of them optimised at once."""
        start = self.clock()
        with torch.no_grad():
            found = self.encoder.invert(images)
        left = None if self.max_seconds is None else max(1e-9, self.max_seconds - (self.clock() - start))
        search = OptimisationInverter(
            self.generator,
            self.perceptual,
            space=found.spaces[-1],
            steps=self.steps,
            lr=self.lr,
            wander=0.0,
            max_seconds=left,
            seed=self.seed,
            clock=self.clock,
            **self.weights,
        )
        refined = search.invert(images, start=found, batch_size=batch_size, progress=progress)
        self.taken = search.taken
        return refined
