"""Contrastive alignment of W and pictures (arXiv 2211.11448, section 3.1).

Pairs (w, G(w)) come from the frozen generator, fresh at every step or from a fixed number of them. An image
encoder and a latent encoder learn to send both halves of a pair to the same place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field, model_validator
from torch import Tensor, nn

from clcae_lib.evaluation.retrieval import neighbour_retrieval
from clcae_lib.images import to_uint8
from clcae_lib.losses import ContrastiveLoss, SigmoidContrastiveLoss
from clcae_lib.metrics import recall_at_k
from clcae_lib.models import Generator, ImageEncoder, LatentEncoder
from clcae_lib.training import _common as common
from clcae_lib.training._seeds import Shuffled
from clcae_lib.training.config import Precision, TrainConfig
from clcae_lib.training.loop import Task, fit
from clcae_lib.weights import checkpoints, save_alignment

__all__ = ["AlignmentConfig", "AlignmentTask", "Pairs", "train"]

WEIGHTS = "alignment.safetensors"
TRAIN, VALIDATION, FINAL, STATISTICS = range(4)


class AlignmentConfig(TrainConfig):
    """Settings of the alignment; the defaults are for the portraits on a CPU."""

    precision: Precision = "bf16-mixed"
    steps: int = Field(default=1500, ge=0)
    batch_size: int = Field(default=128, ge=2)
    pairs: int | None = Field(
        default=None, ge=2, description="a fixed number of pairs; null samples on the fly"
    )
    loss: Literal["softmax", "sigmoid"] = "softmax"
    scale: float = Field(default=1 / 0.07, gt=0, description="1 / temperature at the start")
    max_scale: float = Field(default=100.0, gt=0, description="the scale is clamped to it")
    learn_scale: bool = Field(default=True, description="false keeps the temperature where it starts")
    embedding: int = Field(default=128, ge=2)
    body: str = "small"
    widths: tuple[int, ...] | None = None
    width: int = Field(default=128, ge=1, description="of the image encoder's style block")
    latent_width: int = Field(default=256, ge=1)
    latent_depth: int = Field(default=3, ge=0)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: int = Field(default=50, ge=0, description="steps over which the learning rate rises")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    validation_pairs: int = Field(default=1000, ge=11)
    final_pairs: int = Field(default=10_000, ge=11, description="pairs of the card's measures")
    neighbour_codes: int = Field(
        default=100, ge=1, description="pictures tried among neighbours of their code"
    )
    checkpoint_every: int = Field(default=250, ge=1)
    validate_every: int = Field(default=250, ge=1)
    log_every: int = Field(default=25, ge=1)

    free: ClassVar[frozenset[str]] = TrainConfig.free | {"validation_pairs", "final_pairs", "neighbour_codes"}
    stage: ClassVar[str] = "alignment"

    @model_validator(mode="after")
    def _check(self) -> AlignmentConfig:
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size={self.batch_size} cannot be shared by devices={self.devices}")
        if self.pairs is not None and self.pairs < self.batch_size:
            raise ValueError(f"pairs={self.pairs} is less than one batch_size={self.batch_size}")
        return self


class Pairs:
    """A fixed number of pairs (w, G(w)); the pictures are kept as bytes.

    Args:
        generator: what draws them.
        count: how many.
        numbers: the seed.
    """

    def __init__(self, generator: Generator, count: int, *numbers: int, batch_size: int = 64) -> None:
        """Sample the pairs."""
        self.w = common.sample_codes(generator, count, *numbers)
        noise = common.noise_of(generator, training=False)
        with torch.no_grad():
            batches = (common.draw(generator, w, noise=noise) for w in self.w.split(batch_size))
            self.bytes = torch.cat([to_uint8(images).cpu() for images in batches])

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.w)

    def take(self, rows: Tensor | slice) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 3 h w"]]:
        """Codes and pictures of these rows."""
        return self.w[rows], common.from_bytes(self.bytes[rows], self.w.device)

    @torch.no_grad()
    def embed(
        self, image_encoder: nn.Module, latent_encoder: nn.Module, *, batch_size: int = 100
    ) -> tuple[Float[Tensor, "n e"], Float[Tensor, "n e"]]:
        """The embeddings of all images, of which one batch at a time is on the device, and of all codes."""
        batches = (slice(start, start + batch_size) for start in range(0, len(self), batch_size))
        images = torch.cat([image_encoder(self.take(rows)[1]) for rows in batches])
        return images, latent_encoder(self.w)


class AlignmentTask(Task):
    """Trains image encoder, latent encoder and temperature on pairs from `generator`."""

    config: AlignmentConfig

    def __init__(
        self, config: AlignmentConfig, generator: Generator, *, trained_on: dict[str, str] | None = None
    ) -> None:
        """Keep the configuration, the frozen generator and the digests that the card will name."""
        super().__init__(config)
        self.generator, self.trained_on = generator, trained_on or {}

    def setup(self, fabric: Fabric) -> None:
        """Build the encoders and draw the pairs that stay the same."""
        self.fabric, config = fabric, self.config
        self.generator = common.placed(self.generator, fabric.device)
        self.images = ImageEncoder(
            self.generator.size,
            embedding=config.embedding,
            width=config.width,
            body=config.body,
            widths=config.widths,
        )
        self.codes = LatentEncoder(
            self.generator.style_dim,
            embedding=config.embedding,
            width=config.latent_width,
            depth=config.latent_depth,
        )
        self.codes.standardise_by(common.sample_codes(self.generator, 4096, config.seed, STATISTICS).cpu())
        kind = ContrastiveLoss if config.loss == "softmax" else SigmoidContrastiveLoss
        self.loss = kind(scale=config.scale, max_scale=config.max_scale, learnable=config.learn_scale)
        self.modules = {"image_encoder": self.images, "latent_encoder": self.codes, "loss": self.loss}
        for module in self.modules.values():
            common.channels_last(module).to(fabric.device)
        self.optimizers = {"adam": fabric.setup_optimizers(self._adam())}
        self.noise = common.noise_of(self.generator, training=True)
        self._validation: Pairs | None = None
        self.fixed = None if config.pairs is None else self._pairs(config.pairs, TRAIN)
        self.order = None if config.pairs is None else Shuffled(config.pairs, seed=config.seed)

    def step(self, index: int) -> dict[str, float | Tensor]:
        """One batch of pairs."""
        optimizer, config = self.optimizers["adam"], self.config
        common.set_rate(optimizer, config.lr * common.cosine(index, config.steps, warmup=config.warmup))
        w, pictures = self._batch(index)
        with self.fabric.autocast():
            images = self.images(pictures)
        codes = self.codes(w)  # small, and its precision is the point: in float32
        images, codes = common.gather(self.fabric, images), common.gather(self.fabric, codes)
        loss = self.loss(images, codes)
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        common.average_gradients(self.fabric, *self.modules.values())
        norm = nn.utils.clip_grad_norm_(self._parameters(), config.clip)
        optimizer.step()
        return {"loss": loss, "scale": self.loss.scale, "gradient": norm, **_accuracy(images, codes)}

    @torch.no_grad()
    def validate(self, index: int) -> dict[str, float]:
        """Loss and retrieval on held-out pairs, and among neighbours of the true code."""
        del index
        if self._validation is None:
            self._validation = self._pairs(self.config.validation_pairs, VALIDATION)
        rows = self.measure(self._validation, neighbour_codes=self.config.neighbour_codes)
        return {f"validation/{name}": value for name, value in rows.items()}

    def measure(self, pairs: Pairs, *, neighbour_codes: int) -> dict[str, float]:
        """Loss in batches as trained, recall among all pairs both ways, recall among neighbours."""
        seed = self.config.seed + VALIDATION
        with common.evaluating(self.images, self.codes):
            images, codes = pairs.embed(self.images, self.codes)
            near = neighbour_retrieval(
                self.images, self.codes, self.generator, codes=neighbour_codes, seed=seed
            )
        rows = {"loss": self._loss_in_batches(images, codes)}
        for name, found in (("image", recall_at_k(images, codes)), ("code", recall_at_k(codes, images))):
            rows |= {f"{name}_r{k}_of_{len(pairs)}": value for k, value in found.items()}
        return rows | {f"neighbours_{step:g}": value for step, value in near.items()}

    def finish(self, folder: Path) -> None:
        """Write both encoders as one file, with retrieval among `final_pairs` on the card."""
        measures = self.measure(
            self._pairs(self.config.final_pairs, FINAL), neighbour_codes=self.config.neighbour_codes
        )
        scale = float(self.loss.scale.detach())
        details = {"world": self.config.world, "seed": self.config.seed}
        save_alignment(folder / WEIGHTS, self.images, self.codes, scale=scale, metadata=details)
        written = common.card("alignment", self, self.fabric, trained_on=self.trained_on, measures=measures)
        checkpoints.write_card(folder / WEIGHTS, {**written, "scale": scale})

    def _parameters(self) -> list[nn.Parameter]:
        return [p for module in self.modules.values() for p in module.parameters() if p.requires_grad]

    def _adam(self) -> torch.optim.AdamW:
        decayed = [p for p in self._parameters() if p.ndim > 1]
        others = [p for p in self._parameters() if p.ndim <= 1]
        groups = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(
            groups, lr=self.config.lr, betas=(0.9, 0.98), weight_decay=self.config.weight_decay, fused=True
        )

    def _pairs(self, count: int, stream: int) -> Pairs:
        with self.fabric.autocast():
            return Pairs(self.generator, count, self.config.seed, stream)

    @torch.no_grad()
    def _batch(self, index: int) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 3 h w"]]:
        size = self.config.batch_size
        start, count = common.share(self.fabric, size)
        if self.fixed is not None and self.order is not None:
            return self.fixed.take(self.order.take(index * size + start, count))
        w = common.sample_codes(
            self.generator, count, self.config.seed, TRAIN, index, start=start, total=size
        )
        with self.fabric.autocast():
            return w, common.draw(self.generator, w, noise=self.noise)

    def _loss_in_batches(self, images: Tensor, codes: Tensor) -> float:
        size = min(self.config.batch_size, len(images))
        batches = zip(images.split(size), codes.split(size), strict=True)
        losses = [float(self.loss(i, c).detach()) for i, c in batches if len(i) == size]
        return sum(losses) / len(losses)


def _accuracy(images: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """The share of pictures in the batch whose nearest code is their own."""
    nearest = (images.detach() @ codes.detach().T).argmax(dim=1)
    return {"batch_r1": (nearest == torch.arange(len(nearest), device=nearest.device)).float().mean()}


def train(config: AlignmentConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Align a world's pictures and codes in `folder`; returns the folder.

    Raises:
        WorldError: the world has no generator yet; the message has the command that trains one.
    """
    from clcae_lib.worlds import get_world

    world = get_world(config.world)
    generator = world.generator("cpu")
    task = AlignmentTask(config, generator, trained_on=common.digests(world.generator_file))
    return fit(task, config, folder, resume=resume, **options)
