"""Training of the judges: attribute regressor (oracle), identity and perceptual networks, two copies of each.

Copy a, the loss network, is trained on the split `judge_a`; copy b, the evaluation network, on `judge_b` with
another seed. All are trained on renders, whose factors and landmarks are known. The identity network is
trained with two images of each person in different states (supervised contrastive learning, Khosla et al.
2020, with one positive).

Identity and perceptual networks need features of a few pixels, which an oracle learns last. By default they
start from the trunk of the same copy's oracle, trained on the same split, and never from the other copy's.
"""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field, model_validator
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import avg_pool2d, smooth_l1_loss

from clcae_lib import paths
from clcae_lib.devices import to_device
from clcae_lib.losses import contrastive_loss
from clcae_lib.metrics import r_squared
from clcae_lib.training import optim
from clcae_lib.training.config import ConfigError, TrainConfig, refuse_changes
from clcae_lib.training.data import InMemory, Shuffled, as_images, step_generator
from clcae_lib.training.loop import Task, fit
from clcae_lib.training.records import digests
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import get_world
from clcae_lib.worlds.portraits import Portraits, PortraitsWorld
from clcae_lib.worlds.portraits.judges import JUDGES
from clcae_lib.worlds.portraits.renderer import LANDMARKS

Kind = Literal["oracle", "identity", "perceptual"]
Copy = Literal["a", "b"]


class JudgesConfig(TrainConfig):
    """Settings of the judges' training; without `kind` and `copy` all six are trained, one after another."""

    kind: Kind | None = Field(default=None, description="null trains the three kinds")
    copy_: Copy | None = Field(default=None, alias="copy", description="null trains both copies")
    start: Literal["oracle", "random"] = Field(
        default="oracle", description="initial trunk of the other kinds: the same copy's oracle's, or random"
    )
    size: int = Field(default=12_000, ge=2, description="number of people; each is rendered in two states")
    validation_size: int = Field(default=2000, ge=2)
    batch_size: int = Field(default=128, ge=2)
    steps: int | None = Field(default=None, ge=0, description="null: 2700, or 500 with an oracle's trunk")
    lr: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    focus: dict[str, float] = Field(
        default={"smile": 5.0, "age": 2.0, "brow_raise": 2.0, "eye_open": 2.0, "mouth_open": 2.0},
        description="weights of factors that change few pixels and are learned last",
    )
    weight_factors: float = Field(default=0.5, ge=0, description="of the identity's factors")
    checkpoint_every: int = Field(default=200, ge=1)
    validate_every: int = Field(default=400, ge=1)
    log_every: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _check(self) -> JudgesConfig:
        if self.devices != 1:
            raise ValueError(f"devices={self.devices}: a judge trains on one device; use devices=1")
        world = get_world(self.world)
        if not isinstance(world, PortraitsWorld):
            raise ValueError(f"world={self.world!r}: these judges need known factors, as in 'portraits'")
        if unknown := [name for name in self.focus if name not in world.factor_names]:
            names = ", ".join(world.factor_names)
            raise ValueError(f"focus: no factor is called {unknown[0]!r}; choose from {names}")
        return self

    model_config: ClassVar = {**TrainConfig.model_config, "populate_by_name": True}
    stage: ClassVar[str] = "judges"


def augment(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Return images with random brightness, tint, blur and noise, so that judges also work on samples."""

    def uniform(*shape: int) -> Tensor:
        return to_device(2 * torch.rand(shape, generator=generator) - 1, images.device)

    n = len(images)
    images = images * (1 + 0.10 * uniform(n, 1, 1, 1)) + 0.06 * uniform(n, 3, 1, 1)
    soft = avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = torch.lerp(images, soft, (2 * uniform(n, 1, 1, 1) - 1).clamp(min=0))
    grain = to_device(torch.randn(images.shape, generator=generator), images.device)
    return images + 0.04 * uniform(n, 1, 1, 1).clamp(min=0) * grain


class _People:
    """Two views of each person: images, standardised factors and landmarks."""

    def __init__(self, world: PortraitsWorld, split: str, size: int) -> None:
        views = [world.images(split, size, view=view) for view in (0, 1)]
        self.images = [InMemory(view) for view in views]
        self.factors = [(view.factors(slice(None)) - world.factor_mean) / world.factor_std for view in views]
        self.landmarks = [self._landmarks(view) for view in views]

    @staticmethod
    def _landmarks(view: Portraits) -> Float[Tensor, "n k"]:
        """Return landmarks relative to the image's centre, in half sides; a small render is enough."""
        small = Portraits(view.split, view.size, resolution=8, view=view.view)
        return (small.landmarks(slice(None)) / 4 - 1).flatten(1)


class JudgeTask(Task):
    """Trains one judge on renders of its own split.

    Args:
        config: settings, with `kind`, `copy_` and `steps`.
        oracle: file of the oracle whose trunk initialises the judge.
    """

    config: JudgesConfig

    def __init__(self, config: JudgesConfig, *, oracle: Path | None = None) -> None:
        super().__init__(config, trained_on=digests(oracle) if oracle is not None else {})
        self.oracle = oracle

    def setup(self, fabric: Fabric) -> None:
        """Build the network and load the renders into memory."""
        super().setup(fabric)
        config, world = self.config, get_world(self.config.world)
        extra = {"landmarks": len(LANDMARKS)} if config.kind == "perceptual" else {}
        judge = JUDGES[config.kind](**extra)
        if self.oracle is not None:
            tensors, _ = checkpoints.load_weights(self.oracle, kind="oracle")
            trunk = {k.removeprefix("trunk."): t for k, t in tensors.items() if k.startswith("trunk.")}
            checkpoints.load_into(judge.trunk, trunk, source=self.oracle)
        self.judge = optim.channels_last(judge).to(fabric.device)
        self.people = _People(world, f"judge_{config.copy_}", config.size)
        self.held_out = _People(world, "validation", config.validation_size)
        self.modules = {"judge": self.judge}
        adam = torch.optim.AdamW(self.judge.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.optimizers = {"adam": fabric.setup_optimizers(adam)}
        self.order = Shuffled(config.size, seed=config.seed)
        self.names = world.factor_names
        weights = [config.focus.get(name, 1.0) for name in self.names]
        self.weights = torch.tensor(weights, device=fabric.device)

    def step(self, index: int) -> dict[str, float | Tensor]:
        """Update the judge with a batch: one view of each person, or both views of half as many people."""
        config = self.config
        self.set_lr("adam", config.lr * optim.cosine(index, config.steps, warmup=50))
        pairs = config.kind == "identity"
        count = config.batch_size // (2 if pairs else 1)
        rows = self.order.take(index * count, count)
        random = step_generator(config.seed, index, 7)
        self.judge.train()
        loss = self._contrast(rows, random) if pairs else self._regression(rows, index % 2, random)
        self.update("adam", loss, self.judge)
        return {"loss": loss}

    def _batch(self, rows: Tensor, view: int, random: torch.Generator) -> Float[Tensor, "n 3 h w"]:
        return augment(as_images(self.people.images[view].read(rows), self.fabric.device), random)

    def _regression(self, rows: Tensor, view: int, random: torch.Generator) -> Tensor:
        """Return the smooth L1 loss of all factors, and of landmarks for the perceptual network."""
        images = self._batch(rows, view, random)
        wanted = self.people.factors[view][rows]
        if self.config.kind == "perceptual":
            wanted = torch.cat([wanted, 3 * self.people.landmarks[view][rows]], 1)
        with self.fabric.autocast():
            found = self.judge.predictions(images)
        loss = smooth_l1_loss(found, to_device(wanted, found.device), beta=0.5, reduction="none").mean(0)
        count = len(self.names)
        return (loss[:count] * self.weights).mean() + loss[count:].sum() / count

    def _contrast(self, rows: Tensor, random: torch.Generator) -> Tensor:
        """Return the contrastive loss of the people of a batch, plus the loss of identity factors."""
        images = torch.cat([self._batch(rows, view, random) for view in (0, 1)])
        wanted = self.judge.targets(torch.cat([self.people.factors[view][rows] for view in (0, 1)]))
        with self.fabric.autocast():
            embedding = self.judge(images)
            found = self.judge.features(embedding * self.judge.log_scale.exp()).float()
        first, second = embedding.float().chunk(2)
        contrast = contrastive_loss(first, second, scale=self.judge.log_scale.exp().clamp(max=50))
        factors = smooth_l1_loss(found, to_device(wanted, found.device), beta=0.5)
        return contrast + self.config.weight_factors * factors

    def validate(self, index: int) -> dict[str, float]:
        """Return R² of a regressor, or the verification measures of an embedding, on held-out people."""
        flat = {name: value for name, value in self.measures().items() if isinstance(value, float)}
        return {f"validation/{name}": value for name, value in flat.items()}

    @torch.no_grad()
    def measures(self) -> dict[str, Any]:
        """Return the card's measures of the judge, on held-out people."""
        identity, device = self.config.kind == "identity", self.fabric.device
        read = self.judge if identity else self.judge.predictions
        with optim.evaluating(self.judge):
            first, second = (
                torch.cat([read(as_images(part, device)).float().cpu() for part in view.bytes.split(250)])
                for view in self.held_out.images
            )
        if identity:
            return verification(first, second)
        r2 = r_squared(first[:, : len(self.names)], self.held_out.factors[0])
        named = {name: round(float(value), 4) for name, value in zip(self.names, r2, strict=True)}
        return {"r2_mean": float(r2.mean()), "r2_least": float(r2.min()), "r2": named}

    def finish(self, folder: Path) -> None:
        """Write the weights and their card."""
        kind, copy = str(self.config.kind), self.config.copy_
        path, measures = folder / f"{kind}_{copy}.safetensors", self.measures()
        metadata = {"kind": kind, "config": self.judge.config, "world": self.config.world}
        checkpoints.save_weights(path, self.judge.state_dict(), metadata=metadata)
        self.write_card(path, measures=measures, split=f"judge_{copy}")


def verification(first: Float[Tensor, "n d"], second: Float[Tensor, "n d"]) -> dict[str, float]:
    """Return measures of how well embeddings verify identities.

    `verification_auc` is the probability that a pair of one person is more similar than a pair of two people.

    Args:
        first: unit vectors.
        second: unit vectors of the same people, row by row.
    """
    same = (first * second).sum(1)
    different = torch.cat([(first * second.roll(shift, 0)).sum(1) for shift in range(1, 11)])
    labels = torch.cat([torch.ones_like(same), torch.zeros_like(different)])
    return {
        "verification_auc": float(roc_auc_score(labels.numpy(), torch.cat([same, different]).numpy())),
        "median_similarity_same": float(same.median()),
        "median_similarity_different": float(different.median()),
    }


def _oracle(config: JudgesConfig, folder: Path) -> Path | None:
    """Return the oracle whose trunk initialises a judge: that of this run, else the installed one."""
    if config.kind == "oracle" or config.start == "random":
        return None
    name = f"oracle_{config.copy_}.safetensors"
    for path in (folder / name, paths.world_dir(config.world) / name):
        if path.is_file():
            return path
    raise ConfigError(
        f"start=oracle: {folder / name} is missing; train it first (kind=oracle) or set start=random"
    )


def _is_finished(task: JudgeTask, weights: Path) -> bool:
    """Return whether a judge's training is finished; raise an error if it had other settings."""
    if not weights.with_suffix(".json").is_file():
        return False
    card, fixed = checkpoints.read_card(weights), task.config.fixed({})
    old = {name: card["config"].get(name) for name in fixed} | checkpoints.trained_on(card)
    refuse_changes(weights.parent, old, {**fixed, **task.trained_on})
    return card["steps"] == task.config.steps


def train(config: JudgesConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Train the judges that `config` names, each in a folder of its own; weights and cards go to `folder`.

    With `resume`, a judge that is finished in the folder with the same settings is not trained again.

    Raises:
        ConfigError: a judge in the folder was trained with other settings; the message names each difference.
    """
    folder = Path(folder)
    kinds = [config.kind] if config.kind else list(JUDGES)
    for kind, copy in product(kinds, [config.copy_] if config.copy_ else ["a", "b"]):
        seed = config.seed + 100 * (1 + list(JUDGES).index(kind)) + "ab".index(copy)
        shipped = 2700 if kind == "oracle" or config.start == "random" else 500
        steps = shipped if config.steps is None else config.steps
        one = config.model_copy(update={"kind": kind, "copy_": copy, "steps": steps, "seed": seed})
        task, name = JudgeTask(one, oracle=_oracle(one, folder)), f"{kind}_{copy}"
        if resume and _is_finished(task, folder / f"{name}.safetensors"):
            continue
        fit(task, one, folder / name, resume=resume, **options)
        for suffix in (".safetensors", ".json"):
            shutil.copyfile(folder / name / f"{name}{suffix}", folder / f"{name}{suffix}")
    return folder
