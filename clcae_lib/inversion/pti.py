"""Pivotal tuning (arXiv 2106.05744): a code in W that is editable, then a generator of the picture's own.

The pivot is near the picture but cannot be the picture. So the generator is tuned until the pivot gives it,
and held elsewhere to what it gave before (section 3.3). The synthesis network is tuned, the mapping is not.

Each picture keeps its own copy: 3.4 MB for the portraits' generator of 0.85 million parameters, 115 MB for a
published one at 1024 pixels, which is then best inverted a few pictures at a time. Tuning goes picture by
picture, since weights that differ share no convolution, and so does every later decoding.
"""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from clcae_lib.inversion._budget import Budget, Clock
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.inversion.inverter import Inverter
from clcae_lib.inversion.optimisation import OptimisationInverter, objective_name, picture_loss, schedule

MAPPING = "style."
Tensors = Mapping[str, Tensor]


class PtiInverter:
    """A pivot in W for each picture, then Adam on the weights of a generator of its own.

    Args:
        pivot: finds the pivots, by optimisation in W or by an encoder; it is its generator that is tuned.
        perceptual: distance of two batches of images, or None to leave the term out.
        steps: of tuning, for each picture.
        lr: the learning rate of tuning; level, and falling to zero in the last quarter.
        perceptual_weight: beside the mean squared error, in both terms.
        locality_weight: of staying what the generator was at codes around the pivot.
        locality_distance: how far from the pivot those codes are, as a share of the spread of W.
        locality_every: the term is added at every so many steps.
        max_seconds: for a whole call of `invert`, None for no limit; an optimised pivot gets `pivot_share` of
            it.
        pivot_share: see there.
        seed: of the codes around the pivot.
        clock: gives seconds.

    Attributes:
        taken: how many steps of tuning each picture of the last call was given.
    """

    def __init__(
        self,
        pivot: Inverter,
        perceptual: nn.Module | Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        steps: int = 200,
        lr: float = 0.001,
        perceptual_weight: float = 0.2,
        locality_weight: float = 0.1,
        locality_distance: float = 1.0,
        locality_every: int = 4,
        max_seconds: float | None = None,
        pivot_share: float = 0.4,
        seed: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.pivot, self.generator, self.perceptual = pivot, pivot.generator, perceptual
        self.steps, self.lr, self.perceptual_weight = steps, lr, perceptual_weight
        self.locality_weight, self.locality_distance = locality_weight, locality_distance
        self.locality_every, self.seed, self.clock = locality_every, seed, clock
        self.max_seconds, self.pivot_share = max_seconds, pivot_share
        self.taken: list[int] = []

    @property
    def objective(self) -> str:
        """What tuning minimises for each image, with the perceptual distance by name."""
        return objective_name(self.perceptual, self.perceptual_weight)

    def invert(self, images: Float[Tensor, "batch 3 side side"], *, progress: bool = False) -> Inversion:
        """The pivots of images in [-1, 1], with the weights tuned for each.

        Args:
            images: any number of them.
            progress: whether to show a bar.
        """
        start = self.clock()
        images = images.to(self.generator.w_avg.device)
        pivots = self._pivots(images)
        left = None if self.max_seconds is None else max(1e-9, self.max_seconds - (self.clock() - start))
        budget = Budget(self.steps, left, len(images), clock=self.clock)
        self.taken, found = [], []
        for i in tqdm(range(len(images)), desc="tune", disable=not progress):
            found.append(self._tune(images[i : i + 1], pivots[i], budget))
        return Inversion.cat(found)

    @torch.no_grad()
    def _pivots(self, images: Tensor) -> Inversion:
        """Codes of W, with noise maps where optimisation found some."""
        pivot = self.pivot
        if self.max_seconds is not None and isinstance(pivot, OptimisationInverter):
            pivot = copy.copy(pivot)
            pivot.max_seconds = self.pivot_share * self.max_seconds
        found = pivot.invert(images)
        plain = Inversion.from_w(found.w, self.generator)
        return replace(plain, decoder=found.decoder.tuned({}))

    def _tune(self, target: Tensor, pivot: Inversion, budget: Budget) -> Inversion:
        """One picture's generator: its pivot, with the weights in front of their noise maps."""
        weights = self._weights()
        optimizer = torch.optim.Adam(list(weights.values()), lr=self.lr)
        source, taken = torch.Generator().manual_seed(self.seed), 0
        with torch.enable_grad():
            for done in budget.progress(1):
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * schedule(done, 1.0)
                optimizer.zero_grad(set_to_none=True)
                picture = pivot.decoder.tuned(weights).decode(self.generator, pivot.w)
                loss = picture_loss(picture, target, self.perceptual, self.perceptual_weight)
                if self.locality_weight > 0 and taken % self.locality_every == 0:
                    loss = loss + self.locality_weight * self._drift(pivot, weights, source)
                loss.backward()
                optimizer.step()
                taken += 1
        self.taken.append(taken)
        found = {name: value.detach() for name, value in weights.items()}
        return replace(pivot, decoder=pivot.decoder.tuned(found))

    def _weights(self) -> Tensors:
        """The synthesis network's weights, copied, with a batch of one in front."""
        named = self.generator.named_parameters()
        return {
            name: value.detach().clone()[None].requires_grad_()
            for name, value in named
            if not name.startswith(MAPPING)
        }

    def _drift(self, pivot: Inversion, weights: Tensors, source: torch.Generator) -> Tensor:
        """How far the picture of a code around the pivot is from what it was before (section 3.3)."""
        w = pivot.w
        with torch.no_grad():
            other = self.generator.sample_w(1, generator=source)
            reach = self.locality_distance * self.generator.w_std.square().sum().sqrt()
            near = w + reach * (other - w) / (other - w).norm(dim=1, keepdim=True).clamp(min=1e-8)
            before = pivot.decoder.decode(self.generator, near)
        now = pivot.decoder.tuned(weights).decode(self.generator, near)
        return picture_loss(now, before, self.perceptual, self.perceptual_weight)
