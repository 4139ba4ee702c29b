"""Training of the inversion encoder on top of a frozen generator (arXiv 2211.11448, sections 3.2 and 3.3).

Each step encodes a target, decodes it from w, from W+ and from W+ with F, and compares all three images with
it. The alignment compares w with the target, and F is kept near the generator's own activation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from clcae_lib.losses import ContrastiveLoss, feature_blend, feature_loss
from clcae_lib.metrics import psnr
from clcae_lib.models import Codes
from clcae_lib.models.published import MIN_SIDE
from clcae_lib.spaces import broadcast_w, feature_layer
from clcae_lib.training import optim
from clcae_lib.training.config import ConfigError
from clcae_lib.training.data import sample_codes
from clcae_lib.training.encoders import BANK, HELD_OUT, EncoderConfig, EncoderTask, Parts, world_parts
from clcae_lib.training.loop import fit
from clcae_lib.training.records import tile
from clcae_lib.weights import ENCODERS

IMAGES = ("f", "w_plus", "w")
"""The three reconstructions, in the order in which they are shown."""

PRESETS: dict[str, dict[str, Any]] = {
    "foundation": {
        "wplus_attention": "spatial",
        "feature_attention": "spatial",
        "alignment": "bank",
        "alignment_input": "input",
        "init_from_alignment": True,
        "lpips_scales": 1,
        "weight_feature": 1.0,
        "ramp": "run",
        "optimizer": "adam",
        "schedule": "cosine",
        "flip": 0.0,
        "average_flip": False,
        "clip": 1.0,
        "ema_half_life": 2000.0,
    },
    "published": {
        "wplus_attention": "single",
        "feature_attention": "single",
        "alignment": "batch",
        "alignment_input": "w_reconstruction",
        "init_from_alignment": False,
        "lpips_scales": 1,
        "weight_feature": 0.01,
        "ramp": "epoch",
        "optimizer": "ranger",
        "schedule": "plateau",
        "flip": 0.5,
        "average_flip": True,
        "clip": None,
        "ema_half_life": 0.0,
    },
}
"""The values of each preset; `foundation` follows the paper, `published` its code.

The departures of the code from the paper can be set one by one in preset `foundation`, such as
`clcae train inversion --set ramp=epoch`:

- `wplus_attention`: a layer of W+ attends to the pixels of its level; in the code, to one pooled vector,
  which has no effect.
- `feature_attention`: F attends to T3's pixels and to W+; in the code, to one vector, w, which adds the same
  at every pixel.
- `alignment_input`: w is compared with the input image; in the code, with its own reconstruction.
- `alignment`: negatives come from a bank of random codes; in the code, from the rest of the batch, which is
  one at batch size 2.
- `init_from_alignment`: the backbone starts from the contrastive encoder; in the code it does not, without a
  warning.
- `lpips_scales`: the perceptual distance is summed over three scales; in the code, one scale overwrites the
  sum.
- `weight_feature`: F is held near the generator's activation with weight 1; in the code, with 0.01.
- `ramp`: F is blended in once, and validation uses all of it; in the code, in every epoch, and validation
  uses the same share.

`lpips_scales` is 1 in both presets: three scales cost a third more and are an option of the published code,
not of the paper. `published` has its own network, where attention is always `single`.
"""
SMALL: dict[str, Any] = {"body": "irse_small", "lr": 2e-3}
"""Defaults of `published` at the portraits' size; a world of photographs has others."""


class InversionConfig(EncoderConfig):
    """Settings of the inversion's training; missing settings are those of the preset.

    The weights are the paper's. Each reconstruction (from F, W+ and w) has L2, perceptual and identity terms.
    """

    preset: Literal["foundation", "published"] = "foundation"

    wplus_attention: Literal["spatial", "single", "none"]
    feature_attention: Literal["spatial", "single", "off"]
    alignment: Literal["bank", "batch", "off"]
    alignment_input: Literal["input", "w_reconstruction"]
    init_from_alignment: bool
    ramp: Literal["run", "epoch"]
    ramp_epoch: int = Field(default=500, ge=2, description="steps of an epoch, for ramp or schedule")

    units: tuple[int, ...] = Field(default=(1, 1, 2, 1), description="of the published backbone's stages")
    style_hidden: int | None = Field(default=24, description="channels in the published style blocks")
    hidden: int | None = Field(default=64, description="width of the published feed-forward layers")
    heads: int = Field(default=4, ge=1)

    weight_alignment: float = Field(default=0.1, ge=0)
    weight_feature: float = Field(ge=0, description="of the feature term; 1 in the paper")
    weight_w: float = Field(default=0.0, ge=0, description="regression of w on samples, in its variance")
    picture_weights: dict[Literal["f", "w_plus", "w"], float] = Field(
        default={"f": 1.0, "w_plus": 1.0, "w": 1.0}, description="of the reconstructions"
    )
    bank: int = Field(default=4096, ge=1, description="random codes as negatives, where alignment=bank")
    average_flip: bool = Field(
        description="a defect of the published code: the mean image is mirrored independently of the input"
    )
    optimizer: Literal["adam", "ranger"]
    schedule: Literal["cosine", "constant", "plateau"] = Field(
        description="plateau: a tenth when the mean validation loss has not fallen for 10 epochs (ramp_epoch)"
    )

    stage: ClassVar[str] = "inversion"
    variant_field: ClassVar[str] = "preset"

    @classmethod
    def preset_values(cls, preset: Any) -> dict[str, Any]:
        """Return the settings of a preset; those of `foundation` if there is none of that name."""
        return PRESETS["published" if preset == "published" else "foundation"]

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Return settings completed by those of the preset, then by the defaults for small networks."""
        if not isinstance(values, dict):
            return values
        preset = values.get("preset")
        return {**(SMALL if preset == "published" else {}), **cls.preset_values(preset), **values}

    @model_validator(mode="after")
    def _check(self) -> InversionConfig:
        published = self.preset == "published"
        bodies = ("irse_small", "irse50") if published else ("small", "irse_small", "irse50")
        if self.body not in bodies:
            raise ValueError(f"body={self.body!r}: preset={self.preset} has {', '.join(bodies)}")
        if self.average_flip and not published:
            raise ValueError("average_flip: only preset=published has a mean image as input")
        fixed = {"wplus_attention": "single", "feature_attention": "single", "feature_side": 16}
        wrong = [name for name, value in fixed.items() if published and getattr(self, name) != value]
        if wrong:
            raise ValueError(
                f"{wrong[0]}: preset=published has only {fixed[wrong[0]]!r}; use preset=foundation"
            )
        return self

    @property
    def needs_alignment(self) -> bool:
        """Whether the training uses the aligned encoders: in the loss, or for the initial weights."""
        return self.alignment != "off" or self.init_from_alignment

    @property
    def needs_backbone(self) -> bool:
        """Whether the training starts from the pretrained backbone."""
        return self.start == "pretrained" and not self.init_from_alignment


class AlignmentTerm(nn.Module):
    """The alignment's loss of w: an image must be nearest to its own code. Both encoders are frozen.

    Args:
        alignment: image encoder, latent encoder and the scale that they were trained to; they are copied.
        bank: codes `[M, D]` whose embeddings are additional negatives; None for none.
    """

    bank: Tensor | None

    def __init__(
        self,
        alignment: tuple[nn.Module, nn.Module, float],
        *,
        bank: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        *encoders, scale = alignment
        self.image_encoder, self.latent_encoder = (copy.deepcopy(encoder) for encoder in encoders)
        self.loss = ContrastiveLoss(scale=min(scale, 100.0), learnable=False)
        self.to(device)
        with torch.no_grad():
            embedded = None if bank is None else self.latent_encoder(bank.to(device))
        self.register_buffer("bank", embedded, persistent=False)

    def forward(
        self, images: Float[Tensor, "n 3 h w"], w: Float[Tensor, "n d"], *, fabric: Fabric
    ) -> Float[Tensor, ""]:
        """Return the loss of codes and images, both with gradient, over the batch of all ranks."""
        embedded = optim.gather(fabric, self.image_encoder(images).float())
        # As in the alignment's training: bfloat16 cannot separate close codes.
        with torch.autocast(w.device.type, enabled=False):
            codes = optim.gather(fabric, self.latent_encoder(w.float()))
            return self.loss(embedded, codes, negatives=self.bank)


class InversionTask(EncoderTask):
    """Trains CLCAE's encoder of either preset; every departure of the published code is a setting.

    Raises:
        ConfigError: the configuration needs an alignment that `parts` lacks.
    """

    config: InversionConfig
    recorded: ClassVar[bool] = True

    def __init__(self, config: InversionConfig, parts: Parts) -> None:
        super().__init__(config, parts)
        if parts.alignment is None and config.needs_alignment:
            raise ConfigError(
                "alignment: there are no aligned encoders; train them, or set alignment=off and "
                "init_from_alignment=false"
            )
        self.plateau = optim.Plateau(config.lr) if config.schedule == "plateau" else None

    def setup(self, fabric: Fabric) -> None:
        """Build the task and the alignment's loss."""
        super().setup(fabric)
        config = self.config
        self.feature_index = feature_layer(config.feature_side)
        self.alignment = None
        if config.alignment != "off" and config.weight_alignment > 0:
            bank = None
            if config.alignment == "bank":
                bank = sample_codes(self.generator, config.bank, config.seed, BANK)
            self.alignment = AlignmentTerm(self.parts.alignment, bank=bank, device=fabric.device)

    def step(self, index: int) -> dict[str, float | Tensor]:
        """Encode a batch, decode it from w, W+ and F, and update the encoder by the weighted losses."""
        config = self.config
        if self.plateau is not None and index > 0 and index % config.ramp_epoch == 0:
            self.plateau.step(self.validation_loss(index))
        self.set_lr("optimizer", config.lr * self.lr_factor(index))
        blend = torch.tensor(self._blend(index))
        scalars = self.graphs("step", self._learn, blend=blend, **self.draw(index))
        self.update_ema()
        return scalars

    def _learn(self, blend: Tensor, **drawn: Tensor) -> dict[str, Tensor]:
        """Update the encoder with the result of `draw`, and return the scalars of the step."""
        target, known = self.targets(**drawn)
        with self.fabric.autocast():
            codes = self.encode(target)
            terms, total = self.losses(codes, target, known, blend=blend, noise=self.noise)
        return self.update_encoder(terms, total)

    def losses(
        self, codes: Codes, target: Tensor, known: Tensor, *, blend: float | Tensor, noise: str
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return every term of the objective by name, unweighted, and their weighted sum.

        Args:
            target: images, `[N, 3, H, W]`; the first of them are samples of the generator.
            known: true codes of the samples, `[M, D]`.
            blend: share of F in the generator's activation, 0 to 1.
        """
        config = self.config
        images, activation = self.decode(codes, blend=blend, noise=noise)
        terms, total = self.reconstruction_terms(images, target, weights=config.picture_weights)
        if codes.feature is not None:
            terms["feature"] = feature_loss(codes.feature, activation)
            total = total + config.weight_feature * terms["feature"]
        if self.alignment is not None:
            aligned = target if config.alignment_input == "input" else images["w"].float()
            terms["alignment"] = self.alignment(aligned, codes.w, fabric=self.fabric)
            total = total + config.weight_alignment * terms["alignment"]
        if config.weight_w > 0 and len(known):
            variance = self.generator.w_std.square().mean()
            terms["w"] = mse_loss(codes.w[: len(known)].float(), known) / variance
            total = total + config.weight_w * terms["w"]
        return terms, total

    def decode(self, codes: Codes, *, blend: float | Tensor, noise: str) -> tuple[dict[str, Tensor], Tensor]:
        """Return all reconstructions, from one call of the generator, and its own activation at F's layer."""
        count, w = len(codes.w), broadcast_w(codes.w, self.generator.n_latent)
        options: dict[str, Any] = {"noise": noise}
        if codes.feature is not None:
            options |= {"feature": codes.feature, "feature_blend": blend, "append": True}
        images, features = self.generator.run_with_activations(torch.cat([codes.w_plus, w]), **options)
        seen = dict(zip(("w_plus", "w", "f"), self.parts.view(images).split(count), strict=False))
        return {name: seen[name] for name in IMAGES if name in seen}, features[self.feature_index][:count]

    @torch.no_grad()
    def reconstruct(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Float[Tensor, "n 3 h w"]]:
        """Return the reconstructions of images from W, W+ and F, with a blend of 1."""
        return self.decode(self.result(images), blend=1.0, noise=self.fixed_noise)[0]

    def validate(self, index: int) -> dict[str, float]:
        """Return the PSNR in dB of held-out images' reconstructions, with the blend of F for validation."""
        blend = self._blend(index) if self.config.ramp == "epoch" else 1.0

        def measured(batch: Tensor) -> dict[str, Tensor]:
            with self.fabric.autocast():
                images = self.decode(self.result(batch), blend=blend, noise=self.fixed_noise)[0]
            return {f"validation/psnr_{name}": psnr(image.float(), batch) for name, image in images.items()}

        return self.validation_means(measured)

    @torch.no_grad()
    def validation_loss(self, index: int) -> float:
        """Return the mean of the whole objective over held-out images, in batches of the training's size."""
        blend = self._blend(index - 1) if self.config.ramp == "epoch" else 1.0
        options = {"blend": blend, "noise": self.fixed_noise}
        known = self.generator.w_avg[None][:0]
        with optim.evaluating(self.encoder), self.fabric.autocast():
            found = [
                self.losses(self.encoder(batch), batch, known, **options)[1].float()
                for batch in self.held_out().split(min(self.eval_batch_size, self.config.batch_size))
            ]
        mean = torch.stack(found).mean()
        return float(mean if self.fabric.world_size == 1 else self.fabric.all_reduce(mean, reduce_op="mean"))

    @torch.no_grad()
    def sheet(self, index: int) -> Float[Tensor, "3 h w"]:
        """Return rows of targets (8 held-out images, 8 samples) and reconstructions from W, W+ and F."""
        w = sample_codes(self.generator, 8, self.config.seed, HELD_OUT)
        size = self.eval_batch_size
        with optim.evaluating(self.result), self.fabric.autocast():
            samples = [self.parts.view(self.generator.synthesis(part)) for part in w.split(size)]
            targets = torch.cat([self.held_out()[:8], *(part.float() for part in samples)])
            parts = [self.reconstruct(part) for part in targets.split(size)]
        images = {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}
        rows = [targets, *reversed(images.values())]
        return tile(torch.cat(rows).clamp(-1, 1).cpu(), columns=16)

    def state(self) -> dict[str, Any]:
        """Return the count of images and the state of the schedule."""
        return super().state() | ({"plateau": self.plateau.state()} if self.plateau else {})

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the count of images and the schedule."""
        super().load_state(state)
        if self.plateau is not None:
            self.plateau.load_state(state["plateau"])

    def build_encoder(self) -> nn.Module:
        """Return the preset's encoder, with the alignment's, given or random weights of the backbone.

        Raises:
            ConfigError: the images are too small for the preset, or the backbone does not fit.
        """
        config, parts, generator = self.config, self.parts, self.generator
        published = config.preset == "published"
        options: dict[str, Any] = {"resolution": generator.size, "style_dim": generator.style_dim}
        options |= {"feature_channels": generator.channels[config.feature_side], "heads": config.heads}
        if published:
            if generator.size < MIN_SIDE:
                raise ConfigError(f"preset=published: it needs images of {MIN_SIDE} pixels or more")
            options |= {"style_hidden": config.style_hidden, "hidden": config.hidden}
            if config.body == "irse_small":
                options |= {"widths": (16, 24, 48, 80, generator.style_dim), "units": config.units}
            given = {"widths": config.widths, "height": parts.height}
            options |= {name: value for name, value in given.items() if value is not None}
        else:
            names = ("body", "widths", "wplus_attention", "feature_attention", "feature_side")
            options |= {name: getattr(config, name) for name in names}
        encoder = ENCODERS[config.preset](**options)
        body = encoder if published else encoder.body
        if config.init_from_alignment:
            _initialise(body, parts.alignment[0].body.state_dict(), "init_from_alignment")
        elif parts.start is not None:
            _initialise(body, parts.start, "start")
        return encoder

    def build_optimizer(self) -> torch.optim.Optimizer:
        """Return Adam, or the published optimizer, Ranger."""
        if self.config.optimizer == "ranger":
            return optim.make_ranger(self.encoder.parameters(), lr=self.config.lr)
        return super().build_optimizer()

    def lr_factor(self, index: int) -> float:
        """Return the learning rate of a step as a share of `config.lr`."""
        return super().lr_factor(index) * (1.0 if self.plateau is None else self.plateau.factor)

    def _blend(self, index: int) -> float:
        config = self.config
        return feature_blend(index, config.steps, ramp=config.ramp, epoch=config.ramp_epoch)

    def encode(self, target: Tensor) -> Codes:
        """Return the codes; with `average_flip`, mean images are mirrored at random, as published."""
        if not self.config.average_flip or self.config.flip <= 0:
            return self.encoder(target)
        average = self.encoder.average
        mirrored = torch.rand(len(target), 1, 1, 1, device=target.device) < self.config.flip
        return self.encoder(target, average=torch.where(mirrored, average.flip(3), average))


def _initialise(body: nn.Module, source: Mapping[str, Tensor], setting: str) -> None:
    """Copy the weights of a trained backbone."""
    own = body.state_dict()
    misfits = [name for name in source if name not in own or own[name].shape != source[name].shape]
    if misfits:
        raise ConfigError(
            f"{setting}: that backbone has other layers ({misfits[0]}, ...); set its body and widths, "
            "or init_from_alignment=false and start=fresh"
        )
    body.load_state_dict({**own, **source})


def train(config: InversionConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Train a world's inversion encoder in `folder`; return the folder."""
    return fit(InversionTask(config, world_parts(config)), config, folder, resume=resume, **options)
