"""Inversion by optimisation, image by image: the slow baseline that every encoder is measured against.

In W it is the projector of StyleGAN2 (arXiv 1912.04958, appendix D): Adam from the mean code, a rate that
rises and falls, noise on the code that fades, noise maps of the picture's own, kept noise-like. In W+ (arXiv
1904.03189) every row has its code. In F (arXiv 2011.04058) the activation at 16x16 moves besides, and is held
near what the codes would give, so that they keep their say.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from clcae_lib.inversion import _noise
from clcae_lib.inversion._budget import Budget, Clock
from clcae_lib.inversion.decoder import Plain
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.models.backbone import to_encoder_side
from clcae_lib.spaces import SPACES, broadcast_w
from clcae_lib.worlds.perceptual import distance_name

RISE, FALL, QUIET = 0.05, 0.25, 0.75
"""Shares of the steps: the rate's rise and its fall; after the last, the code has no noise (appendix D)."""
WANDER = 0.05
"""Of the projector, made for 1000 steps: noise on a code of W, as a share of the spread of W. With 300 steps
it costs the portraits 0.9 dB against none."""

Variables = dict[str, Tensor]


class OptimisationInverter:
    """Adam on the codes of each picture, from the mean code or another start; the network stays as it is.

    Steps are measured in standard deviations of W (and of the activation, for F), so that one learning rate
    suits every generator. Where the generator uses noise, each picture's maps are optimised too.

    Args:
        generator: what decodes the codes.
        perceptual: distance of two batches of images, which are shown at 256 pixels at most, or None to leave
            the term out.
        space: `w`, `w_plus`, or `f` (W+ and F together).
        steps: of Adam.
        lr: the highest learning rate.
        perceptual_weight: beside the mean squared error.
        wander: noise on the code at the start, as a share of the spread of W (the root mean square distance
            from its mean); if None, the projector's `WANDER` in W, and none elsewhere.
        feature_weight: of the mean square of what F adds to the generator's own activation, in its standard
            deviations.
        noise_weight: of what makes the picture's noise maps unlike noise.
        max_seconds: for a whole call of `invert`; where it is short, the steps are fewer and the schedule
            fits them. None for no limit.
        seed: of the noise on the code.
        clock: gives seconds.

    Attributes:
        taken: how many steps each batch of the last call was given.

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
        wander: float | None = None,
        feature_weight: float = 0.03,
        noise_weight: float = 1e5,
        max_seconds: float | None = None,
        seed: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        if space not in SPACES:
            raise ValueError(f"space={space!r} is not one of {', '.join(map(repr, SPACES))}")
        self.generator, self.perceptual, self.space = generator, perceptual, space
        self.steps, self.lr, self.perceptual_weight = steps, lr, perceptual_weight
        self.wander = (WANDER if space == "w" else 0.0) if wander is None else wander
        self.feature_weight, self.noise_weight = feature_weight, noise_weight
        self.max_seconds, self.seed, self.clock = max_seconds, seed, clock
        self.taken: list[int] = []

    @property
    def objective(self) -> str:
        """What is minimised for each image, with the perceptual distance by name."""
        return objective_name(self.perceptual, self.perceptual_weight)

    def invert(
        self,
        images: Float[Tensor, "batch 3 side side"],
        *,
        start: Inversion | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> Inversion:
        """The codes of images in [-1, 1]; from the mean code, `w` is the mean of the layers' codes.

        Args:
            images: any number of them.
            start: where the search begins, one for each image; its `w` stays, unless the space is `w`.
            batch_size: how many are optimised at once; each has its own optimum.
            progress: whether to show a bar.
        """
        budget = Budget(self.steps, self.max_seconds, len(images), clock=self.clock)
        self.taken, found = [], []
        for first in range(0, len(images), batch_size):
            rows = slice(first, first + batch_size)
            targets = images[rows].to(self.generator.w_avg.device)
            begin = self._mean(len(targets)) if start is None else start[rows].to(targets.device)
            found.append(self.refine(targets, begin, budget, tied=start is None, bar=progress))
        return Inversion.cat(found)

    def refine(
        self,
        targets: Tensor,
        begin: Inversion,
        budget: Budget,
        *,
        tied: bool,
        bar: bool = False,
    ) -> Inversion:
        """One batch, from where it begins; `tied` makes `w` the mean of the rows of W+."""
        search = _Search(self, begin, tied=tied)
        source = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam(list(search.variables.values()), lr=self.lr)
        ticks = budget.progress(len(targets))
        taken = 0
        with torch.enable_grad():
            for done in tqdm(ticks, total=self.steps, desc=f"optimise {self.space}", disable=not bar):
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * schedule(done, 1 / self.steps)
                optimizer.zero_grad(set_to_none=True)
                offset = self.wander * max(0.0, 1 - done / QUIET) ** 2
                self._loss(search, search.codes(offset, source), targets).backward()
                optimizer.step()
                search.settle()
                taken += 1
        self.taken.append(taken)
        return begin if not taken else search.found()

    def _loss(self, search: "_Search", codes: Inversion, targets: Tensor) -> Tensor:
        """A sum over pictures, so that each has its own optimum."""
        pictures = codes.decode(self.generator, self.space)
        loss = picture_loss(pictures, targets, self.perceptual, self.perceptual_weight)
        if "feature" in search.variables:
            loss = loss + self.feature_weight * search.variables["feature"].square().mean(dim=(1, 2, 3)).sum()
        if search.maps:
            loss = loss + self.noise_weight * _noise.noise_regularization(search.maps.values())
        return loss

    def _mean(self, count: int) -> Inversion:
        """The mean code; its F, where that is sought, is what the generator makes of it."""
        generator = self.generator
        w = generator.w_avg.expand(count, -1)
        w_plus = broadcast_w(w, generator.n_latent)
        if self.space != "f":
            return Inversion(w, w_plus)
        with torch.no_grad():
            return Inversion(w, w_plus, generator.activation(w_plus))


class _Search:
    """What is optimised for a batch: steps away from where it began, zero at first, and noise maps."""

    def __init__(self, inverter: OptimisationInverter, begin: Inversion, *, tied: bool) -> None:
        self.generator, self.space, self.begin, self.tied = inverter.generator, inverter.space, begin, tied
        self.spread = self.generator.w_std.square().mean().sqrt()
        self.reach = self.spread * math.sqrt(self.generator.style_dim)
        self.variables: Variables = {"code": torch.zeros_like(begin.w if self.space == "w" else begin.w_plus)}
        if self.space == "f":
            if begin.feature is None:
                raise ValueError("start: an optimisation in space 'f' begins with an inversion that has F")
            self.begin = begin = replace(begin, decoder=begin.decoder.tuned({}))  # F is not restored
            self.side = begin.feature.shape[-1]
            with torch.no_grad():
                own = self._own(begin.w_plus, begin.decoder)
            self.residual, self.scale = begin.feature - own, own.std(dim=(1, 2, 3), keepdim=True)
            self.variables["feature"] = torch.zeros_like(own)
        self.maps = _noise.starting(self.generator, len(begin)) if self.generator.uses_noise else {}
        self.variables |= self.maps
        for value in self.variables.values():
            value.requires_grad_()

    def codes(self, wander: float = 0.0, source: torch.Generator | None = None) -> Inversion:
        """The codes as they are now, with noise on them that is the same for every picture of a batch."""
        step = self.spread * self.variables["code"]
        if wander > 0:
            drawn = torch.randn(step.shape[1:], generator=source).to(step)
            step = step + wander * self.reach * drawn
        begin = self.begin
        decoder = begin.decoder.tuned(self.maps) if self.maps else begin.decoder
        if self.space == "w":
            w = self.begin.w + step
            rows = broadcast_w(w, self.generator.n_latent)
            return replace(begin, w=w, w_plus=rows, decoder=decoder)
        w_plus = self.begin.w_plus + step
        w = w_plus.mean(dim=1) if self.tied else self.begin.w
        feature = self.begin.feature
        if self.space == "f":
            feature = self._own(w_plus, decoder) + self.residual + self.scale * self.variables["feature"]
        return replace(begin, w=w, w_plus=w_plus, feature=feature, decoder=decoder)

    def settle(self) -> None:
        """Noise maps back to mean 0 and deviation 1."""
        for value in self.maps.values():
            _noise.standardise_(value)

    def found(self) -> Inversion:
        """The codes without noise on them and without gradient."""
        with torch.no_grad():
            return self.codes().map(lambda part: part.detach().clone())

    def _own(self, w_plus: Tensor, decoder: Plain) -> Tensor:
        """The generator's activation for these codes."""
        return decoder.activation(self.generator, w_plus, side=self.side)


def picture_loss(
    pictures: Float[Tensor, "batch 3 side side"],
    targets: Float[Tensor, "batch 3 side side"],
    perceptual: nn.Module | Callable[[Tensor, Tensor], Tensor] | None,
    weight: float,
) -> Float[Tensor, ""]:
    """Mean squared error and `weight` times the perceptual distance, summed over pictures."""
    loss = (pictures - targets).square().mean(dim=(1, 2, 3)).sum()
    if perceptual is None or weight <= 0:
        return loss
    return loss + weight * perceptual(to_encoder_side(pictures), to_encoder_side(targets)).sum()


def objective_name(perceptual: nn.Module | Callable[[Tensor, Tensor], Tensor] | None, weight: float) -> str:
    """Return what `picture_loss` is called in a table, such as "L2 + 0.2 LPIPS-Alex"."""
    if perceptual is None or weight <= 0:
        return "L2"
    return f"L2 + {weight:g} {distance_name(perceptual)}"


def schedule(done: float, least: float = 0.0) -> float:
    """The learning rate's factor: up in a line, level, and down to zero along a cosine (appendix D).

    Args:
        done: share of the optimisation before this step.
        least: share of a step, so that the first one moves.
    """
    rise = min(1.0, (done + least) / RISE)
    fall = min(1.0, (1 - done) / FALL)
    return rise * (0.5 - 0.5 * math.cos(math.pi * fall))
