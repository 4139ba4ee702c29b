"""Train the feature editor (`models.feature_editor`) on samples of the generator.

The same step d is added to a sample's code a and to an imprecise code b of its image. The residual is F minus
the generator's activation. From the residual of b, with the F of a, the editor must predict the residual of b
+ d, with the F of a + d. In some of the pairs b is a plus noise, and the F of a code is the generator's
activation. In the others b and both F are the encoder's, for the images of a and a + d, so that the editor
also learns what only the encoder's F contains.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor

from clcae_lib.devices import to_device
from clcae_lib.editing import apply, named_directions
from clcae_lib.inversion import ClcaeInverter, Inversion
from clcae_lib.losses import IdentityLoss, PerceptualLoss, ReconstructionLoss
from clcae_lib.models import FeatureEditor
from clcae_lib.training import optim
from clcae_lib.training.config import ConfigError, TrainConfig
from clcae_lib.training.data import sample_codes, step_generator
from clcae_lib.training.loop import Task, fit
from clcae_lib.training.records import digests
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import World, get_world

WEIGHTS = "feature_editor.safetensors"
BANK, HELD_OUT, PAIRS = range(3)
HELD_OUT_SEED = 9_001
ENCODED, NAMED = 0.5, 0.7
"""Shares of pairs with the encoder's residual, and with a step along a named direction."""
REACH, SHARE, NOISE = 2.5, 0.6, 0.4
"""Longest named step, in sd; share of the way to another code; noise of codes, in their sd."""


class FeatureEditorConfig(TrainConfig):
    """Settings of the feature editor's training; the defaults take some minutes on one core."""

    steps: int = Field(default=400, ge=0)
    batch_size: int = Field(default=24, ge=2)
    samples: int = Field(default=3000, ge=8, description="samples that the encoder inverts")
    validation_pairs: int = Field(default=128, ge=2)
    width: int = Field(default=88, ge=1)
    blocks: int = Field(default=4, ge=0)
    lr: float = Field(default=1.5e-3, gt=0)
    warmup: int = Field(default=50, ge=0)
    weight_feature: float = Field(
        default=0.1, ge=0, description="of the residual's error, relative to the formula"
    )
    weight_perceptual: float = Field(default=0.2, ge=0)
    weight_identity: float = Field(default=0.1, ge=0)
    free: ClassVar[frozenset[str]] = TrainConfig.free | {"validation_pairs"}
    stage: ClassVar[str] = "feature_editor"


@dataclass(frozen=True)
class Pairs:
    """Edits of imprecise codes: the editor's arguments and the wanted results.

    Attributes:
        given: residual, activation before, activation after.
        codes: edited imprecise codes.
        goal: the wanted residual.
        images: images of the edited codes with that residual.
    """

    given: tuple[Tensor, Tensor, Tensor]
    codes: Inversion
    goal: Float[Tensor, "n c h w"]
    images: Float[Tensor, "n 3 height width"]


class FeatureEditorTask(Task):
    """Trains the editor with the world's frozen generator and encoder."""

    config: FeatureEditorConfig

    def __init__(self, config: FeatureEditorConfig, world: World) -> None:
        self.world, self.inverter = world, ClcaeInverter.load(world, device="cpu")
        if self.inverter.encoder.config["feature_attention"] == "off":
            raise ConfigError(f"world={world.name!r}: its encoder has no F; train one with feature_attention")
        judges = [world.judge_file(name, "train") for name in ("perceptual", "identity")]
        files = [world.generator_file, world.inversion("foundation"), world.weights("directions"), *judges]
        super().__init__(config, trained_on=digests(*(file for file in files if file and file.is_file())))

    def setup(self, fabric: Fabric) -> None:
        """Build the editor, the losses and the inverted samples."""
        super().setup(fabric)
        config, world, device = self.config, self.world, fabric.device
        self.generator = optim.placed(self.inverter.generator, device)
        self.encoder = optim.placed(self.inverter.encoder, device)
        self.steps = self._named_steps()
        self.loss = ReconstructionLoss(
            perceptual=PerceptualLoss(optim.placed(world.perceptual("train"), device)),
            identity=IdentityLoss(optim.placed(world.identity("train"), device)),
        )
        side = self.encoder.config["feature_side"]
        sizes = {"side": side, "width": config.width, "blocks": config.blocks}
        self.editor = optim.channels_last(FeatureEditor(self.generator.channels[side], **sizes)).to(device)
        self.modules = {"editor": self.editor}
        adam = torch.optim.Adam(self.editor.parameters(), lr=config.lr)
        self.optimizers = {"adam": fabric.setup_optimizers(adam)}
        self.bank = self._inverted(config.samples, config.seed, BANK)

    def step(self, index: int) -> dict[str, float | Tensor]:
        """Update the editor with one batch of pairs."""
        config = self.config
        self.set_lr("adam", config.lr * optim.cosine(index, config.steps, warmup=config.warmup, floor=0.01))
        count = self.share(config.batch_size)[1]
        source = step_generator(config.seed, PAIRS, index, self.fabric.global_rank)
        pairs = self.pairs(self.bank, torch.randint(config.samples, (count,), generator=source), source)
        with self.fabric.autocast():
            made = self.editor(*pairs.given)
        terms = self.compare(pairs, made)
        weights = {"l2": 1.0, **{name: getattr(config, f"weight_{name}") for name in terms if name != "l2"}}
        total = sum(weights[name] * term for name, term in terms.items())
        norm = self.update("adam", total, self.editor, clip=1.0)
        return {"loss": total, "gradient": norm, **terms}

    @torch.no_grad()
    def pairs(self, bank: Inversion, rows: Tensor, source: torch.Generator) -> Pairs:
        """Return pairs for these rows of inverted samples, with one step for true and imprecise codes."""
        generator, count = self.generator, len(rows)
        encoded, device = round(ENCODED * count), self.fabric.device
        with self.fabric.autocast():
            found = bank[to_device(rows, device)].map(Tensor.float)
            true = Inversion.from_w(found.w, generator)
            noise = torch.randn(count, generator.n_latent + 1, generator.style_dim, generator=source)
            noise = (noise[:, :1] + noise[:, 1:]) * NOISE * torch.rand(count, 1, 1, generator=source)
            imprecise = true.w_plus + to_device(noise, device) * generator.w_std
            imprecise = torch.cat([found.w_plus[:encoded], imprecise[encoded:]])
            feature = torch.cat([found.feature[:encoded], self._activation(true)[encoded:]])
            before = replace(true, w_plus=imprecise)
            step, styles = self._edit(bank, found.w, source)
            true, after = (
                replace(codes, w_plus=codes.w_plus + step, styles=styles) for codes in (true, before)
            )
            own, moved, goal = (self._activation(codes) for codes in (before, after, true))
            goal = torch.cat([self._encoded(true[slice(encoded)]).feature, goal[encoded:]]) - moved
            images = self._images(after, moved + goal)
        return Pairs((feature - own, own, moved), after, goal, images)

    def compare(self, pairs: Pairs, made: Float[Tensor, "n c h w"]) -> dict[str, Tensor]:
        """Return the loss terms of predicted residuals.

        `feature` is their squared error divided by that of the formula, which does not change residuals.
        """
        residual, _, moved = pairs.given
        with self.fabric.autocast():
            shown = self._images(pairs.codes, moved + made)
        error, formula = ((x - pairs.goal).square().mean() for x in (made, residual))
        return {**self.loss({"f": shown}, pairs.images)["f"], "feature": error / formula}

    @torch.no_grad()
    def validate(self, index: int) -> dict[str, float]:
        """Return the loss terms of held-out pairs with the editor and, with prefix `formula_`, without."""
        held_out = self._inverted(self.config.validation_pairs, HELD_OUT_SEED, HELD_OUT)
        source = step_generator(HELD_OUT_SEED, PAIRS)
        pairs = self.pairs(held_out, torch.arange(len(held_out)), source)
        with optim.evaluating(self.editor):
            terms = self.compare(pairs, self.editor(*pairs.given))
        formula = self.compare(pairs, pairs.given[0])
        terms |= {f"formula_{name}": term for name, term in formula.items()}
        return {f"validation/{name}": float(term) for name, term in terms.items()}

    def finish(self, folder: Path) -> None:
        """Write the editor and its card."""
        metadata = {"kind": "feature_editor", "config": self.editor.config, "world": self.config.world}
        checkpoints.save_weights(folder / WEIGHTS, self.editor.state_dict(), metadata=metadata)
        measures = self.validate(self.config.steps)
        self.write_card(folder / WEIGHTS, measures={k.partition("/")[2]: v for k, v in measures.items()})

    @torch.no_grad()
    def _inverted(self, count: int, *numbers: int) -> Inversion:
        """Return the encoder's codes of samples, in half precision, with the true `w`."""
        parts = []
        for w in sample_codes(self.generator, count, *numbers).split(64):
            with self.fabric.autocast():
                found = self._encoded(Inversion.from_w(w, self.generator))
            parts.append(replace(found.map(Tensor.half), w=w))
        return Inversion.cat(parts)

    def _encoded(self, codes: Inversion) -> Inversion:
        """Return the encoder's codes of the images of codes."""
        return Inversion.from_codes(self.encoder(self.world.view(self._images(codes))))

    def _images(self, codes: Inversion, feature: Tensor | None = None) -> Float[Tensor, "n 3 h w"]:
        options = {"feature": feature, "style_offsets": codes.styles}
        return self.generator.synthesis(codes.w_plus, **options).float()

    def _activation(self, codes: Inversion) -> Float[Tensor, "n c h w"]:
        side = self.editor.config["side"]
        return self.generator.activation(codes.w_plus, side=side, style_offsets=codes.styles).float()

    @torch.no_grad()
    def _named_steps(self) -> tuple[Float[Tensor, "k l d"], Float[Tensor, "k s"]]:
        """Return the steps of the named directions in W+ and in styles, after a first row of zeros."""
        generator, device = self.generator, self.fabric.device
        start = Inversion.from_w(torch.zeros(1, generator.style_dim, device=device), generator)
        start = replace(start, styles=torch.zeros(1, sum(generator.style_sizes), device=device))
        directions = named_directions(self.world, device=device).values()
        rows = [start, *(apply(generator, start, direction) for direction in directions)]
        return torch.cat([row.w_plus for row in rows]), torch.cat([row.styles for row in rows])

    def _edit(
        self, bank: Inversion, w: Float[Tensor, "n d"], source: torch.Generator
    ) -> tuple[Float[Tensor, "n l d"], Float[Tensor, "n s"]]:
        """Return random steps of W+ and styles: along a named direction, or toward another code."""
        count, known = len(w), len(self.steps[0]) - 1
        named = (torch.rand(count, generator=source) < NAMED) & (known > 0)
        which = named * (1 + torch.randint(max(1, known), (count,), generator=source))
        size = REACH * (2 * torch.rand(count, generator=source) - 1)
        others = torch.randint(len(bank), (count,), generator=source)
        share = ~named * SHARE * torch.rand(count, generator=source)
        drawn = (to_device(part, w.device) for part in (which, size[:, None], others, share[:, None]))
        which, size, others, share = drawn
        step = (share * (bank.w[others] - w))[:, None] + size[:, None] * self.steps[0][which]
        return step, size * self.steps[1][which]


def train(config: FeatureEditorConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Train the feature editor in `folder`; return the folder."""
    return fit(FeatureEditorTask(config, get_world(config.world)), config, folder, resume=resume, **options)
