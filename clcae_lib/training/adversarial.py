"""Adversarial training of the world's StyleGAN2, from coarse to fine (arXiv 1912.04958 and 1710.10196).

The loss is relativistic pairing with R1 and R2 (arXiv 2501.05441) or the logistic one with R1, the
penalties every few steps (arXiv 1912.04958, appendix B). Stages of rising resolution train one full
generator that stops early; each has its own discriminator, seeded by the one before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.evaluation.generator import GeneratorMeasure
from clcae_lib.models.stylegan2 import Discriminator, Generator
from clcae_lib.training import _common as common
from clcae_lib.training._ema import half_life, update_average
from clcae_lib.training._generator_config import GeneratorConfig, Stage
from clcae_lib.training._logging import tile
from clcae_lib.training._objectives import discriminator_loss, generator_loss, gradient_penalty
from clcae_lib.training._seeds import Shuffled, step_generator
from clcae_lib.training.config import ConfigError
from clcae_lib.training.loop import Task, fit
from clcae_lib.weights import checkpoints, save_generator
from clcae_lib.worlds import World, get_world

__all__ = ["AdversarialTask", "GeneratorConfig", "ImageSource", "Stage", "train"]

WEIGHTS = "generator.safetensors"


@runtime_checkable
class ImageSource(Protocol):
    """The renders to learn from."""

    def __len__(self) -> int:
        """How many there are."""

    def images(self, indices: Tensor) -> Float[Tensor, "n 3 h w"]:
        """Images in [-1, 1], at the generator's resolution or a multiple of it."""


class AdversarialTask(Task):
    """Trains a generator on `images`; its running average is the result, and what `measure` measures."""

    config: GeneratorConfig

    def __init__(
        self,
        config: GeneratorConfig,
        images: ImageSource,
        *,
        measure: Callable[[nn.Module], dict[str, Any]] | None = None,
    ) -> None:
        """Keep the configuration, the images and what measures a generator, if anything does."""
        super().__init__(config)
        self.images, self.measure, self.stages = images, measure, config.resolved()
        self.order = Shuffled(len(images), seed=config.seed)
        self.stage = self.seen = self.seen_in_stage = 0

    def setup(self, fabric: Fabric) -> None:
        """Build the generator, its average and the first discriminator."""
        self.fabric, config = fabric, self.config
        generator = common.channels_last(
            Generator(config.resolution, config.style_dim, config.mapping_layers, channels=config.channels)
        ).to(fabric.device)
        _soften(generator)
        self.generator, self.average = generator, copy.deepcopy(generator).requires_grad_(False).eval()
        self.modules = {"generator": generator, "average": self.average}
        optimizer = self._adam(generator)
        self.optimizers["generator"] = fabric.setup_optimizers(optimizer)
        self._new_discriminator()

    def remaining(self, done: int) -> int:
        """Steps until the last stage has had its images, or until `config.steps`."""
        here = self.stages[self.stage]
        left = -(-max(0, here.images - self.seen_in_stage) // here.batch_size)
        left += sum(-(-stage.images // stage.batch_size) for stage in self.stages[self.stage + 1 :])
        return max(0, min(left, self.config.steps - done))

    @property
    def images_per_step(self) -> int:
        """The batch size of the stage of the last step."""
        return self.stages[self.stage].batch_size

    def state(self) -> dict[str, Any]:
        """Where in the stages the run is."""
        return {"stage": self.stage, "seen": self.seen, "seen_in_stage": self.seen_in_stage}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a run in its stage, with a discriminator of that resolution.

        Raises:
            ConfigError: the stage shall have fewer images than it has had.
        """
        stage, seen = self.stages[state["stage"]], state["seen_in_stage"]
        if seen >= stage.images + stage.batch_size:
            raise ConfigError(
                f"stages.{state['stage']}.images={stage.images}: the run has had {seen} in this stage; "
                "give as many, another folder, or resume=False (--no-resume) to start over"
            )
        self.stage, self.seen, self.seen_in_stage = state["stage"], state["seen"], state["seen_in_stage"]
        self._new_discriminator()

    def step(self, index: int) -> dict[str, float | Tensor]:
        """One step of the discriminator and one of the generator, on the same samples."""
        self._advance()
        stage = self.stages[self.stage]
        self._set_rates(stage)
        penalise = index % self.config.penalty_every == 0 and stage.gamma > 0
        real, fake = self._real(stage), self._fake(index, stage)
        metrics, real_scores = self._discriminator_step(real, fake.detach(), stage, penalise=penalise)
        metrics |= self._generator_step(real_scores, fake)
        self.seen, self.seen_in_stage = self.seen + stage.batch_size, self.seen_in_stage + stage.batch_size
        life = half_life(self.seen, target=self.config.ema_half_life, ramp=self.config.ema_ramp)
        update_average(self.average, self.generator, images=stage.batch_size, half_life=life)
        return {**metrics, "resolution": stage.resolution}

    def validate(self, index: int) -> dict[str, float]:
        """Measure the average each time that `measure_every` more images of the last resolution were seen."""
        del index
        stage, every = self.stages[self.stage], self.config.measure_every
        if not self._measured():
            return {}
        before = max(0, self.seen_in_stage - self.config.validate_every * stage.batch_size)
        if self.seen_in_stage // every == before // every:
            return {}
        return dict(_flat(self.measure(self.average)))

    def _measured(self) -> bool:
        """Whether this process measures what the stage at hand trains."""
        wanted = self.measure is not None and self.config.measure_every is not None
        whole = self.stages[self.stage].resolution == self.config.resolution
        return wanted and whole and self.fabric.is_global_zero

    @torch.no_grad()
    def sheet(self, index: int) -> Float[Tensor, "3 H W"]:
        """16 renders above 48 samples of the average, the same codes each time."""
        del index
        side, full = self.stages[self.stage].resolution, self.config.resolution
        z = torch.randn(48, self.config.style_dim, generator=step_generator(self.config.seed, 0x5EE7))
        with self.fabric.autocast():
            fake = self.average(z.to(self.fabric.device), noise="none", stop_at=side).float()
        real = _at(self.images.images(torch.arange(min(16, len(self.images)))), side).to(fake)
        images = torch.cat([real, fake])
        return tile(F.interpolate(images, size=(full, full)).clamp(-1, 1).cpu())

    def finish(self, folder: Path) -> None:
        """Write the average as generator.safetensors, with the statistics of w, and its card.

        Where the world's judges are not trained yet, the card has no measures until `clcae measure` is run.
        """
        self.average.measure_w(self.config.w_samples, seed=self.config.seed)
        details = {"world": self.config.world, "seed": self.config.seed, "images_seen": self.seen}
        save_generator(folder / WEIGHTS, self.average, details)
        measures = self.measure(self.average) if self._measured() else {}
        written = common.card(
            "generator", self, self.fabric, trained_on={}, measures=measures, images_seen=self.seen
        )
        side = self.stages[self.stage].resolution
        checkpoints.write_card(folder / WEIGHTS, {**written, "stage_resolution": side})

    def _advance(self) -> None:
        while self.stage + 1 < len(self.stages) and self.seen_in_stage >= self.stages[self.stage].images:
            before, lower = self.stages[self.stage].resolution, self.modules["discriminator"]
            self.stage, self.seen_in_stage = self.stage + 1, 0
            if self.stages[self.stage].resolution > before:
                self._new_discriminator()
                self.modules["discriminator"].load_lower(lower)

    def _new_discriminator(self) -> None:
        stage, config = self.stages[self.stage], self.config
        widths = config.discriminator_channels or config.channels
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed + 1 + self.stage)
            network = Discriminator(stage.resolution, channels=widths)
        network = common.channels_last(network).to(self.fabric.device)
        self.modules["discriminator"] = network
        self.optimizers["discriminator"] = self.fabric.setup_optimizers(self._adam(network))

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), lr=self.config.lr, betas=(0.0, 0.99), fused=True)

    def _set_rates(self, stage: Stage) -> None:
        done = self.seen_in_stage + stage.batch_size
        warm = 1.0 if self.stage == 0 or not self.config.warmup else min(1.0, done / self.config.warmup)
        common.set_rate(self.optimizers["generator"], stage.lr * warm)
        common.set_rate(self.optimizers["discriminator"], stage.lr)

    def _real(self, stage: Stage) -> Float[Tensor, "n 3 h w"]:
        start, count = common.share(self.fabric, stage.batch_size)
        images = self.images.images(self.order.take(self.seen + start, count)).to(self.fabric.device)
        return _at(images, stage.resolution).contiguous(memory_format=torch.channels_last)

    def _fake(self, index: int, stage: Stage) -> Float[Tensor, "n 3 h w"]:
        start, count = common.share(self.fabric, stage.batch_size)
        source = step_generator(self.config.seed, index, 0x2A)
        z = torch.randn(2, stage.batch_size, self.config.style_dim, generator=source)[
            :, start : start + count
        ]
        crossover = self._crossover(stage, source)[start : start + count].to(self.fabric.device)
        with self.fabric.autocast():
            first, second = (self.generator.mapping(part.to(self.fabric.device)) for part in z)
            layers = torch.arange(self.generator.n_latent, device=crossover.device)
            codes = torch.where((layers < crossover[:, None])[..., None], first[:, None], second[:, None])
            return self.generator.synthesis(codes, noise="none", stop_at=stage.resolution)

    def _crossover(self, stage: Stage, source: torch.Generator) -> Int[Tensor, " n"]:
        """The layer from which each sample takes its second code: beyond the last for those not mixed."""
        active = 2 * (stage.resolution.bit_length() - 1) - 2
        cut = torch.randint(1, active, (stage.batch_size,), generator=source)
        mixed = torch.rand(stage.batch_size, generator=source) < self.config.mixing
        return torch.where(mixed, cut, torch.full_like(cut, self.generator.n_latent))

    def _discriminator_step(
        self, real: Tensor, fake: Tensor, stage: Stage, *, penalise: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        twice = penalise and self.config.loss == "relativistic"
        real, fake = real.requires_grad_(penalise), fake.requires_grad_(twice)
        network = self.modules["discriminator"]
        with self.fabric.autocast():
            real_scores, fake_scores = network(real).float(), network(fake).float()
        loss = discriminator_loss(real_scores, fake_scores, kind=self.config.loss)
        metrics = {"loss_d": loss, "real": real_scores.mean(), "fake": fake_scores.mean()}
        total = loss
        if penalise:
            metrics["r1"] = gradient_penalty(real_scores, real)
            if twice:
                metrics["r2"] = gradient_penalty(fake_scores, fake)
            scale = stage.gamma / 2 * self.config.penalty_every
            total = loss + scale * (metrics["r1"] + metrics.get("r2", 0.0))
        self._update("discriminator", total)
        return {name: value.detach() for name, value in metrics.items()}, real_scores.detach()

    def _generator_step(self, real_scores: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The real scores are those of the discriminator step: one update old, and a forward pass cheaper."""
        network = self.modules["discriminator"].requires_grad_(False)
        with self.fabric.autocast():
            scores = network(fake).float()
        loss = generator_loss(real_scores, scores, kind=self.config.loss)
        self._update("generator", loss)
        network.requires_grad_(True)
        return {"loss_g": loss.detach()}

    def _update(self, name: str, loss: Tensor) -> None:
        """One optimizer step; gradients are averaged here, as DDP's wrapper allows no double backward."""
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        common.average_gradients(self.fabric, self.modules[name])
        optimizer.step()


def train(config: GeneratorConfig, folder: str | Path, *, resume: bool = True) -> Path:
    """Train the generator of `config.world` on its renders, in `folder`; returns the folder."""
    world = get_world(config.world)
    images = common.at_hand(world.images("train", config.size))
    task = AdversarialTask(config, images, measure=_measuring(config, world))
    return fit(task, config, folder, resume=resume)


def _measuring(config: GeneratorConfig, world: World) -> Callable[[nn.Module], dict[str, Any]]:
    """Return what measures the world's generators: nothing as long as its judges are not there."""
    made: list[GeneratorMeasure] = []

    def measure(generator: nn.Module) -> dict[str, Any]:
        if not (world.has("oracle_b") and world.has("perceptual_b")):
            return {}
        if not made:
            options = {"samples": config.measure_samples, "seed": config.seed}
            made.append(GeneratorMeasure(world, **options, device=resolve_device(config.device)))
        return made[0](generator)

    return measure


def _flat(measures: Mapping[str, Any], prefix: str = "measures/") -> Iterator[tuple[str, float]]:
    """The numbers of nested measures, each under its path."""
    for name, value in measures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield prefix + name, float(value)


@torch.no_grad()
def _soften(generator: Generator, *, factor: float = 0.1) -> None:
    """Shrink what each layer first adds to the picture: it starts grey, a stage as the one before."""
    for layer in (generator.to_rgb1, *generator.to_rgbs):
        layer.conv.weight.mul_(factor)


def _at(images: Float[Tensor, "n 3 h w"], side: int) -> Float[Tensor, "n 3 s s"]:
    """Images area-averaged down to `side`."""
    factor = images.shape[-1] // side
    return images if factor == 1 else F.avg_pool2d(images, factor)
