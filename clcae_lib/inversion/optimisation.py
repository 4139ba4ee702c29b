"""Inversion by optimisation of each image: the slow baseline that encoders are compared with.

In W it is the projector of StyleGAN2 (arXiv 1912.04958, appendix D): Adam from the mean code, a learning rate
that rises and falls, decreasing noise on the code, and separate noise maps for each image. In W+ (arXiv
1904.03189) every layer has its own code. In F (arXiv 2011.04058) the activation at 16x16 is optimised too,
and kept near the activation of the codes.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm.auto import tqdm

from clcae_lib.inversion.inversion import Inversion, Plain
from clcae_lib.inversion.inverter import Inverter
from clcae_lib.models import Generator
from clcae_lib.models.backbone import to_encoder_side
from clcae_lib.spaces import SPACES, broadcast_w
from clcae_lib.worlds.perceptual import distance_name

RISE, FALL, QUIET = 0.05, 0.25, 0.75
"""Shares of the steps: the learning rate's rise, its fall, and the time with noise on the code."""
CODE_NOISE = 0.05
"""The projector's noise on a code of W. With 300 steps it costs the portraits 0.9 dB."""
SMALLEST = 8
"""Side of the smallest map in the noise regularisation."""

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """Settings of the methods that optimise; the defaults are those of optimisation from the mean code.

    Attributes:
        steps: number of steps of Adam for each batch.
        lr: highest learning rate: of codes in standard deviations of W (of the activation, for F), so that
            one value suits every generator; of the weights with PTI.
        code_noise: noise on the code at the start, as a share of the spread of W (the root mean square
            distance from its mean); by default `CODE_NOISE` in W, and none elsewhere.
        feature_weight: weight of the mean square of the change of F's difference from the generator's own
            activation, in the activation's standard deviations.
        noise_weight: weight of the noise regularisation, where the generator uses noise.
        locality_weight: weight of PTI's locality term (arXiv 2106.05744, section 3.3).
        locality_every: that term is used once in this many steps.

    Raises:
        ValueError: `steps` is negative.
    """

    steps: int = 500
    lr: float = 0.1
    perceptual_weight: float = 0.2
    seed: int = 0
    code_noise: float | None = None
    feature_weight: float = 0.03
    noise_weight: float = 1e5
    locality_weight: float = 0.1
    locality_every: int = 4

    def __post_init__(self) -> None:
        """Refuse a number of steps below 0."""
        if self.steps < 0:
            raise ValueError(f"steps={self.steps}: give a number of optimisation steps, 0 or more")


HYBRID = Settings(steps=50, lr=0.05, code_noise=0.0)
"""Settings without noise on the code, which would move it away from the encoder's code."""


class Optimiser:
    """Base of the methods that optimise."""

    def __init__(self, generator: Generator, perceptual: Distance | None, settings: Settings) -> None:
        self.generator, self.perceptual, self.settings = generator, perceptual, settings

    @property
    def objective(self) -> str:
        """Name of the objective in tables, such as "L2 + 0.2 LPIPS-Alex"."""
        weight = self.settings.perceptual_weight
        if self.perceptual is None or weight <= 0:
            return "L2"
        return f"L2 + {weight:g} {distance_name(self.perceptual)}"

    def image_loss(self, images: Float[Tensor, "n 3 h w"], targets: Float[Tensor, "n 3 h w"]) -> Tensor:
        """Return mean squared error plus weighted perceptual distance, summed over images."""
        loss, weight = (images - targets).square().mean(dim=(1, 2, 3)).sum(), self.settings.perceptual_weight
        if self.perceptual is None or weight <= 0:
            return loss
        return loss + weight * self.perceptual(to_encoder_side(images), to_encoder_side(targets)).sum()


class OptimisationInverter(Optimiser):
    """Optimises the codes of each image with Adam, from the mean code or initial codes; weights are fixed.

    Where the generator uses noise, each image's noise maps are optimised too.

    Args:
        perceptual: distance of two batches of images of at most 256 pixels, or None to leave the term out.
        space: `w`, `w_plus`, or `f` (W+ and F together).

    Raises:
        ValueError: `space` is unknown.
    """

    def __init__(
        self,
        generator: Generator,
        perceptual: Distance | None = None,
        *,
        space: str = "w_plus",
        settings: Settings = Settings(),
    ) -> None:
        if space not in SPACES:
            raise ValueError(f"space={space!r} is not one of {', '.join(map(repr, SPACES))}")
        super().__init__(generator, perceptual, settings)
        self.space = space

    def invert(
        self,
        images: Float[Tensor, "n 3 h w"],
        *,
        start: Inversion | None = None,
        batch_size: int = 32,
        progress: bool = False,
    ) -> Inversion:
        """Return the codes of images in [-1, 1]; from the mean code, `w` is the mean of the layers' codes.

        Args:
            start: initial codes, one for each image; their `w` is kept, unless the space is `w`.
            batch_size: number of images optimised together; each has its own optimum.
        """
        found = []
        for first in range(0, len(images), batch_size):
            rows = slice(first, first + batch_size)
            targets = images[rows].to(self.generator.w_avg.device)
            begin = self._mean(len(targets)) if start is None else start[rows].to(targets.device)
            search = _Search(self, begin, tied=start is None)
            found.append(self._refine(search, targets, bar=progress))
        return Inversion.cat(found)

    def _refine(self, search: "_Search", targets: Tensor, *, bar: bool) -> Inversion:
        """Optimise one batch."""
        settings = self.settings
        source = torch.Generator().manual_seed(settings.seed)
        optimizer = torch.optim.Adam(list(search.variables.values()), lr=settings.lr)
        noise = settings.code_noise
        noise = (CODE_NOISE if self.space == "w" else 0.0) if noise is None else noise
        with torch.enable_grad():
            for step in tqdm(range(settings.steps), desc=f"optimise {self.space}", disable=not bar):
                done = step / settings.steps
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr * schedule(done, 1 / settings.steps)
                optimizer.zero_grad(set_to_none=True)
                codes = search.codes(noise * max(0.0, 1 - done / QUIET) ** 2, source)
                self._loss(search, codes, targets).backward()
                optimizer.step()
                for value in search.maps.values():
                    standardise_(value)
        return search.found() if settings.steps else search.begin

    def _loss(self, search: "_Search", codes: Inversion, targets: Tensor) -> Tensor:
        """Return the sum of the images' losses; each image has its own optimum."""
        settings = self.settings
        loss = self.image_loss(codes.decode(self.generator, self.space), targets)
        if "feature" in search.variables:
            added = search.variables["feature"].square().mean(dim=(1, 2, 3)).sum()
            loss = loss + settings.feature_weight * added
        if search.maps:
            loss = loss + settings.noise_weight * noise_regularization(search.maps.values())
        return loss

    @torch.no_grad()
    def _mean(self, count: int) -> Inversion:
        """Return the mean code; its F is the generator's own activation."""
        mean = Inversion.from_w(self.generator.w_avg.expand(count, -1), self.generator)
        return replace(mean, feature=self.generator.activation(mean.w_plus)) if self.space == "f" else mean


class HybridInverter(Optimiser):
    """Refines any encoder's codes by a few steps in its last space (as in arXiv 1609.03552, section 3.4).

    That is W+, and also F if the encoder has F; `w` is not changed.

    Args:
        encoder: inverter that gives the initial codes, and the generator.
        settings: settings of the optimisation; with 0 steps the encoder's codes are returned.
    """

    def __init__(
        self, encoder: Inverter, perceptual: Distance | None = None, *, settings: Settings = HYBRID
    ) -> None:
        super().__init__(encoder.generator, perceptual, settings)
        self.encoder = encoder

    @torch.no_grad()
    def invert(
        self, images: Float[Tensor, "n 3 h w"], *, batch_size: int = 32, progress: bool = False
    ) -> Inversion:
        """Return the refined codes of images in [-1, 1], optimised in batches."""
        found, options = self.encoder.invert(images), {"batch_size": batch_size, "progress": progress}
        shared = {"space": found.spaces[-1], "settings": self.settings}
        search = OptimisationInverter(self.generator, self.perceptual, **shared)
        return search.invert(images, start=found, **options)


class _Search:
    """The variables of a batch: offsets from the initial codes, zero at first, and noise maps."""

    def __init__(self, inverter: OptimisationInverter, begin: Inversion, *, tied: bool) -> None:
        """Create the variables; with `tied`, `w` is the mean of the layers' codes."""
        self.generator, self.space, self.begin, self.tied = inverter.generator, inverter.space, begin, tied
        self.spread = self.generator.w_std.square().mean().sqrt()
        self.reach = self.spread * math.sqrt(self.generator.style_dim)
        self.variables = {"code": torch.zeros_like(begin.w if self.space == "w" else begin.w_plus)}
        if self.space == "f":
            if begin.feature is None:
                raise ValueError("start: an optimisation in space 'f' begins with an inversion that has F")
            self.begin = begin = replace(begin, decoder=begin.decoder.tuned({}))  # F is not restored
            with torch.no_grad():
                own = self._own(begin.w_plus, begin.decoder)
            self.residual, self.scale = begin.feature - own, own.std(dim=(1, 2, 3), keepdim=True)
            self.variables["feature"] = torch.zeros_like(own)
        self.maps: dict[str, Tensor] = {}
        if self.generator.uses_noise:
            for name, stored in self.generator.noises.named_buffers():
                self.maps[f"noises.{name}"] = stored.detach().expand(len(begin), *stored.shape).clone()
        self.variables |= self.maps
        for value in self.variables.values():
            value.requires_grad_()

    def codes(self, noise: float = 0.0, source: torch.Generator | None = None) -> Inversion:
        """Return the current codes, plus noise that is the same for all images of a batch."""
        step = self.spread * self.variables["code"]
        if noise > 0:
            drawn = torch.randn(step.shape[1:], generator=source).to(step)
            step = step + noise * self.reach * drawn
        begin = self.begin
        decoder = begin.decoder.tuned(self.maps) if self.maps else begin.decoder
        if self.space == "w":
            w = begin.w + step
            rows = broadcast_w(w, self.generator.n_latent)
            return replace(begin, w=w, w_plus=rows, decoder=decoder)
        w_plus, feature = begin.w_plus + step, begin.feature
        w = w_plus.mean(dim=1) if self.tied else begin.w
        if self.space == "f":
            feature = self._own(w_plus, decoder) + self.residual + self.scale * self.variables["feature"]
        return replace(begin, w=w, w_plus=w_plus, feature=feature, decoder=decoder)

    @torch.no_grad()
    def found(self) -> Inversion:
        """Return the codes without noise and without gradient."""
        return self.codes().map(lambda part: part.detach().clone())

    def _own(self, w_plus: Tensor, decoder: Plain) -> Tensor:
        return decoder.activation(self.generator, w_plus, side=self.begin.feature.shape[-1])


def schedule(done: float, least: float = 0.0) -> float:
    """Return the learning rate's factor: linear warm-up, constant, cosine to zero (appendix D).

    Args:
        done: share of the optimisation before this step.
        least: share of one step, so that the first step is not zero.
    """
    rise = min(1.0, (done + least) / RISE)
    fall = min(1.0, (1 - done) / FALL)
    return rise * (0.5 - 0.5 * math.cos(math.pi * fall))


def noise_regularization(maps: Iterable[Float[Tensor, "n 1 1 h w"]]) -> Float[Tensor, ""]:
    """Return the noise regularisation: squared shift-1 autocorrelation over a pyramid (appendix D)."""
    total = torch.zeros(())
    for stacked in maps:
        value = stacked.flatten(0, 1)
        of_map = value.new_zeros(())
        while True:
            for axis in (2, 3):
                shifted = value.roll(1, dims=axis)
                of_map = of_map + (value * shifted).mean(dim=(1, 2, 3)).square().sum()
            if value.shape[-1] <= SMALLEST:
                break
            value = 2 * avg_pool2d(value, 2)  # the mean of four values has half their standard deviation
        total = total + of_map
    return total


@torch.no_grad()
def standardise_(maps: Float[Tensor, "n 1 1 h w"]) -> None:
    """Normalise each noise map to mean 0 and standard deviation 1, in place."""
    axes = (1, 2, 3, 4)
    maps.sub_(maps.mean(dim=axes, keepdim=True))
    maps.div_(maps.square().mean(dim=axes, keepdim=True).sqrt().clamp(min=1e-8))
