"""Pivotal tuning (arXiv 2106.05744): an editable code of W, then a generator tuned for each image.

The image of the pivot is near the given image but not equal. So the generator is tuned until it is, while the
images of other codes are kept unchanged (section 3.3). The mapping network is not tuned.

Each image keeps its own copy of the weights: 3.4 MB for the portraits' generator of 0.85 million parameters,
115 MB for a published one at 1024 pixels, which limits the number of images. Images are tuned and decoded one
at a time, because a convolution has one set of weights.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from clcae_lib.inversion.inversion import Inversion
from clcae_lib.inversion.inverter import Inverter
from clcae_lib.inversion.optimisation import Distance, Optimiser, Settings, schedule

MAPPING = "style."
PTI = Settings(steps=200, lr=0.001)
"""Settings of tuning; the pivot has its own settings."""


class PtiInverter(Optimiser):
    """Finds a pivot in W for each image, then tunes a copy of the generator's weights with Adam.

    Args:
        pivot: inverter that finds the pivots; its generator is tuned.
        settings: steps and learning rate of tuning, and the locality term.
    """

    def __init__(
        self, pivot: Inverter, perceptual: Distance | None = None, *, settings: Settings = PTI
    ) -> None:
        super().__init__(pivot.generator, perceptual, settings)
        self.pivot = pivot

    def invert(self, images: Float[Tensor, "n 3 h w"], *, progress: bool = False) -> Inversion:
        """Return the pivots of images in [-1, 1], with the weights tuned for each; `progress` shows a bar."""
        images, found = images.to(self.generator.w_avg.device), []
        with torch.no_grad():
            pivots = self.pivot.invert(images)
        codes = Inversion.from_w(pivots.w, self.generator)
        pivots = replace(codes, decoder=pivots.decoder.tuned({}))  # with noise maps if there are any
        for i in tqdm(range(len(images)), desc="tune", disable=not progress):
            found.append(self._tune(images[i : i + 1], pivots[i]))
        return Inversion.cat(found)

    def _tune(self, target: Tensor, pivot: Inversion) -> Inversion:
        """Return one image's pivot with its tuned weights."""
        settings, weights = self.settings, self._weights()
        optimizer = torch.optim.Adam(list(weights.values()), lr=settings.lr)
        source = torch.Generator().manual_seed(settings.seed)
        with torch.enable_grad():
            for step in range(settings.steps):
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * schedule(step / settings.steps, 1.0)
                optimizer.zero_grad(set_to_none=True)
                image = pivot.decoder.tuned(weights).decode(self.generator, pivot.w)
                loss = self.image_loss(image, target)
                if settings.locality_weight > 0 and step % settings.locality_every == 0:
                    loss = loss + settings.locality_weight * self._drift(pivot, weights, source)
                loss.backward()
                optimizer.step()
        tuned = {name: value.detach() for name, value in weights.items()}
        return replace(pivot, decoder=pivot.decoder.tuned(tuned))

    def _weights(self) -> dict[str, Tensor]:
        """Return a copy of the synthesis network's weights, with a batch dimension of one."""
        named = self.generator.named_parameters()
        return {
            name: value.detach().clone()[None].requires_grad_()
            for name, value in named
            if not name.startswith(MAPPING)
        }

    def _drift(self, pivot: Inversion, weights: Mapping[str, Tensor], source: torch.Generator) -> Tensor:
        """Return the change of the image of a code around the pivot (section 3.3)."""
        with torch.no_grad():
            other = self.generator.sample_w(1, generator=source)
            reach = self.generator.w_std.square().sum().sqrt()  # the spread of W
            step = other - pivot.w
            near = pivot.w + reach * step / step.norm(dim=1, keepdim=True).clamp(min=1e-8)
            before = pivot.decoder.decode(self.generator, near)
        return self.image_loss(pivot.decoder.tuned(weights).decode(self.generator, near), before)
