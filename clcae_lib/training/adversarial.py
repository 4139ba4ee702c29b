"""Adversarial training of the world's StyleGAN2, from coarse to fine (arXiv 1912.04958 and 1710.10196).

The loss is relativistic pairing with R1 and R2 (arXiv 2501.05441) or the logistic one with R1, the penalties
every few steps (arXiv 1912.04958, appendix B). Stages of rising resolution train the full generator with
`stop_at`; each has its own discriminator, initialised by the previous one.

A discriminator reacts little if an attribute of few pixels, such as a smile, varies too little. So a stage
may also compare the distributions of a batch of samples and a batch of images (`coverage`), in the features
and factors that the world's perceptual network (a loss network) computes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, normalize

from clcae_lib.evaluation.generator import GeneratorMeasure
from clcae_lib.losses import discriminator_loss, generator_loss, gradient_penalty, sliced_wasserstein
from clcae_lib.models import Discriminator, Generator
from clcae_lib.spaces import num_layers
from clcae_lib.training import optim
from clcae_lib.training.config import START_OVER, ConfigError, TrainConfig
from clcae_lib.training.data import Shuffled, as_images, ready_to_train, step_generator
from clcae_lib.training.loop import Task, fit
from clcae_lib.training.records import digests, tile
from clcae_lib.weights import save_generator
from clcae_lib.worlds import get_world
from clcae_lib.worlds.world import Images

WEIGHTS = "generator.safetensors"


class Stage(BaseModel):
    """One resolution and its number of training images; null means the run's value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: int = Field(ge=8)
    images: int = Field(ge=0)
    batch_size: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0)
    gamma: float | None = Field(default=None, ge=0)
    coverage: float | None = Field(default=None, ge=0)


class GeneratorConfig(TrainConfig):
    """Settings of the generator's training; the defaults are the recipe of the portraits."""

    steps: int = Field(
        default=10_000_000, ge=0, description="largest number of steps; the stages set the length"
    )
    size: int | None = Field(default=30_000, ge=1, description="number of training images; null takes all")
    resolution: int = 64
    style_dim: int = 128
    mapping_layers: int = Field(default=4, ge=1)
    channels: dict[int, int] = Field(default={4: 128, 8: 96, 16: 96, 32: 64, 64: 32})
    discriminator_channels: dict[int, int] | None = None
    stages: tuple[Stage, ...] = (
        Stage(resolution=16, images=60_000, lr=0.004),
        Stage(resolution=32, images=120_000, lr=0.003),
        Stage(resolution=64, images=300_000),
    )
    loss: Literal["relativistic", "logistic"] = "relativistic"
    lr: float = Field(default=0.0025, gt=0)
    gamma: float = Field(default=1.0, ge=0, description="weight of R1 and R2")
    coverage: float = Field(default=0.0, ge=0, description="weight of the distance of features")
    penalty_every: int = Field(default=4, ge=1, description="steps between penalties, which it multiplies")
    mixing: float = Field(default=0.25, ge=0, le=1, description="share of samples with two codes")
    warmup: int = Field(default=2000, ge=0, description="images of the generator's lr warm-up per stage")
    ema_half_life: float = Field(default=5000, gt=0, description="images")
    ema_ramp: float = Field(default=0.05, gt=0, description="largest half life, as a share of the images")
    w_samples: int = Field(default=100_000, ge=2, description="codes from which w_avg and w_std are computed")
    checkpoint_every: int = Field(default=1000, ge=1)
    log_every: int = Field(default=100, ge=1)
    sheet_every: int = Field(default=1000, ge=1)
    validate_every: int = Field(default=100, ge=1)
    measure_every: int | None = Field(
        default=100_000,
        ge=1,
        description="images of the last resolution between measurements; null: no measurements",
    )
    measure_samples: int = Field(default=10_000, ge=8, description="samples that are measured")

    free: ClassVar[frozenset[str]] = TrainConfig.free | {
        *("devices", "ema_half_life", "ema_ramp"),
        *("w_samples", "measure_every", "measure_samples"),
    }
    stage: ClassVar[str] = "generator"

    @model_validator(mode="after")
    def _check(self) -> GeneratorConfig:
        sides = [stage.resolution for stage in self.stages]
        if not sides or sides != sorted(sides) or sides[-1] != self.resolution:
            raise ValueError(f"stages: resolutions {sides} must rise and end at resolution={self.resolution}")
        if missing := [side for side in sides if side not in self.channels]:
            raise ValueError(f"channels: no width for the resolutions {missing} of the stages")
        return self

    def batch_sizes(self) -> list[int]:
        """Return the batch size of each stage."""
        return [stage.batch_size for stage in self.resolved()]

    def resolved(self) -> list[Stage]:
        """Return the stages, with the run's values in place of null."""
        own = {name: getattr(self, name) for name in ("batch_size", "lr", "gamma", "coverage")}
        return [stage.model_copy(update=own | stage.model_dump(exclude_none=True)) for stage in self.stages]

    @property
    def covers(self) -> bool:
        """Whether a stage compares the distributions of features."""
        return any(stage.coverage for stage in self.resolved())

    def fixed(self, progress: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that must match: future stages and the current stage's length may change."""
        reached = int(progress.get("stage", 0))
        values = super().fixed(progress)
        for name in ("stages", "lr", "gamma", "coverage", "batch_size"):
            values.pop(name)
        for index, stage in enumerate(self.resolved()[: reached + 1]):
            values[f"stages.{index}"] = stage.model_dump(exclude={"images"} if index == reached else None)
        return values


class AdversarialTask(Task):
    """Trains a generator; its EMA weights are the result.

    Args:
        images: training images, at the generator's resolution or a multiple of it.
        measure: function from a generator to its measures; None for no measures.
        describe: differentiable function from images to the features that `coverage` compares.

    Raises:
        ConfigError: a stage has `coverage` and there is no `describe`.
    """

    config: GeneratorConfig
    recorded: ClassVar[bool] = True

    def __init__(
        self,
        config: GeneratorConfig,
        images: Images,
        *,
        measure: Callable[[nn.Module], dict[str, Any]] | None = None,
        describe: nn.Module | None = None,
        trained_on: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(config, trained_on=trained_on)
        if config.covers and describe is None:
            raise ConfigError("coverage: the world has no perceptual network; train it, or set coverage=0")
        self.describe = describe
        self.images, self.measure, self.stages = images, measure, config.resolved()
        self.order = Shuffled(len(images), seed=config.seed)
        self.stage = self.seen = self.seen_in_stage = 0

    def setup(self, fabric: Fabric) -> None:
        """Build the generator, its EMA weights and the first discriminator."""
        super().setup(fabric)
        config = self.config
        self.images = ready_to_train(self.images)
        if self.describe is not None:
            self.describe = optim.placed(self.describe, fabric.device)
            first = as_images(self.images.read(torch.zeros(1, dtype=torch.long)), fabric.device)
            self.features = self.describe.described(first).shape[1]
        generator = optim.channels_last(
            Generator(config.resolution, config.style_dim, config.mapping_layers, channels=config.channels)
        ).to(fabric.device)
        with torch.no_grad():  # so the image starts grey, and a stage like the one before
            for layer in (generator.to_rgb1, *generator.to_rgbs):
                layer.conv.weight.mul_(0.1)
        self.generator, self.average = generator, copy.deepcopy(generator).requires_grad_(False).eval()
        self.modules = {"generator": generator, "average": self.average}
        self.optimizers["generator"] = fabric.setup_optimizers(self._adam(generator))
        self._new_discriminator()

    def remaining(self, done: int) -> int:
        """Return the steps to the end of the last stage, or to `config.steps`."""
        here = self.stages[self.stage]
        left = -(-max(0, here.images - self.seen_in_stage) // here.batch_size)
        left += sum(-(-stage.images // stage.batch_size) for stage in self.stages[self.stage + 1 :])
        return max(0, min(left, self.config.steps - done))

    @property
    def images_per_step(self) -> int:
        """The batch size of the stage of the last step."""
        return self.stages[self.stage].batch_size

    def state(self) -> dict[str, Any]:
        """Return the stage and the images that were seen in all stages and in this one."""
        return {"stage": self.stage, "seen": self.seen, "seen_in_stage": self.seen_in_stage}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the stage's counters and rebuild that stage's discriminator.

        Raises:
            ConfigError: the stage has already used more images than it now has.
        """
        stage, seen = self.stages[state["stage"]], state["seen_in_stage"]
        if seen >= stage.images + stage.batch_size:
            raise ConfigError(
                f"stages.{state['stage']}.images={stage.images}: the run has used {seen} in this stage; "
                f"set at least as many, {START_OVER}"
            )
        self.stage, self.seen, self.seen_in_stage = state["stage"], state["seen"], seen
        self._new_discriminator()

    def step(self, index: int) -> dict[str, float | Tensor]:
        """Update the discriminator and then the generator, on the same samples."""
        self._advance()
        stage = self.stages[self.stage]
        done = self.seen_in_stage + stage.batch_size
        warm = 1.0 if self.stage == 0 or not self.config.warmup else min(1.0, done / self.config.warmup)
        self.set_lr("generator", stage.lr * warm)
        self.set_lr("discriminator", stage.lr)
        penalise = index % self.config.penalty_every == 0 and stage.gamma > 0
        learn = partial(self._learn, stage=stage, penalise=penalise)
        metrics = self.graphs((self.stage, penalise), learn, **self._draw(index, stage))
        self.seen, self.seen_in_stage = self.seen + stage.batch_size, self.seen_in_stage + stage.batch_size
        life = optim.half_life(self.seen, target=self.config.ema_half_life, ramp=self.config.ema_ramp)
        optim.update_ema(self.average, self.generator, images=stage.batch_size, half_life=life)
        return {**metrics, "resolution": stage.resolution}

    def validate(self, index: int) -> dict[str, float]:
        """Return measures of the EMA weights after every `measure_every` images of the last resolution."""
        stage, every = self.stages[self.stage], self.config.measure_every
        before = max(0, self.seen_in_stage - self.config.validate_every * stage.batch_size)
        if not self._measured() or self.seen_in_stage // every == before // every:
            return {}
        measures = pd.json_normalize(self.measure(self.average), sep="/").select_dtypes("number")
        return {f"measures/{name}": float(column[0]) for name, column in measures.items()}

    def _measured(self) -> bool:
        """Return whether this process measures the generator in the current stage."""
        wanted = self.measure is not None and self.config.measure_every is not None
        whole = self.stages[self.stage].resolution == self.config.resolution
        return wanted and whole and self.fabric.is_global_zero

    @torch.no_grad()
    def sheet(self, index: int) -> Float[Tensor, "3 h w"]:
        """Return 16 training images above 48 samples of the EMA weights, always from the same codes."""
        side, full = self.stages[self.stage].resolution, self.config.resolution
        z = torch.randn(48, self.config.style_dim, generator=step_generator(self.config.seed, 0x5EE7))
        with self.fabric.autocast():
            fake = self.average(z.to(self.fabric.device), noise="none", stop_at=side).float()
        real = self.images.read(torch.arange(min(16, len(self.images))))
        real = _shrunk(as_images(real, "cpu"), side).to(fake)
        images = torch.cat([real, fake])
        return tile(interpolate(images, size=(full, full)).clamp(-1, 1).cpu())

    def finish(self, folder: Path) -> None:
        """Write the EMA weights as generator.safetensors, with the statistics of w, and its card.

        If the world's judges are not trained yet, the card has no measures until `clcae measure` is run.
        """
        self.average.measure_w(self.config.w_samples, seed=self.config.seed)
        details = {"world": self.config.world, "seed": self.config.seed, "images_seen": self.seen}
        save_generator(folder / WEIGHTS, self.average, details)
        measures = self.measure(self.average) if self._measured() else {}
        side = self.stages[self.stage].resolution
        extra = {"images_seen": self.seen, "stage_resolution": side}
        self.write_card(folder / WEIGHTS, measures=measures, **extra)

    def _advance(self) -> None:
        """Start the next stage that has images, with a discriminator of its resolution."""
        while self.stage + 1 < len(self.stages) and self.seen_in_stage >= self.stages[self.stage].images:
            before, lower = self.stages[self.stage].resolution, self.modules["discriminator"]
            self.stage, self.seen_in_stage = self.stage + 1, 0
            if self.stages[self.stage].resolution > before:
                self._new_discriminator()
                self.modules["discriminator"].load_lower(lower)
                self.graphs.prepare(self.optimizers["discriminator"])

    def _new_discriminator(self) -> None:
        stage, config = self.stages[self.stage], self.config
        widths = config.discriminator_channels or config.channels
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed + 1 + self.stage)
            network = Discriminator(stage.resolution, channels=widths)
        network = optim.channels_last(network).to(self.fabric.device)
        self.modules["discriminator"] = network
        self.optimizers["discriminator"] = self.fabric.setup_optimizers(self._adam(network))

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        return torch.optim.Adam(network.parameters(), lr=self.config.lr, betas=(0.0, 0.99), fused=True)

    def _draw(self, index: int, stage: Stage) -> dict[str, Tensor]:
        """Return the inputs of a step, on the host: images and, for the samples, z and `crossover`."""
        start, count = self.share(stage.batch_size)
        mine = slice(start, start + count)
        source = step_generator(self.config.seed, index, 0x2A)
        z = torch.randn(2, stage.batch_size, self.config.style_dim, generator=source)[:, mine]
        drawn = {"z": z, "crossover": self.crossover(stage, source)[mine]}
        rows, following = (
            self.order.take(at + start, count) for at in (self.seen, self.seen + stage.batch_size)
        )
        drawn["images"] = self.images.read(rows, following)
        if stage.coverage:
            features, source = self.features, step_generator(self.config.seed, index, 0xC0)
            drawn["directions"] = normalize(torch.randn(features, features, generator=source))
        return drawn

    def _learn(
        self,
        *,
        z: Float[Tensor, "2 n d"],
        crossover: Int[Tensor, " n"],
        images: Tensor,
        directions: Float[Tensor, "k k"] | None = None,
        stage: Stage,
        penalise: bool,
    ) -> dict[str, Tensor]:
        """Update both networks with the result of `_draw`, and return the scalars of the step."""
        real = _shrunk(as_images(images, self.fabric.device), stage.resolution)
        real = real.contiguous(memory_format=torch.channels_last)
        with self.fabric.autocast():
            first, second = (self.generator.mapping(part) for part in z)
            layers = torch.arange(self.generator.n_latent, device=crossover.device)
            codes = torch.where((layers < crossover[:, None])[..., None], first[:, None], second[:, None])
            fake = self.generator.synthesis(codes, noise="none", stop_at=stage.resolution)
        metrics, real_scores = self._discriminator_step(real, fake.detach(), stage, penalise=penalise)
        distance = None if directions is None else self._distance(real.detach(), fake, directions)
        return metrics | self._generator_step(real_scores, fake, distance, stage)

    def crossover(self, stage: Stage, source: torch.Generator) -> Int[Tensor, " n"]:
        """Return the layer from which each sample uses its second code, or L for samples with one code."""
        cut = torch.randint(1, num_layers(stage.resolution), (stage.batch_size,), generator=source)
        mixed = torch.rand(stage.batch_size, generator=source) < self.config.mixing
        return torch.where(mixed, cut, torch.full_like(cut, self.generator.n_latent))

    def _discriminator_step(
        self, real: Tensor, fake: Tensor, stage: Stage, *, penalise: bool
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Update the discriminator; return the scalars and the scores of the real images."""
        twice = penalise and self.config.loss == "relativistic"
        real, fake = real.requires_grad_(penalise), fake.requires_grad_(twice)
        network = self.modules["discriminator"]
        with self.fabric.autocast():
            real_scores, fake_scores = network(real).float(), network(fake).float()
        total = loss = discriminator_loss(real_scores, fake_scores, kind=self.config.loss)
        metrics = {"loss_d": loss, "real": real_scores.mean(), "fake": fake_scores.mean()}
        if penalise:
            metrics["r1"] = gradient_penalty(real_scores, real)
            if twice:
                metrics["r2"] = gradient_penalty(fake_scores, fake)
            scale = stage.gamma / 2 * self.config.penalty_every
            total = loss + scale * (metrics["r1"] + metrics.get("r2", 0.0))
        self.update("discriminator", total, network)
        return {name: value.detach() for name, value in metrics.items()}, real_scores.detach()

    def _generator_step(
        self, real_scores: Tensor, fake: Tensor, distance: Tensor | None, stage: Stage
    ) -> dict[str, Tensor]:
        """Update the generator; the real scores are those from before the discriminator's update."""
        network = self.modules["discriminator"].requires_grad_(False)
        with self.fabric.autocast():
            scores = network(fake).float()
        total = loss = generator_loss(real_scores, scores, kind=self.config.loss)
        metrics = {"loss_g": loss.detach()}
        if distance is not None:
            total, metrics["coverage"] = loss + stage.coverage * distance, distance.detach()
        self.update("generator", total, self.generator)
        network.requires_grad_(True)
        return metrics

    def _distance(self, real: Tensor, fake: Tensor, directions: Tensor) -> Tensor:
        """Return the distance of two batches' features, along each feature and along `directions`."""
        with self.fabric.autocast():
            found = self.describe.described(fake)
            with torch.no_grad():
                wanted = self.describe.described(real)
        axes = torch.eye(len(directions), device=directions.device)
        return sliced_wasserstein(found, wanted, torch.cat([axes, directions]))


def train(config: GeneratorConfig, folder: str | Path, *, resume: bool = True) -> Path:
    """Train the generator of `config.world` on its images, in `folder`; return the folder.

    Without the world's judges, nothing is measured.
    """
    world = get_world(config.world)
    describe, used = None, None
    if config.covers:
        describe, used = world.perceptual("train"), digests(world.judge_file("perceptual", "train"))

    shared = {"samples": config.measure_samples, "seed": config.seed, "device": config.device}
    measurer = cache(partial(GeneratorMeasure, world, **shared))

    def measure(generator: nn.Module) -> dict[str, Any]:
        judged = world.has("oracle_b") and world.has("perceptual_b")
        return measurer()(generator) if judged else {}

    images = world.images("train", config.size)
    task = AdversarialTask(config, images, measure=measure, describe=describe, trained_on=used)
    return fit(task, config, folder, resume=resume)


def _shrunk(images: Float[Tensor, "n 3 h w"], side: int) -> Float[Tensor, "n 3 s s"]:
    """Return images averaged down to `side` pixels."""
    factor = images.shape[-1] // side
    return images if factor == 1 else avg_pool2d(images, factor)
