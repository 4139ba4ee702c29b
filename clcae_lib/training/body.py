"""Pretrain one backbone by factor regression; every compared encoder starts from it.

The published encoders start from a network trained to recognise faces (arXiv 2008.00951, section 4.1). The
embedded world has no such network, but the factors of its images are known: the backbone learns to predict
them.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from clcae_lib import cache, paths
from clcae_lib.devices import to_device
from clcae_lib.metrics import r_squared
from clcae_lib.models.backbone import StyleBlock, make_backbone, to_encoder_side
from clcae_lib.training import optim
from clcae_lib.training.config import ConfigError, TrainConfig
from clcae_lib.training.data import InMemory, Shuffled, as_images
from clcae_lib.training.loop import Task, fit
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import World, get_world

WEIGHTS = "body.safetensors"


class BodyConfig(TrainConfig):
    """Settings of the backbone's pretraining; the defaults take some minutes on one core."""

    steps: int = Field(default=600, ge=0)
    batch_size: int = Field(default=64, ge=1)
    images: int = Field(default=12_000, ge=1, description="number of training images")
    validation_images: int = Field(default=500, ge=2)
    body: str = "small"
    widths: tuple[int, ...] | None = None
    lr: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup: int = Field(default=50, ge=0)
    stage: ClassVar[str] = "body"


class FactorReader(nn.Module):
    """Map images to standardised factors: a backbone, and one style block on its coarsest map."""

    def __init__(
        self, resolution: int, factors: int, *, body: str = "small", widths: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        self.body = make_backbone(body, widths=widths)
        side = min(resolution, 256) // 16
        self.read = StyleBlock(self.body.channels[-1], factors, side=side, hidden=128, gain=1.0)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n k"]:
        """Return the factors of images in [-1, 1], in standard deviations from their mean."""
        return self.read(self.body(to_encoder_side(images))[-1])


class BodyTask(Task):
    """Trains a backbone to read a world's factors from its images.

    Raises:
        ConfigError: the factors of the world's images are not known.
    """

    config: BodyConfig

    def __init__(self, config: BodyConfig, world: World) -> None:
        super().__init__(config)
        if not world.factor_names:
            raise ConfigError(
                f"world={world.name!r}: its images have no known factors that a backbone could learn; start "
                "from the alignment (init_from_alignment=true) or from random weights (start=fresh)"
            )
        self.world = world

    def setup(self, fabric: Fabric) -> None:
        """Build the network and load the images into memory."""
        super().setup(fabric)
        config, world = self.config, self.world
        reader = FactorReader(
            world.resolution, len(world.factor_names), body=config.body, widths=config.widths
        )
        self.reader = optim.channels_last(reader).to(fabric.device)
        self.modules = {"reader": self.reader}
        adam = torch.optim.AdamW(self.reader.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.optimizers = {"adam": fabric.setup_optimizers(adam)}
        self.images, self.factors = self._load("train", config.images)
        self.order = Shuffled(len(self.images), seed=config.seed)

    def step(self, index: int) -> dict[str, float | Tensor]:
        """Update the network by the smooth L1 loss of all factors of a batch."""
        config = self.config
        self.set_lr("adam", config.lr * optim.cosine(index, config.steps, warmup=config.warmup))
        start, count = self.share(config.batch_size)
        rows = self.order.take(index * config.batch_size + start, count)
        images = as_images(self.images.read(rows), self.fabric.device)
        with self.fabric.autocast():
            found = self.reader(images)
        loss = smooth_l1_loss(found.float(), to_device(self.factors[rows], found.device), beta=0.5)
        self.update("adam", loss, self.reader)
        return {"loss": loss}

    @torch.no_grad()
    def validate(self, index: int) -> dict[str, float]:
        """Return the mean R² of the factors of held-out images."""
        images, factors = self._load("validation", self.config.validation_images)
        batches = (as_images(part, self.fabric.device) for part in images.bytes.split(250))
        with optim.evaluating(self.reader):
            read = [self.reader(batch).float().cpu() for batch in batches]
        return {"validation/r2_mean": float(r_squared(torch.cat(read), factors).mean())}

    def finish(self, folder: Path) -> None:
        """Write the backbone, without the layers for factors, and its card."""
        config = {"body": self.config.body, "widths": self.config.widths, "world": self.config.world}
        metadata = {"kind": "body", "config": config}
        checkpoints.save_weights(folder / WEIGHTS, self.reader.body.state_dict(), metadata=metadata)
        measures = self.validate(self.config.steps)
        self.write_card(folder / WEIGHTS, measures=measures, renderer=self.world.renderer)

    def _load(self, split: str, count: int) -> tuple[InMemory, Float[Tensor, "n k"]]:
        """Return images of a split and their factors, standardised by the training split's mean and sd."""
        images = self.world.images(split, count)
        factors = images.factors(range(len(images)))
        if split == "train":
            self.mean, self.std = factors.mean(dim=0), factors.std(dim=0).clamp_min(1e-6)
        return InMemory(images), (factors - self.mean) / self.std


def train(config: BodyConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Pretrain a backbone in `folder`; return the folder."""
    return fit(BodyTask(config, get_world(config.world)), config, folder, resume=resume, **options)


def pretrained_body(world: str | World, *, device: str = "auto", **settings: Any) -> dict[str, Tensor]:
    """Return the weights of a backbone that predicts the world's factors: shipped, cached, or trained now.

    The world's `body.safetensors` is used if its card has the same settings and the same renderer. Otherwise
    the backbone is trained once and cached; the key has its settings and the programs of training, network
    and renderer. Other processes that call this wait for the one that trains.

    Args:
        settings: fields of `BodyConfig` that differ from the defaults.

    Raises:
        ConfigError: the factors of the world's images are not known, or a setting does not exist.
    """
    world = get_world(world) if isinstance(world, str) else world
    config = BodyConfig(world=world.name, device=device, tensorboard=False, **settings)
    path, shipped = body_file(config, world), world.weights("body")
    if shipped.is_file():
        card = checkpoints.read_card(shipped)
        if _settings(config).items() <= card["config"].items() and card.get("renderer") == world.renderer:
            return checkpoints.load_weights(shipped, kind="body")[0]

    def make() -> None:
        train(config, path.parent, progress=False)
        (path.parent / "state.pt").unlink(missing_ok=True)

    return checkpoints.load_weights(cache.made(path, make), kind="body")[0]


def body_file(config: BodyConfig, world: World) -> Path:
    """Return the cache file of a backbone with these settings, trained on this world."""
    key = cache.key(_settings(config), modules=[__name__, type(world).__module__])
    return paths.cache_dir() / "bodies" / key / WEIGHTS


def _settings(config: BodyConfig) -> dict[str, Any]:
    """Return the settings that the result depends on."""
    return config.fixed({}) | {"steps": config.steps}
