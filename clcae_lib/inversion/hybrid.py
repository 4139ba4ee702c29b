"""An encoder's codes, refined by a few steps of optimisation (as in arXiv 1609.03552, section 3.4)."""

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.inversion.inversion import Inversion
from clcae_lib.inversion.inverter import Inverter
from clcae_lib.inversion.optimisation import Budget, Distance, OptimisationInverter, Optimiser, Settings

HYBRID = Settings(steps=50, lr=0.05, code_noise=0.0)
"""No noise on the code, which would move it away from the encoder's."""


class HybridInverter(Optimiser):
    """Any encoder's codes, refined in the last of its spaces: W+, and F with it where the encoder has F.

    `w` stays the encoder's.

    Args:
        encoder: inverter that gives the initial codes, and the generator.
        settings: steps and so on; with 0 steps the encoder's codes are returned. `max_seconds` includes the
            encoder's pass.
    """

    def __init__(
        self,
        encoder: Inverter,
        perceptual: Distance | None = None,
        *,
        settings: Settings = HYBRID,
    ) -> None:
        super().__init__(encoder.generator, perceptual, settings)
        self.encoder = encoder

    def invert(
        self, images: Float[Tensor, "n 3 h w"], *, batch_size: int = 32, progress: bool = False
    ) -> Inversion:
        """Return the refined codes of images in [-1, 1], optimised in batches."""
        options = {"budget": Budget(self.settings, len(images)), "batch_size": batch_size}
        with torch.no_grad():
            found = self.encoder.invert(images)
        search = OptimisationInverter(
            self.generator, self.perceptual, space=found.spaces[-1], settings=self.settings
        )
        refined = search.invert(images, start=found, progress=progress, **options)
        self.steps_taken = search.steps_taken
        return refined
