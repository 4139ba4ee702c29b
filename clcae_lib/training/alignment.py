"""Contrastive alignment of W and images (arXiv 2211.11448, section 3.1).

Pairs (w, G(w)) come from the frozen generator: new ones at every step, or a fixed number of them. An image
encoder and a latent encoder learn to give both parts of a pair the same embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field, model_validator
from torch import Tensor, nn

from clcae_lib.devices import to_device
from clcae_lib.evaluation.retrieval import neighbour_retrieval
from clcae_lib.images import to_uint8
from clcae_lib.losses import ContrastiveLoss, SigmoidContrastiveLoss
from clcae_lib.metrics import recall_at_k
from clcae_lib.models import Generator, ImageEncoder, LatentEncoder
from clcae_lib.training import data, optim
from clcae_lib.training.config import TrainConfig
from clcae_lib.training.loop import Task, fit
from clcae_lib.training.records import digests
from clcae_lib.weights import save_alignment
from clcae_lib.worlds import get_world

WEIGHTS = "alignment.safetensors"
TRAIN, VALIDATION, FINAL, STATISTICS = range(4)


class AlignmentConfig(TrainConfig):
    """Settings of the alignment; the defaults are for the portraits on a CPU."""

    steps: int = Field(default=1500, ge=0)
    batch_size: int = Field(default=128, ge=2)
    pairs: int | None = Field(default=None, ge=2, description="fixed number; null: new pairs at every step")
    loss: Literal["softmax", "sigmoid"] = "softmax"
    scale: float = Field(default=1 / 0.07, gt=0, description="initial 1 / temperature")
    max_scale: float = Field(default=100.0, gt=0, description="largest scale")
    learn_scale: bool = Field(default=True, description="false: the temperature is fixed")
    embedding: int = Field(default=128, ge=2)
    body: str = "small"
    widths: tuple[int, ...] | None = None
    width: int = Field(default=128, ge=1, description="of the image encoder's style block")
    latent_width: int = Field(default=256, ge=1)
    latent_depth: int = Field(default=3, ge=0)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    warmup: int = Field(default=50, ge=0, description="steps of the learning rate's warm-up")
    clip: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    validation_pairs: int = Field(default=1000, ge=11)
    final_pairs: int = Field(default=10_000, ge=11, description="pairs of the card's measures")
    neighbour_codes: int = Field(default=100, ge=1, description="codes of neighbour retrieval")
    checkpoint_every: int = Field(default=250, ge=1)
    validate_every: int = Field(default=250, ge=1)
    log_every: int = Field(default=25, ge=1)

    free: ClassVar[frozenset[str]] = TrainConfig.free | {"validation_pairs", "final_pairs", "neighbour_codes"}
    stage: ClassVar[str] = "alignment"

    @model_validator(mode="after")
    def _check(self) -> AlignmentConfig:
        if self.pairs is not None and self.pairs < self.batch_size:
            raise ValueError(f"pairs={self.pairs} is less than one batch_size={self.batch_size}")
        return self


class Pairs:
    """A fixed number of pairs (w, G(w)); the images are stored as bytes.

    Args:
        numbers: numbers of the seed of the codes.
    """

    def __init__(self, generator: Generator, count: int, *numbers: int, batch_size: int = 64) -> None:
        self.w = data.sample_codes(generator, count, *numbers)
        noise = data.noise_mode(generator, training=False)
        with torch.no_grad():
            batches = (data.synthesise(generator, w, noise=noise) for w in self.w.split(batch_size))
            self.bytes = torch.cat([to_uint8(images).cpu() for images in batches])

    def __len__(self) -> int:
        return len(self.w)

    def take(self, rows: Tensor | slice) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 3 h w"]]:
        """Return the codes and images of these rows."""
        on_device = rows if isinstance(rows, slice) else to_device(rows, self.w.device)
        return self.w[on_device], data.from_bytes(self.bytes[rows], self.w.device)

    @torch.no_grad()
    def embed(
        self, image_encoder: nn.Module, latent_encoder: nn.Module, *, batch_size: int = 100
    ) -> tuple[Float[Tensor, "n e"], Float[Tensor, "n e"]]:
        """Return the embeddings of all images, one batch on the device at a time, and of all codes."""
        batches = (slice(start, start + batch_size) for start in range(0, len(self), batch_size))
        images = torch.cat([image_encoder(self.take(rows)[1]) for rows in batches])
        return images, latent_encoder(self.w)


class AlignmentTask(Task):
    """Trains image encoder, latent encoder and temperature on pairs from `generator`."""

    config: AlignmentConfig
    recorded: ClassVar[bool] = True

    def __init__(
        self, config: AlignmentConfig, generator: Generator, *, trained_on: dict[str, str] | None = None
    ) -> None:
        super().__init__(config, trained_on=trained_on)
        self.generator = generator

    def setup(self, fabric: Fabric) -> None:
        """Build the encoders and sample the fixed pairs."""
        super().setup(fabric)
        config = self.config
        self.generator = optim.placed(self.generator, fabric.device)
        shared, body = {"embedding": config.embedding}, {"body": config.body, "widths": config.widths}
        self.images = ImageEncoder(self.generator.size, width=config.width, **shared, **body)
        sizes = {"width": config.latent_width, "depth": config.latent_depth}
        self.codes = LatentEncoder(self.generator.style_dim, **shared, **sizes)
        self.codes.standardise_by(data.sample_codes(self.generator, 4096, config.seed, STATISTICS).cpu())
        kind = ContrastiveLoss if config.loss == "softmax" else SigmoidContrastiveLoss
        self.loss = kind(scale=config.scale, max_scale=config.max_scale, learnable=config.learn_scale)
        self.modules = {"image_encoder": self.images, "latent_encoder": self.codes, "loss": self.loss}
        for module in self.modules.values():
            optim.channels_last(module).to(fabric.device)
        self.optimizers = {"adam": fabric.setup_optimizers(self._adam())}
        self.noise = data.noise_mode(self.generator, training=True)
        self._validation: Pairs | None = None
        self.fixed = None if config.pairs is None else self._pairs(config.pairs, TRAIN)
        self.order = None if config.pairs is None else data.Shuffled(config.pairs, seed=config.seed)

    def step(self, index: int) -> dict[str, float | Tensor]:
        """Embed a batch of pairs and update both encoders by the contrastive loss."""
        config = self.config
        self.set_lr("adam", config.lr * optim.cosine(index, config.steps, warmup=config.warmup))
        if self.fixed is None:
            return self.graphs("step", lambda z: self._learn(*self._synthesised(z)), z=self._z(index))
        w, images = self.batch(index)
        return self.graphs("step", self._learn, w=w, images=images)

    def _learn(self, w: Float[Tensor, "n d"], images: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """Update both encoders with pairs, and return the scalars of the step."""
        with self.fabric.autocast():
            embedded = self.images(images)
        codes = self.codes(w)  # float32, to separate close codes; the network is small
        embedded, codes = optim.gather(self.fabric, embedded), optim.gather(self.fabric, codes)
        loss = self.loss(embedded, codes)
        norm = self.update("adam", loss, *self.modules.values(), clip=self.config.clip)
        nearest = (embedded.detach() @ codes.detach().T).argmax(dim=1)
        accuracy = (nearest == torch.arange(len(nearest), device=nearest.device)).float().mean()
        return {"loss": loss, "scale": self.loss.scale, "gradient": norm, "batch_r1": accuracy}

    @torch.no_grad()
    def validate(self, index: int) -> dict[str, float]:
        """Return loss and retrieval on held-out pairs, and among neighbours of the true code."""
        if self._validation is None:
            self._validation = self._pairs(self.config.validation_pairs, VALIDATION)
        return {f"validation/{name}": value for name, value in self.measure(self._validation).items()}

    def measure(self, pairs: Pairs) -> dict[str, float]:
        """Return loss in batches, recall among all pairs in both directions, recall among neighbours."""
        count, seed = self.config.neighbour_codes, self.config.seed + VALIDATION
        with optim.evaluating(self.images, self.codes):
            images, codes = pairs.embed(self.images, self.codes)
            near = neighbour_retrieval(self.images, self.codes, self.generator, codes=count, seed=seed)
        size = min(self.config.batch_size, len(images))
        whole = len(images) // size * size
        batches = zip(images[:whole].split(size), codes[:whole].split(size), strict=True)
        losses = [float(self.loss(*batch).detach()) for batch in batches]
        rows = {"loss": sum(losses) / len(losses)}
        for name, found in (("image", recall_at_k(images, codes)), ("code", recall_at_k(codes, images))):
            rows |= {f"{name}_r{k}_of_{len(pairs)}": value for k, value in found.items()}
        return rows | {f"neighbours_{step:g}": value for step, value in near.items()}

    def finish(self, folder: Path) -> None:
        """Write both encoders as one file, with retrieval among `final_pairs` on the card."""
        scale = float(self.loss.scale.detach())
        details = {"world": self.config.world, "seed": self.config.seed}
        save_alignment(folder / WEIGHTS, self.images, self.codes, scale=scale, metadata=details)
        measures = self.measure(self._pairs(self.config.final_pairs, FINAL))
        self.write_card(folder / WEIGHTS, measures=measures, scale=scale)

    def _adam(self) -> torch.optim.AdamW:
        weights = [p for module in self.modules.values() for p in module.parameters() if p.requires_grad]
        vectors = {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0}
        groups = [{"params": [p for p in weights if p.ndim > 1]}, vectors]
        options = {"lr": self.config.lr, "weight_decay": self.config.weight_decay}
        return torch.optim.AdamW(groups, **options, betas=(0.9, 0.98), fused=True)

    def _pairs(self, count: int, stream: int) -> Pairs:
        with self.fabric.autocast():
            return Pairs(self.generator, count, self.config.seed, stream)

    def batch(self, index: int) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 3 h w"]]:
        """Return this rank's codes and images of a step."""
        if self.fixed is None or self.order is None:
            return self._synthesised(to_device(self._z(index), self.fabric.device))
        start, count = self.share(self.config.batch_size)
        return self.fixed.take(self.order.take(index * self.config.batch_size + start, count))

    def _z(self, index: int) -> Float[Tensor, "n d"]:
        size = self.config.batch_size
        start, count = self.share(size)
        return data.draw_z(self.generator, count, self.config.seed, TRAIN, index, start=start, total=size)

    @torch.no_grad()
    def _synthesised(self, z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n 3 h w"]]:
        w = self.generator.mapping(z)
        with self.fabric.autocast():
            return w, data.synthesise(self.generator, w, noise=self.noise)


def train(config: AlignmentConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Align a world's images and codes in `folder`; return the folder."""
    world = get_world(config.world)
    task = AlignmentTask(config, world.generator("cpu"), trained_on=digests(world.generator_file))
    return fit(task, config, folder, resume=resume, **options)
