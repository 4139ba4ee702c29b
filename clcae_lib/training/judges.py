"""Training the judges: oracle, identity embedding and perceptual features, two copies of each.

Copy a is trained on the split `judge_a` and gives losses and labels; copy b on `judge_b`, from another seed,
and measures. All learn from renders, whose factors and landmarks are known. The identity embedding learns by
the contrast of two pictures of one person in different states (supervised contrastive learning, Khosla et
al. 2020, with one positive).

What the oracle learns last, small features of a few pixels, the others need as well: by default they start
from the trunk of the oracle of their own copy, which saw the same split, and never from the other copy's.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field, model_validator
from sklearn.metrics import roc_auc_score
from torch import Tensor

from clcae_lib import paths
from clcae_lib.metrics import r_squared
from clcae_lib.training import _common as common
from clcae_lib.training._seeds import Shuffled, step_generator
from clcae_lib.training.config import ConfigError, Precision, TrainConfig, refuse_changes
from clcae_lib.training.loop import Task, fit
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import get_world
from clcae_lib.worlds.portraits import Portraits, PortraitsWorld
from clcae_lib.worlds.portraits.judges import JUDGES, Judge, build_judge
from clcae_lib.worlds.portraits.renderer import LANDMARKS

__all__ = ["JudgeTask", "JudgesConfig", "augment", "train", "verification_auc"]

Kind = Literal["oracle", "identity", "perceptual"]
Copy = Literal["a", "b"]


class JudgesConfig(TrainConfig):
    """Settings of the judges' training; without `kind` and `copy` all six are trained, one after another."""

    precision: Precision = "bf16-mixed"
    kind: Kind | None = Field(default=None, description="null trains the three kinds")
    copy_: Copy | None = Field(default=None, alias="copy", description="null trains both copies")
    start: Literal["oracle", "random"] = Field(
        default="oracle", description="the trunk of the other kinds: the oracle's of the same copy, or random"
    )
    size: int = Field(default=12_000, ge=2, description="people; each is drawn in two states")
    validation_size: int = Field(default=2000, ge=2)
    batch_size: int = Field(default=128, ge=2)
    steps: int | None = Field(
        default=None, ge=0, description="null: 2700 for an oracle, 500 for those that start from one"
    )
    lr: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    focus: dict[str, float] = Field(
        default={"smile": 5.0, "age": 2.0, "brow_raise": 2.0, "eye_open": 2.0, "mouth_open": 2.0},
        description="factors whose loss counts more: they change few pixels and are learned last",
    )
    weight_factors: float = Field(
        default=0.5, ge=0, description="of the identity's factors beside the contrast"
    )
    checkpoint_every: int = Field(default=200, ge=1)
    validate_every: int = Field(default=400, ge=1)
    log_every: int = Field(default=50, ge=1)

    @model_validator(mode="after")
    def _check(self) -> JudgesConfig:
        if self.devices != 1:
            raise ValueError(f"devices={self.devices}: a judge trains on one device; use devices=1")
        world = get_world(self.world)
        if not isinstance(world, PortraitsWorld):
            raise ValueError(
                f"world={self.world!r}: these judges learn from known factors, as 'portraits' has them"
            )
        if unknown := [name for name in self.focus if name not in world.factor_names]:
            names = ", ".join(world.factor_names)
            raise ValueError(f"focus: no factor is called {unknown[0]!r}; choose from {names}")
        return self

    model_config: ClassVar = {**TrainConfig.model_config, "populate_by_name": True}
    stage: ClassVar[str] = "judges"


def augment(
    images: Float[Tensor, "n 3 h w"], generator: torch.Generator, *, amount: float = 1.0
) -> Float[Tensor, "n 3 h w"]:
    """Images a little brighter, tinted, blurred and noisy, so that a judge also reads generated pictures."""

    def uniform(*shape: int) -> Tensor:
        return (amount * (2 * torch.rand(shape, generator=generator) - 1)).to(images.device)

    n = len(images)
    images = images * (1 + 0.10 * uniform(n, 1, 1, 1)) + 0.06 * uniform(n, 3, 1, 1)
    soft = nnf.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = torch.lerp(images, soft, (2 * uniform(n, 1, 1, 1) - 1).clamp(min=0))
    grain = amount * torch.randn(images.shape, generator=generator).to(images.device)
    return images + 0.04 * uniform(n, 1, 1, 1).clamp(min=0) * grain


class _People:
    """Two pictures of each person with what is true of them."""

    def __init__(self, world: PortraitsWorld, split: str, size: int) -> None:
        views = [world.images(split, size, view=view) for view in (0, 1)]
        self.pictures = [common.InMemory(view) for view in views]
        self.factors = [(view.factors(slice(None)) - world.factor_mean) / world.factor_std for view in views]
        self.landmarks = [self._landmarks(view) for view in views]

    @staticmethod
    def _landmarks(view: Portraits) -> Float[Tensor, "n k"]:
        """Landmarks in half sides of the picture from its centre; their geometry needs no pixels."""
        small = type(view)(view.split, view.size, resolution=8, cache=False, view=view.view)
        return (small.landmarks(slice(None)) / 4 - 1).flatten(1)


class JudgeTask(Task):
    """Trains one judge on renders of its own split."""

    config: JudgesConfig

    def __init__(self, config: JudgesConfig, *, oracle: Path | None = None) -> None:
        """Keep the configuration, and the oracle whose trunk to start from."""
        super().__init__(config)
        self.oracle = oracle
        self.trained_on = common.digests(oracle) if oracle is not None else {}

    def setup(self, fabric: Fabric) -> None:
        """Build the network and bring the renders into memory."""
        self.fabric, config = fabric, self.config
        extra = {"landmarks": len(LANDMARKS)} if config.kind == "perceptual" else {}
        world = get_world(config.world)
        judge = build_judge(str(config.kind), factors=world.factors, **extra)
        if self.oracle is not None:
            _take_trunk(judge, self.oracle)
        self.judge = common.channels_last(judge).to(fabric.device)
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
        """One batch: as many people in one state, or half as many in two."""
        optimizer, config = self.optimizers["adam"], self.config
        common.set_rate(optimizer, config.lr * common.cosine(index, config.steps, warmup=50))
        pairs = config.kind == "identity"
        count = config.batch_size // (2 if pairs else 1)
        rows = self.order.take(index * count, count)
        random = step_generator(config.seed, index, 7)
        self.judge.train()
        losses = [*self._contrast(rows, random)] if pairs else [self._regression(rows, index % 2, random)]
        loss = torch.stack(losses).sum()
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        optimizer.step()
        return {"loss": loss}

    def _batch(self, rows: Tensor, view: int, random: torch.Generator) -> Float[Tensor, "n 3 h w"]:
        return augment(self.people.pictures[view].images(rows, self.fabric.device), random)

    def _regression(self, rows: Tensor, view: int, random: torch.Generator) -> Tensor:
        """Smooth L1 of all standardised factors, and of the landmarks for the perceptual features."""
        images = self._batch(rows, view, random)
        wanted = self.people.factors[view][rows]
        with self.fabric.autocast():
            if self.config.kind == "oracle":
                found = self.judge.standardised(images)
            else:
                found = self.judge.predictions(images)
                wanted = torch.cat([wanted, 3 * self.people.landmarks[view][rows]], 1)
        loss = nnf.smooth_l1_loss(found, wanted.to(found.device), beta=0.5, reduction="none").mean(0)
        count = len(self.names)
        return (loss[:count] * self.weights).mean() + loss[count:].sum() / count

    def _contrast(self, rows: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Each person against the others of the batch, both ways; and the identity's factors."""
        images = torch.cat([self._batch(rows, view, random) for view in (0, 1)])
        wanted = self.judge.targets(torch.cat([self.people.factors[view][rows] for view in (0, 1)]))
        with self.fabric.autocast():
            embedding = self.judge(images)
            found = self.judge.features(embedding * self.judge.log_scale.exp()).float()
        first, second = embedding.float().chunk(2)
        logits = self.judge.log_scale.exp().clamp(max=50) * first @ second.T
        target = torch.arange(len(rows), device=logits.device)
        contrast = (nnf.cross_entropy(logits, target) + nnf.cross_entropy(logits.T, target)) / 2
        factors = nnf.smooth_l1_loss(found, wanted.to(found.device), beta=0.5)
        return contrast, self.config.weight_factors * factors

    @torch.no_grad()
    def validate(self, index: int) -> dict[str, float]:
        """The held-out R² of a regressor, or how well the embedding verifies identities."""
        del index
        with common.evaluating(self.judge):
            measures = self.measures()
        flat = {name: value for name, value in measures.items() if isinstance(value, float)}
        return {f"validation/{name}": value for name, value in flat.items()}

    def measures(self) -> dict[str, Any]:
        """What the card reports of the judge, on people it never saw."""
        outputs = [self._outputs(memory) for memory in self.held_out.pictures]
        if self.config.kind == "identity":
            return verification(outputs[0], outputs[1])
        r2 = r_squared(outputs[0][:, : len(self.names)], self.held_out.factors[0])
        named = {name: round(float(value), 4) for name, value in zip(self.names, r2, strict=True)}
        return {"r2_mean": float(r2.mean()), "r2_least": float(r2.min()), "r2": named}

    @torch.no_grad()
    def _outputs(self, memory: common.InMemory) -> Float[Tensor, "n k"]:
        read = {"oracle": "standardised", "perceptual": "predictions", "identity": "forward"}
        call = getattr(self.judge, read[str(self.config.kind)])
        rows = torch.arange(len(memory)).split(250)
        return torch.cat([call(memory.images(part, self.fabric.device)).float().cpu() for part in rows])

    def finish(self, folder: Path) -> None:
        """Write the weights and their card."""
        kind, path = str(self.config.kind), folder / f"{self.config.kind}_{self.config.copy_}.safetensors"
        with common.evaluating(self.judge):
            measures = self.measures()
        metadata = {"kind": kind, "config": self.judge.config, "world": self.config.world}
        checkpoints.save_weights(path, self.judge.state_dict(), metadata=metadata)
        written = common.card(path.stem, self, self.fabric, trained_on=self.trained_on, measures=measures)
        checkpoints.write_card(path, {**written, "split": f"judge_{self.config.copy_}"})


def verification_auc(same: Float[Tensor, " n"], different: Float[Tensor, " m"]) -> float:
    """Probability that a pair of one person is more similar than a pair of two (area under the ROC curve)."""
    labels = torch.cat([torch.ones_like(same), torch.zeros_like(different)])
    return float(roc_auc_score(labels.numpy(), torch.cat([same, different]).numpy()))


def verification(first: Float[Tensor, "n d"], second: Float[Tensor, "n d"]) -> dict[str, float]:
    """How well unit embeddings tell people apart; rows of `first` and `second` show the same people."""
    same = (first * second).sum(1)
    different = torch.cat([(first * second.roll(shift, 0)).sum(1) for shift in range(1, 11)])
    return {
        "verification_auc": verification_auc(same, different),
        "median_similarity_same": float(same.median()),
        "median_similarity_different": float(different.median()),
    }


def _steps(config: JudgesConfig) -> int:
    """The steps asked for, or those that the shipped judges took."""
    alone = config.kind == "oracle" or config.start == "random"
    return config.steps if config.steps is not None else (2700 if alone else 500)


def _take_trunk(judge: Judge, path: Path) -> None:
    """Copy the trunk of the oracle in this file."""
    tensors, _ = checkpoints.load_weights(path, kind="oracle")
    trunk = {name.removeprefix("trunk."): t for name, t in tensors.items() if name.startswith("trunk.")}
    checkpoints.load_into(judge.trunk, trunk, source=path)


def _oracle(config: JudgesConfig, folder: Path) -> Path | None:
    """The oracle whose trunk a judge starts from: of the same copy, of this run or else the installed one."""
    if config.kind == "oracle" or config.start == "random":
        return None
    name = f"oracle_{config.copy_}.safetensors"
    for path in (folder / name, paths.world_dir(config.world) / name):
        if path.is_file():
            return path
    raise ConfigError(
        f"start=oracle: {folder / name} is missing; train it first (kind=oracle) or set start=random"
    )


def _seed(config: JudgesConfig) -> int:
    """Another seed for each kind and copy."""
    return config.seed + 100 * (1 + list(JUDGES).index(str(config.kind))) + "ab".index(str(config.copy_))


def _is_finished(config: JudgesConfig, weights: Path) -> bool:
    """Whether a judge with these settings was trained to its end.

    Raises:
        ConfigError: a judge was trained there with other settings.
    """
    if not weights.with_suffix(".json").is_file():
        return False
    card, fixed = checkpoints.read_card(weights), config.fixed({})
    oracle = _oracle(config, weights.parent)
    refuse_changes(
        weights.parent,
        {name: card["config"].get(name) for name in fixed} | checkpoints.trained_on(card),
        fixed | (common.digests(oracle) if oracle is not None else {}),
    )
    return card["steps"] == config.steps


def _train_one(config: JudgesConfig, folder: Path, *, resume: bool, **options: Any) -> Path:
    task = JudgeTask(config, oracle=_oracle(config, folder.parent))
    return fit(task, config, folder, resume=resume, **options)


def train(config: JudgesConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Train the judges that `config` names, each in a folder of its own; weights and cards lie in `folder`.

    A judge that was finished in the folder with the same settings is not trained again, where `resume`.

    Raises:
        ConfigError: a judge in the folder was trained with other settings; the message names each difference.
    """
    folder = Path(folder)
    kinds = [config.kind] if config.kind else list(JUDGES)
    copies = [config.copy_] if config.copy_ else ["a", "b"]
    for kind, copy in [(kind, copy) for kind in kinds for copy in copies]:
        name = f"{kind}_{copy}"
        one = config.model_copy(update={"kind": kind, "copy_": copy})
        one = one.model_copy(update={"steps": _steps(one), "seed": _seed(one)})
        if resume and _is_finished(one, folder / f"{name}.safetensors"):
            continue
        _train_one(one, folder / name, resume=resume, **options)
        for suffix in (".safetensors", ".json"):
            shutil.copyfile(folder / name / f"{name}{suffix}", folder / f"{name}{suffix}")
    return folder
