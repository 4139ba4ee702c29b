"""Training of the encoders that CLCAE is compared with, all on the same pictures, from the same body.

pSp (arXiv 2008.00951), e4e (2102.02766), ReStyle over either (2104.02699) and HFGI over e4e (2109.06590)
keep the objectives of their papers in form. The terms that judge a picture have the same weights for all of
them and for CLCAE, so that methods are compared and not weightings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import l1_loss, softplus

from clcae_lib.inversion.e4e import (
    CodePool,
    E4eEncoder,
    E4eInverter,
    LatentDiscriminator,
    delta_loss,
    discriminator_loss,
    stage_at,
)
from clcae_lib.inversion.hfgi import HfgiEncoder, HfgiInverter, moved
from clcae_lib.inversion.peer import PeerInverter
from clcae_lib.inversion.psp import PspEncoder, PspInverter
from clcae_lib.inversion.restyle import RestyleInverter, refine
from clcae_lib.spaces import feature_layer
from clcae_lib.training import _common as common
from clcae_lib.training._ema import half_life, update_average
from clcae_lib.training._seeds import Shuffled, step_generator
from clcae_lib.training.config import Precision, TrainConfig
from clcae_lib.training.inversion import InversionTask, Parts, world_parts
from clcae_lib.training.loop import Task, fit
from clcae_lib.weights import checkpoints

__all__ = ["METHODS", "PeerConfig", "PeerTask", "task_of", "train"]

Name = Literal["psp", "e4e", "restyle_psp", "restyle_e4e", "hfgi"]
CODES, MOVES = 11, 12


class PeerConfig(TrainConfig):
    """Settings of a peer's training; what they share with CLCAE's has the same defaults."""

    method: Name = "psp"
    precision: Precision = "bf16-mixed"
    steps: int = Field(default=3000, ge=0)
    batch_size: int = Field(default=16, ge=1)
    start: Literal["pretrained", "fresh"] = "pretrained"
    body: Literal["small", "irse_small", "irse50"] = "small"
    widths: tuple[int, ...] | None = None

    weight_l2: float = Field(default=1.0, ge=0)
    weight_perceptual: float = Field(default=0.2, ge=0)
    weight_identity: float = Field(default=0.1, ge=0)
    lpips_scales: Literal[1, 3] = 1
    weight_norm: float = Field(default=0.005, ge=0, description="pSp: of the offsets' length in W+")
    weight_delta: float = Field(default=2e-4, ge=0, description="e4e: of the offsets from the code")
    weight_adversarial: float = Field(default=0.1, ge=0, description="e4e: of the discriminator of codes")
    r1: float = Field(default=10.0, ge=0, description="e4e: of the discriminator's gradient, every 16 steps")
    iterations: int = Field(default=3, ge=1, description="ReStyle: corrections of a picture")
    base_share: float = Field(
        default=0.5, gt=0, lt=1, description="HFGI: share of the steps that its e4e encoder gets"
    )
    weight_align: float = Field(default=0.1, ge=0, description="HFGI: of the aligned distortion map")
    feature_side: Literal[8, 16, 32] = Field(default=16, description="HFGI: of the corrected activation")

    mix: float = Field(default=0.5, ge=0, le=1, description="share of samples; the rest are the world's")
    images: int | None = Field(default=20_000, ge=1, description="how many training images; null takes all")
    flip: float = Field(default=0.0, ge=0, le=1, description="share of the world's images that are mirrored")
    lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = Field(default=50, ge=0, description="steps over which the learning rate rises")
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_half_life: float = Field(default=2000.0, ge=0, description="of the average, in images; 0 keeps none")
    validation_images: int = Field(default=256, ge=8)

    free: ClassVar[frozenset[str]] = TrainConfig.free | {"validation_images"}
    stage: ClassVar[str] = "peer"
    alignment: ClassVar[str] = "off"
    init_from_alignment: ClassVar[bool] = False
    weight_alignment: ClassVar[float] = 0.0

    @property
    def preset(self) -> str:
        """The method, in the place where an inversion's configuration has its preset."""
        return self.method

    @model_validator(mode="after")
    def _check(self) -> PeerConfig:
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size={self.batch_size} cannot be shared by devices={self.devices}")
        return self

    def term_weight(self, term: str) -> float:
        """The weight of `l2`, `perceptual` or `identity`."""
        return float(getattr(self, f"weight_{term}"))


class PeerTask(InversionTask):
    """Trains pSp, and is what the other peers build on: a picture from W+, judged as CLCAE's are."""

    config: PeerConfig
    network: ClassVar[Callable[..., nn.Module]] = PspEncoder
    inverter: ClassVar[type[PeerInverter]] = PspInverter
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: PeerConfig, parts: Parts) -> None:
        Task.__init__(self, config)
        self.parts, self.seen, self.plateau, self.trained_on = parts, 0, None, parts.trained_on

    def setup(self, fabric: Fabric) -> None:
        """Build the encoder, its average, the losses and the optimizer."""
        self.fabric, config, device = fabric, self.config, fabric.device
        self.generator = common.placed(self.parts.generator, device)
        self.noise = common.noise_of(self.generator, training=True)
        self.encoder = self._network()
        if self.parts.start is not None:
            getattr(self.encoder, "base", self.encoder).start_from(dict(self.parts.start))
        common.channels_last(self.encoder).to(device)
        self.encoder.attach(self.generator)
        self.modules = {"encoder": self.encoder}
        if config.ema_half_life > 0:
            self.modules["average"] = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        adam = torch.optim.Adam(self.encoder.parameters(), lr=config.lr, fused=True)
        self.optimizers = {"optimizer": fabric.setup_optimizers(adam)}
        self._build_losses()
        self.train_images, self.validation = common.at_hand(self.parts.images), None
        self.few = common.at_once(self.generator.size)
        self.order = Shuffled(len(self.train_images), seed=config.seed)

    def step(self, index: int) -> dict[str, float | Tensor]:
        """One batch: what the method's paper does with it."""
        optimizer, config = self.optimizers["optimizer"], self.config
        common.set_rate(optimizer, config.lr * self._rate(index))
        target, _ = self._batch(index)
        terms = self._learn(index, target)
        self.seen += config.batch_size
        if "average" in self.modules:
            life = half_life(self.seen, target=config.ema_half_life, ramp=0.05)
            update_average(self.modules["average"], self.encoder, images=config.batch_size, half_life=life)
        return terms

    @torch.no_grad()
    def validate(self, index: int) -> dict[str, float]:
        """Measures of held-out images, as on the card."""
        del index
        return {f"validation/{name}": value for name, value in self.measure().items()}

    @torch.no_grad()
    def sheet(self, index: int) -> Tensor | None:
        """No sheet: the picture of a peer is looked at where methods are compared."""
        del index
        return None

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Mean PSNR in dB of held-out images, in each space that the method has."""
        from clcae_lib.metrics import psnr

        images = self._held_out()
        found: dict[str, list[Tensor]] = {}
        with common.evaluating(self.result):
            for batch in images.split(self.few):
                inversion = self.made(self.result).invert(batch)
                for space in inversion.spaces:
                    picture = inversion.decode(self.generator, space, noise=self._still).clamp(-1, 1)
                    found.setdefault(f"psnr_{space}", []).append(psnr(picture, batch))
        return {name: float(torch.cat(rows).mean()) for name, rows in found.items()}

    def made(self, encoder: nn.Module) -> PeerInverter:
        """The inverter of an encoder."""
        return self.inverter(encoder, self.generator)

    def finish(self, folder: Path) -> None:
        """Write the encoder and its card."""
        name = f"peer_{self.config.method}"
        path, encoder = folder / f"{name}.safetensors", self.result
        metadata = {"kind": "peer", "method": self.config.method, "config": encoder.config}
        metadata |= {"world": self.config.world, "seed": self.config.seed}
        checkpoints.save_weights(path, encoder.state_dict(), metadata=metadata)
        details = {"trained_on": dict(self.parts.trained_on), "measures": self.measure()}
        written = common.card(name, self, self.fabric, **details)
        checkpoints.write_card(path, written)

    def _network(self) -> nn.Module:
        sizes = {
            "style_dim": self.generator.style_dim,
            "body": self.config.body,
            "widths": self.config.widths,
        }
        return self.network(self.generator.size, **sizes, **self.options)

    def _learn(self, index: int, target: Tensor) -> dict[str, Tensor]:
        """The terms of one batch, after the encoder's update."""
        with self.fabric.autocast():
            offsets = self.encoder.offsets(target)
            terms, total = self._judge({"w_plus": self._picture(offsets + self.encoder.w_avg)}, target)
        terms["norm"] = torch.linalg.vector_norm(offsets.float(), dim=2).mean()
        return self._update(terms, total + self.config.weight_norm * terms["norm"])

    def _picture(self, w_plus: Tensor) -> Float[Tensor, "n 3 h w"]:
        return self.parts.view(self.generator.synthesis(w_plus, noise=self.noise))

    def _judge(self, pictures: dict[str, Tensor], target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """What the reconstruction's judges say of pictures, by name, and the weighted sum."""
        terms, total = {}, target.new_zeros(())
        for name, judged in self.reconstruction(pictures, target).items():
            for term, value in judged.items():
                terms[f"{term}_{name}"] = value
                total = total + self.config.term_weight(term) * value
        return terms, total

    def _update(self, terms: dict[str, Tensor], total: Tensor) -> dict[str, Tensor]:
        """One step of the encoder's optimizer."""
        optimizer = self.optimizers["optimizer"]
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        common.average_gradients(self.fabric, self.encoder)
        norm = nn.utils.clip_grad_norm_(self.encoder.parameters(), self.config.clip or float("inf"))
        optimizer.step()
        return {"loss": total, "gradient": norm, **terms}


class E4eTask(PeerTask):
    """Trains e4e: offsets freed layer by layer, kept small, and codes judged by a discriminator."""

    network, inverter = E4eEncoder, E4eInverter

    def setup(self, fabric: Fabric) -> None:
        """Build the discriminator too."""
        super().setup(fabric)
        self.discriminator = LatentDiscriminator(self.generator.style_dim).to(fabric.device)
        self.discriminator.attach(self.generator)
        adam = torch.optim.Adam(self.discriminator.parameters(), lr=self.config.lr / 5, betas=(0.0, 0.99))
        self.modules["discriminator"] = self.discriminator
        self.optimizers["discriminator"] = fabric.setup_optimizers(adam)
        self.pool = CodePool()

    def state(self) -> dict[str, Any]:
        """The pool of codes too, one rank's after another's."""
        return {**super().state(), "pool": common.gather(self.fabric, self.pool.codes)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up the count of images and this rank's pool."""
        super().load_state(state)
        pools = state["pool"].to(self.fabric.device).tensor_split(self.fabric.world_size)
        self.pool.codes = pools[self.fabric.global_rank]

    @property
    def base(self) -> E4eEncoder:
        """The encoder of codes."""
        return self.encoder

    def _learn(self, index: int, target: Tensor, *, steps: int | None = None) -> dict[str, Tensor]:
        config = self.config
        self._set_stage(stage_at(index, steps or config.steps, self.base.n_latent))
        with self.fabric.autocast():
            base, deltas = self.base.split(target)
            w_plus = base[:, None] + deltas + self.base.w_avg
            terms, total = self._judge({"w_plus": self._picture(w_plus)}, target)
        return self._update(*self._as_codes(index, terms, total, w_plus, deltas))

    def _as_codes(
        self, index: int, terms: dict[str, Tensor], total: Tensor, w_plus: Tensor, deltas: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The terms that keep codes near W; the discriminator takes its step on the way."""
        config, w_plus = self.config, w_plus.float()
        terms["delta"] = delta_loss(deltas)
        terms["discriminator"] = self._discriminate(index, w_plus.detach())
        terms["adversarial"] = softplus(-self.discriminator(w_plus)).mean()
        total = total + config.weight_delta * terms["delta"]
        return terms, total + config.weight_adversarial * terms["adversarial"]

    def _discriminate(self, index: int, w_plus: Tensor) -> Tensor:
        optimizer, config = self.optimizers["discriminator"], self.config
        common.set_rate(optimizer, config.lr / 5)
        real = common.sample_codes(self.generator, w_plus.shape[0], config.seed, CODES, index)
        lazy = 16 * config.r1 if index % 16 == 0 else 0.0
        fake = self.pool.exchange(w_plus).flatten(0, 1)
        loss = discriminator_loss(self.discriminator, real, fake, r1=lazy)
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        common.average_gradients(self.fabric, self.discriminator)
        optimizer.step()
        return loss.detach()

    def _set_stage(self, stage: int) -> None:
        """For the encoder and its average alike."""
        for network in (self.encoder, self.result):
            getattr(network, "base", network).stage = stage


class RestyleTask(PeerTask):
    """Trains ReStyle over pSp: several corrections of each batch, an update after each."""

    inverter = RestyleInverter
    options: ClassVar[dict[str, Any]] = {"pictures": 2, "pyramid": False}

    def made(self, encoder: nn.Module) -> PeerInverter:
        """The inverter that corrects as often as the training does."""
        return RestyleInverter(encoder, self.generator, steps=self.config.iterations)

    def _learn(self, index: int, target: Tensor) -> dict[str, Tensor]:
        corrections = refine(
            self.encoder, self.generator, target, steps=self.config.iterations, noise=self.noise
        )
        terms: dict[str, Tensor] = {}
        for _ in range(self.config.iterations):
            with self.fabric.autocast():
                codes = next(corrections)
                terms, total = self._judge({"w_plus": self._picture(codes.w_plus)}, target)
            terms = self._update(*self._regularised(index, terms, total, codes))
        return terms

    def _regularised(self, index: int, terms: dict[str, Tensor], total: Tensor, codes: Any) -> Any:
        """PSp's own term: the length of the offsets."""
        del index
        terms["norm"] = torch.linalg.vector_norm((codes.w_plus - self.encoder.w_avg).float(), dim=2).mean()
        return terms, total + self.config.weight_norm * terms["norm"]


class RestyleE4eTask(RestyleTask, E4eTask):
    """Trains ReStyle over e4e: its offsets and its discriminator, at every correction."""

    network, inverter = E4eEncoder, RestyleInverter

    def _learn(self, index: int, target: Tensor) -> dict[str, Tensor]:
        self._set_stage(stage_at(index, self.config.steps, self.encoder.n_latent))
        return RestyleTask._learn(self, index, target)

    def _regularised(self, index: int, terms: dict[str, Tensor], total: Tensor, codes: Any) -> Any:
        return self._as_codes(index, terms, total, codes.w_plus, codes.w_plus - codes.w[:, None])


class HfgiTask(E4eTask):
    """Trains HFGI: first its e4e encoder, then, with that frozen, aligner and consultant."""

    network, inverter = HfgiEncoder, HfgiInverter

    @property
    def base(self) -> E4eEncoder:
        """The encoder of codes."""
        return self.encoder.base

    @property
    def options(self) -> dict[str, Any]:
        """The activation that is corrected."""
        side = self.config.feature_side
        return {"feature_channels": self.generator.channels[side], "feature_side": side}

    def _rate(self, index: int) -> float:
        """Each half has its own schedule."""
        first = round(self.config.base_share * self.config.steps)
        steps, index = (first, index) if index < first else (self.config.steps - first, index - first)
        return common.cosine(index, steps, warmup=min(self.config.warmup, steps // 5), floor=0.01)

    def _learn(self, index: int, target: Tensor) -> dict[str, Tensor]:
        first = round(self.config.base_share * self.config.steps)
        if index < first:
            return super()._learn(index, target, steps=first)
        return self._consult(index, target)

    def _consult(self, index: int, target: Tensor) -> dict[str, Tensor]:
        """Restore the picture from its codes and what they lost, the latter knocked out of place."""
        encoder, config = self.encoder, self.config
        with torch.no_grad(), self.fabric.autocast():
            encoder.base.requires_grad_(False)
            w_plus = encoder(target).w_plus
            picture, activations = self.generator.run_with_activations(w_plus, noise=self.noise)
            picture = self.parts.view(picture).float()
            lost = target - picture
            shifted = moved(lost, step_generator(config.seed, MOVES, index, self.fabric.global_rank))
        with self.fabric.autocast():
            aligned = encoder.aligner(picture, shifted)
            feature = encoder.consultant(aligned, activations[feature_layer(config.feature_side)])
            made = self.parts.view(self.generator.synthesis(w_plus, noise=self.noise, feature=feature))
            terms, total = self._judge({"f": made}, target)
        terms["align"] = l1_loss(aligned.float(), lost)
        return self._update(terms, total + config.weight_align * terms["align"])


METHODS: dict[str, type[PeerTask]] = {
    "psp": PeerTask,
    "e4e": E4eTask,
    "restyle_psp": RestyleTask,
    "restyle_e4e": RestyleE4eTask,
    "hfgi": HfgiTask,
}
"""The task of each method."""


def task_of(config: PeerConfig, parts: Parts | None = None) -> PeerTask:
    """The task of the configuration's method, on the world's networks unless others are given."""
    return METHODS[config.method](config, world_parts(config) if parts is None else parts)


def train(config: PeerConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Train a peer's encoder in `folder`; returns the folder.

    Raises:
        WorldError: weights that it is trained on are missing; the message has the command that makes them.
    """
    return fit(task_of(config), config, folder, resume=resume, **options)
