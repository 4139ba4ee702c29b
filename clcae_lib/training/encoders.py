"""Shared parts of training CLCAE's encoder and its peers: settings, set-up, batches, measures, weights.

All encoders are trained with a frozen generator, on the same images, with the same reconstruction terms.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from clcae_lib.devices import to_device
from clcae_lib.losses import IdentityLoss, PerceptualLoss, ReconstructionLoss
from clcae_lib.metrics import psnr
from clcae_lib.models import Generator, ImageEncoder, LatentEncoder
from clcae_lib.models.backbone import to_encoder_side
from clcae_lib.training import data, optim
from clcae_lib.training.body import pretrained_body
from clcae_lib.training.config import TrainConfig
from clcae_lib.training.loop import Task
from clcae_lib.training.records import digests
from clcae_lib.weights import checkpoints, load_alignment, load_contrastive
from clcae_lib.worlds import World, get_world

SAMPLES, BANK, HELD_OUT, FLIPS = range(4)


class EncoderConfig(TrainConfig):
    """Settings of any encoder's training; the defaults are for the portraits."""

    steps: int = Field(default=3000, ge=0)
    start: Literal["fresh", "pretrained"] = Field(default="fresh", description="weights of the backbone")
    body: str = Field(default="small", description="the backbone")
    widths: tuple[int, ...] | None = None
    feature_side: Literal[8, 16, 32] = Field(default=16, description="of F, in pixels; 16 in the paper")

    weight_l2: float = Field(default=1.0, ge=0)
    weight_perceptual: float = Field(default=0.2, ge=0)
    weight_identity: float = Field(default=0.1, ge=0)
    lpips_scales: Literal[1, 3] = 1

    mix: float = Field(default=0.5, ge=0, le=1, description="share of samples; others are the world's images")
    images: int | None = Field(default=20_000, ge=1, description="number of training images; null takes all")
    flip: float = Field(default=0.0, ge=0, le=1, description="share of the world's images that are mirrored")
    lr: float = Field(default=1e-3, gt=0, description="1e-4 at full size; small networks need a larger one")
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = Field(default=50, ge=0, description="steps of the learning rate's warm-up")
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient; null: none")
    ema_half_life: float = Field(default=2000.0, ge=0, description="of the EMA weights, in images; 0: none")
    validation_images: int = Field(default=256, ge=8)

    free: ClassVar[frozenset[str]] = TrainConfig.free | {"validation_images"}
    variant_field: ClassVar[str] = ""
    """The setting whose value names the encoder of a stage, in file names and on cards."""

    @property
    def variant(self) -> str:
        """The encoder's name among those of its stage."""
        return getattr(self, self.variant_field)

    @property
    def needs_alignment(self) -> bool:
        """Whether the training uses the aligned encoders."""
        return False

    @property
    def needs_backbone(self) -> bool:
        """Whether the training starts from the pretrained backbone."""
        return self.start == "pretrained"


@dataclass(frozen=True)
class Parts:
    """The inputs of an encoder's training; several trainings can share them, on any devices.

    Attributes:
        perceptual: distance of two batches, for the loss; None leaves the term out.
        identity: images to unit vectors, for the loss; None leaves the term out.
        alignment: image encoder, latent encoder and scale; None if alignment and initialisation are off.
        start: initial weights of the backbone, if not the aligned image encoder's; None for random ones.
        judges: networks that measure the finished encoder, by name: for portraits the evaluation networks,
            for photographs the loss networks, because such a world has one network of each kind.
        trained_on: digests of the weights above by file name, for the card.
        view: function from images of the generator to the losses' input.
        shown: function from images, or samples in their place, to the input of encoder and losses.
        height: height of the published encoder's input if that is not square.
    """

    generator: Generator
    images: Any
    validation: Any
    perceptual: nn.Module | None = None
    identity: nn.Module | None = None
    alignment: tuple[ImageEncoder, LatentEncoder, float] | None = None
    start: Mapping[str, Tensor] | None = None
    judges: Mapping[str, nn.Module] = field(default_factory=dict)
    trained_on: Mapping[str, str] = field(default_factory=dict)
    view: Callable[[Tensor], Tensor] = to_encoder_side
    shown: Callable[[Tensor], Tensor] = to_encoder_side
    height: int | None = None


class EncoderTask(Task):
    """Trains an encoder; subclasses define the network, a step, and the reconstruction of images."""

    config: EncoderConfig

    def __init__(self, config: EncoderConfig, parts: Parts) -> None:
        super().__init__(config, trained_on=parts.trained_on)
        self.parts, self.seen = parts, 0

    def setup(self, fabric: Fabric) -> None:
        """Build the encoder, its EMA weights, the losses and the optimizer."""
        super().setup(fabric)
        config = self.config
        self.generator = optim.placed(self.parts.generator, fabric.device)
        self.noise = data.noise_mode(self.generator, training=True)
        self.fixed_noise = data.noise_mode(self.generator, training=False)
        self.encoder = optim.channels_last(self.build_encoder()).to(fabric.device)
        self.encoder.attach(self.generator)
        self.modules = {"encoder": self.encoder}
        if config.ema_half_life > 0:
            self.modules["average"] = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        self.optimizers = {"optimizer": fabric.setup_optimizers(self.build_optimizer())}
        self.reconstruction = self._reconstruction_loss()
        self.train_images = data.ready_to_train(self.parts.images)
        self.eval_batch_size = data.eval_batch_size(self.generator.size)
        self.order = data.Shuffled(len(self.train_images), seed=config.seed)
        self._held_out: Tensor | None = None

    def build_encoder(self) -> nn.Module:
        """Return the network with its initial weights."""
        raise NotImplementedError

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return the encoder's optimizer."""
        return torch.optim.Adam(self.encoder.parameters(), lr=self.config.lr, fused=True)

    def reconstruct(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Float[Tensor, "n 3 h w"]]:
        """Return the reconstructions of images by space, with `result`."""
        raise NotImplementedError

    @property
    def result(self) -> nn.Module:
        """The encoder that is validated and saved: the EMA weights, if there are any."""
        return self.modules.get("average", self.encoder)

    def state(self) -> dict[str, Any]:
        """Return how many images the EMA weights have seen."""
        return {"seen": self.seen}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the count of images."""
        self.seen = int(state["seen"])

    def finish(self, folder: Path) -> None:
        """Write the encoder and its card, with the measures of held-out images."""
        config, encoder = self.config, self.result
        path = folder / f"{config.stage}_{config.variant}.safetensors"
        metadata = {"kind": config.stage, config.variant_field: config.variant, "config": encoder.config}
        metadata |= {"world": config.world, "seed": config.seed}
        checkpoints.save_weights(path, encoder.state_dict(), metadata=metadata)
        parameters = sum(p.numel() for p in encoder.parameters())
        self.write_card(path, measures=self.measure(), parameters=parameters)

    def measure(self) -> dict[str, float]:
        """Return means over held-out images: PSNR in dB and each judge's value, by space."""
        device = self.fabric.device
        judges = {name: copy.deepcopy(judge).to(device) for name, judge in self.parts.judges.items()}

        def measured(batch: Tensor) -> dict[str, Tensor]:
            found = {}
            for space, image in self.reconstruct(batch).items():
                image = image.clamp(-1, 1)
                found[f"psnr_{space}"] = psnr(image, batch)
                for name, judge in judges.items():
                    compare = getattr(judge, "similarity", judge)
                    found[f"{name}_{space}"] = compare(image, batch)
            return found

        return self.validation_means(measured)

    @torch.no_grad()
    def validation_means(self, measured: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, float]:
        """Return the means over held-out images of the values `[N]` that `measured` returns by name."""
        rows: dict[str, list[Tensor]] = {}
        with optim.evaluating(self.result):
            for batch in self.held_out().split(self.eval_batch_size):
                for name, values in measured(batch).items():
                    rows.setdefault(name, []).append(values)
        return {name: float(torch.cat(values).mean()) for name, values in rows.items()}

    def held_out(self) -> Float[Tensor, "n 3 h w"]:
        """Return the validation images as the encoder's input; they are read once."""
        if self._held_out is None:
            source, size = self.parts.validation, self.eval_batch_size
            count = min(self.config.validation_images, len(source))
            rows = (range(start, min(count, start + size)) for start in range(0, count, size))
            images = torch.cat([self.parts.shown(source.images(part)) for part in rows])
            self._held_out = images.to(self.fabric.device).contiguous(memory_format=torch.channels_last)
        return self._held_out

    def batch(self, index: int) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "m d"]]:
        """Return the targets of a step, samples of the generator first, and the codes of the samples."""
        drawn, device = self.draw(index), self.fabric.device
        return self.targets(**{name: to_device(value, device) for name, value in drawn.items()})

    def draw(self, index: int) -> dict[str, Tensor]:
        """Return the arguments of `targets` for a step, on the host."""
        config, size = self.config, self.config.batch_size
        start, count = self.share(size)
        sampled = min(count, round(count * config.mix))
        z = data.draw_z(self.generator, sampled, config.seed, SAMPLES, index, start=start, total=size)
        rows, following = (self.order.take(k * size + start, count)[sampled:] for k in (index, index + 1))
        images = self.train_images.read(rows, following)
        source = data.step_generator(config.seed, FLIPS, index, self.fabric.global_rank)
        return {"z": z, "images": images, "flipped": torch.rand(len(images), generator=source) < config.flip}

    @torch.no_grad()
    def targets(
        self, z: Float[Tensor, "m d"], images: Tensor, flipped: Bool[Tensor, " k"]
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "m d"]]:
        """Return samples of the generator and then images of the world, and the codes of the samples.

        Args:
            images: bytes, or in [-1, 1].
        """
        w, images = self.generator.mapping(z), self.parts.shown(data.as_images(images, self.fabric.device))
        if self.config.flip > 0:
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
        if not len(z):
            return images, w
        with self.fabric.autocast():
            samples = self.parts.shown(self.generator.synthesis(w, noise=self.noise)).float()
        return torch.cat([samples, images]).contiguous(memory_format=torch.channels_last), w

    def lr_factor(self, index: int) -> float:
        """Return the learning rate of a step as a share of `config.lr`."""
        config = self.config
        if config.schedule == "cosine":
            return optim.cosine(index, config.steps, warmup=config.warmup, floor=0.01)
        return min(1.0, (index + 1) / max(1, config.warmup))

    def reconstruction_terms(
        self,
        images: Mapping[str, Float[Tensor, "n 3 h w"]],
        target: Float[Tensor, "n 3 h w"],
        *,
        weights: Mapping[str, float] | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the terms of reconstructions by name, `l2_w` and so on, and their weighted sum.

        Args:
            weights: weight of each space, 1 if it is not named.
        """
        terms: dict[str, Tensor] = {}
        total = target.new_zeros(())
        for space, found in self.reconstruction(images, target).items():
            for term, value in found.items():
                terms[f"{term}_{space}"] = value
                weight = (weights or {}).get(space, 1.0) * getattr(self.config, f"weight_{term}")
                total = total + weight * value
        return terms, total

    def update_encoder(self, terms: dict[str, Tensor], total: Tensor) -> dict[str, Tensor]:
        """Take one step of the encoder's optimizer and return the scalars of the step."""
        clip = self.config.clip or float("inf")
        norm = self.update("optimizer", total, self.encoder, clip=clip)
        return {"loss": total, "gradient": norm, **terms}

    def update_ema(self) -> None:
        """Count the images of a batch, and move the EMA weights toward the encoder's."""
        config = self.config
        self.seen += config.batch_size
        if "average" in self.modules:
            life = optim.half_life(self.seen, target=config.ema_half_life, ramp=0.05)
            optim.update_ema(self.modules["average"], self.encoder, images=config.batch_size, half_life=life)

    def _reconstruction_loss(self) -> ReconstructionLoss:
        config, parts, device = self.config, self.parts, self.fabric.device
        perceptual, identity = None, None
        if parts.perceptual is not None and config.weight_perceptual > 0:
            network = optim.placed(parts.perceptual, device)
            perceptual = PerceptualLoss(network, scales=config.lpips_scales)
        if parts.identity is not None and config.weight_identity > 0:
            identity = IdentityLoss(optim.placed(parts.identity, device))
        return ReconstructionLoss(perceptual=perceptual, identity=identity)


def world_parts(config: EncoderConfig) -> Parts:
    """Return the generator, images, judges and alignment of the configuration's world, with their digests.

    Raises:
        WorldError: weights are missing; the message has the command that makes them.
    """
    world = get_world(config.world)
    used = [world.generator_file]
    alignment, judges, start = None, {}, None
    if config.needs_alignment:
        alignment, path = _alignment(world, config)
        used += [path] if path.is_file() else sorted(path.glob("*.pt*"))
    for name in ("perceptual", "identity"):
        if getattr(config, f"weight_{name}") > 0:
            judges[name] = getattr(world, name)("train")
            used += filter(None, [world.judge_file(name, "train")])
    if config.needs_backbone:
        start = pretrained_body(world, device=config.device, body=config.body, widths=config.widths)
    return Parts(
        generator=world.generator("cpu"),
        images=world.images("train", config.images),
        validation=world.images("validation", config.validation_images),
        perceptual=judges.get("perceptual"),
        identity=judges.get("identity"),
        alignment=alignment,
        start=start,
        judges={name: getattr(world, name)("measure") for name in judges if world.measures_with(name)},
        trained_on=digests(*used),
        **framing(world, config),
    )


def _alignment(world: World, config: EncoderConfig) -> tuple[Any, Path]:
    """Return the alignment trained here, or for `published` without one the official pair of the world."""
    official = world.folder / "contrastive"
    trained = world.weights("alignment").is_file()
    if config.variant == "published" and not trained and official.is_dir():
        return load_contrastive(official, world.generator("cpu"), height=world.published_height), official
    path = world.require("alignment", command=f"clcae train alignment --world {world.name}")
    return load_alignment(path), path


def framing(world: World, config: EncoderConfig) -> dict[str, Any]:
    """Return the views of a world's images: for `published` the official crop, else the whole square."""
    if config.variant != "published":
        return {}
    return {"view": world.view, "shown": world.published_view, "height": world.published_height}
