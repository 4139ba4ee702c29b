"""One pretrained body for everything that is compared: what the face network is to pSp and those after it.

The published encoders start from a network that has learned to tell faces (arXiv 2008.00951, section 4.1).
The embedded world has no such network at hand, but it knows what is in its pictures: the body learns to read
their factors. Methods that are compared all start from the same one, so that none owes its place to a better
start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from clcae_lib import cache, paths
from clcae_lib.metrics import r_squared
from clcae_lib.models.backbone import StyleBlock, make_backbone, to_encoder_side
from clcae_lib.training import _common as common
from clcae_lib.training._seeds import Shuffled
from clcae_lib.training.config import ConfigError, Precision, TrainConfig
from clcae_lib.training.loop import Task, fit
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import World, get_world

__all__ = ["BodyConfig", "BodyTask", "FactorReader", "pretrained_body", "train"]

WEIGHTS = "body.safetensors"


class BodyConfig(TrainConfig):
    """Settings of the body's pretraining; the defaults take some minutes of one core."""

    precision: Precision = "bf16-mixed"
    steps: int = Field(default=600, ge=0)
    batch_size: int = Field(default=64, ge=1)
    images: int = Field(default=12_000, ge=1, description="how many training images")
    validation_images: int = Field(default=500, ge=2)
    body: str = "small"
    widths: tuple[int, ...] | None = None
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup: int = Field(default=50, ge=0)
    stage: ClassVar[str] = "body"


class FactorReader(nn.Module):
    """Images to standardised factors: a body, and one style block on its coarsest map.

    Args:
        resolution: side of the pictures.
        factors: how many are read.
        body: name of the body, see `make_backbone`.
        widths: channels of the body, if not its own.
    """

    def __init__(
        self, resolution: int, factors: int, *, body: str = "small", widths: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        self.body = make_backbone(body, widths=widths)
        side = min(resolution, 256) // 16
        self.read = StyleBlock(self.body.channels[-1], factors, side=side, hidden=128, gain=1.0)

    def forward(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch factors"]:
        """Factors of images in [-1, 1], in standard deviations from their mean."""
        return self.read(self.body(to_encoder_side(images))[-1])


class BodyTask(Task):
    """Trains a body to read a world's factors off its pictures.

    Raises:
        ConfigError: the world knows no factors.
    """

    config: BodyConfig

    def __init__(self, config: BodyConfig, world: World) -> None:
        super().__init__(config)
        if not world.factor_names:
            raise ConfigError(
                f"world={world.name!r}: it knows no factors that a body could learn; start from the "
                "alignment's body (init_from_alignment=true) or from random weights (start=fresh)"
            )
        self.world = world

    def setup(self, fabric: Fabric) -> None:
        """Build the reader and bring the pictures into memory."""
        self.fabric, config, world = fabric, self.config, self.world
        reader = FactorReader(
            world.resolution, len(world.factor_names), body=config.body, widths=config.widths
        )
        self.reader = common.channels_last(reader).to(fabric.device)
        self.modules = {"reader": self.reader}
        adam = torch.optim.AdamW(self.reader.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.optimizers = {"adam": fabric.setup_optimizers(adam)}
        self.pictures, self.factors = self._load("train", config.images)
        self.order = Shuffled(len(self.pictures), seed=config.seed)

    def step(self, index: int) -> dict[str, float | Tensor]:
        """One batch: smooth L1 of all factors."""
        optimizer, config = self.optimizers["adam"], self.config
        common.set_rate(optimizer, config.lr * common.cosine(index, config.steps, warmup=config.warmup))
        start, count = common.share(self.fabric, config.batch_size)
        rows = self.order.take(index * config.batch_size + start, count)
        images = self.pictures.images(rows, self.fabric.device)
        with self.fabric.autocast():
            found = self.reader(images)
        loss = nnf.smooth_l1_loss(found.float(), self.factors[rows].to(found.device), beta=0.5)
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        common.average_gradients(self.fabric, self.reader)
        optimizer.step()
        return {"loss": loss}

    @torch.no_grad()
    def validate(self, index: int) -> dict[str, float]:
        """R² of the factors on held-out pictures, their mean."""
        del index
        pictures, factors = self._load("validation", self.config.validation_images)
        parts = torch.arange(len(pictures)).split(250)
        with common.evaluating(self.reader):
            read = [self.reader(pictures.images(part, self.fabric.device)).float().cpu() for part in parts]
        return {"validation/r2_mean": float(r_squared(torch.cat(read), factors).mean())}

    def finish(self, folder: Path) -> None:
        """Write the body alone, with its card."""
        config = {"body": self.config.body, "widths": self.config.widths, "world": self.config.world}
        body = self.reader.body
        checkpoints.save_weights(
            folder / WEIGHTS, body.state_dict(), metadata={"kind": "body", "config": config}
        )
        measures = self.validate(self.config.steps)
        made = {"trained_on": {}, "measures": measures, "renderer": self.world.renderer}
        card = common.card("body", self, self.fabric, **made)
        checkpoints.write_card(folder / WEIGHTS, card)

    def _load(self, split: str, count: int) -> tuple[common.InMemory, Float[Tensor, "n k"]]:
        """Pictures of a split and their factors, standardised by the training split's."""
        images = self.world.images(split, count)
        factors = images.factors(range(len(images)))
        if split == "train":
            self.mean, self.std = factors.mean(dim=0), factors.std(dim=0).clamp_min(1e-6)
        return common.InMemory(images), (factors - self.mean) / self.std


def train(config: BodyConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Pretrain a body in `folder`; returns the folder.

    Raises:
        ConfigError: the world knows no factors.
    """
    return fit(BodyTask(config, get_world(config.world)), config, folder, resume=resume, **options)


def pretrained_body(
    world: str | World, *, device: str = "auto", threads: int | None = None, **settings: Any
) -> dict[str, Tensor]:
    """Return the weights of a body that reads the world's factors: shipped, from the cache, or trained now.

    The world's own `body.safetensors` is taken if its card names the same settings and the same renderer.
    Otherwise the body is trained once and kept in the cache; processes that ask at the same time wait for the
    one that trains. The cache's key covers the settings and the program of the training, of the network and
    of what draws the world's images.

    Args:
        world: or its name.
        device: where it trains, if it must.
        threads: of the training; None leaves torch's choice.
        settings: fields of `BodyConfig`, where they shall not be the default's.

    Raises:
        ConfigError: the world knows no factors, or a setting does not exist.
    """
    world = get_world(world) if isinstance(world, str) else world
    config = BodyConfig(world=world.name, device=device, threads=threads, tensorboard=False, **settings)
    if _is_shipped(config, world):
        return checkpoints.load_weights(world.weights("body"), kind="body")[0]
    path = body_file(config, world)

    def make() -> None:
        train(config, path.parent, progress=False)
        (path.parent / "state.pt").unlink(missing_ok=True)

    return checkpoints.load_weights(cache.made(path, make), kind="body")[0]


def body_file(config: BodyConfig, world: World) -> Path:
    """Return where the cache keeps the body of these settings, trained on this world."""
    key = cache.key(_settings(config), modules=[__name__, type(world).__module__])
    return paths.cache_dir() / "bodies" / key / WEIGHTS


def _settings(config: BodyConfig) -> dict[str, Any]:
    """Return the settings that the result depends on."""
    return config.fixed({}) | {"steps": config.steps}


def _is_shipped(config: BodyConfig, world: World) -> bool:
    """Return whether the world's own body was trained with these settings on images of today's renderer."""
    path = world.weights("body")
    if not path.is_file():
        return False
    card = checkpoints.read_card(path)
    same = {name: card["config"].get(name) for name in _settings(config)} == _settings(config)
    return same and card.get("renderer") == world.renderer
