"""Train the encoders that CLCAE is compared with, all on the same images, from the same backbone.

pSp (arXiv 2008.00951), e4e (2102.02766), ReStyle with either (2104.02699) and HFGI with e4e (2109.06590) keep
the form of their papers' objectives. The reconstruction terms have the same weights for all of them and for
CLCAE, so that the methods are compared, not the weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from clcae_lib.inversion.e4e import CodePool, E4eEncoder, E4eInverter, LatentDiscriminator, stage_at
from clcae_lib.inversion.hfgi import HfgiEncoder, HfgiInverter, moved
from clcae_lib.inversion.psp import PeerInverter, PspEncoder, PspInverter
from clcae_lib.inversion.restyle import RestyleInverter, refine
from clcae_lib.losses import delta_loss, discriminator_loss, generator_loss, gradient_penalty
from clcae_lib.models import Codes
from clcae_lib.spaces import feature_layer
from clcae_lib.training import optim
from clcae_lib.training.data import sample_codes, step_generator
from clcae_lib.training.encoders import EncoderConfig, EncoderTask, Parts, world_parts
from clcae_lib.training.loop import fit

CODES, MOVES = 11, 12
Terms = dict[str, Tensor]


class PeerConfig(EncoderConfig):
    """Settings of a peer's training; settings shared with CLCAE have the same defaults."""

    method: Literal["psp", "e4e", "restyle_psp", "restyle_e4e", "hfgi"] = "psp"
    start: Literal["pretrained", "fresh"] = "pretrained"
    body: Literal["small", "irse_small", "irse50"] = "small"

    weight_norm: float = Field(default=0.005, ge=0, description="pSp: of the offsets' length in W+")
    weight_delta: float = Field(default=2e-4, ge=0, description="e4e: of the offsets from the code")
    weight_adversarial: float = Field(default=0.1, ge=0, description="e4e: of the discriminator of codes")
    r1: float = Field(default=10.0, ge=0, description="e4e: of the discriminator's gradient, every 16 steps")
    iterations: int = Field(default=3, ge=1, description="ReStyle: corrections of an image")
    base_share: float = Field(default=0.5, gt=0, lt=1, description="HFGI: share of its e4e encoder's steps")
    weight_align: float = Field(default=0.1, ge=0, description="HFGI: of the aligned distortion map")

    stage: ClassVar[str] = "peer"
    variant_field: ClassVar[str] = "method"


class PeerTask(EncoderTask):
    """Trains pSp, and is the base of the other peers: W+ from an encoder, with CLCAE's reconstruction terms.

    The only measure of a peer is PSNR; the judges compare methods after the training.
    """

    config: PeerConfig
    network: ClassVar[Callable[..., nn.Module]] = PspEncoder
    inverter: ClassVar[type[PeerInverter]] = PspInverter
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: PeerConfig, parts: Parts) -> None:
        super().__init__(config, replace(parts, judges={}))

    def step(self, index: int) -> dict[str, float | Tensor]:
        """Update the networks with one batch, as in the method's paper."""
        self.set_lr("optimizer", self.config.lr * self.lr_factor(index))
        scalars = self.learn(index, self.batch(index)[0])
        self.update_ema()
        return scalars

    def learn(self, index: int, target: Float[Tensor, "n 3 h w"]) -> Terms:
        """Update the encoder with one batch, and return the scalars of the step."""
        with self.fabric.autocast():
            offsets = self.encoder.offsets(target)
            terms, total = self._compare(offsets + self.encoder.w_avg, target)
        return self.update_encoder(*self._with_norm(terms, total, offsets))

    def validate(self, index: int) -> dict[str, float]:
        """Return the measures of held-out images, as on the card."""
        return {f"validation/{name}": value for name, value in self.measure().items()}

    def reconstruct(self, images: Float[Tensor, "n 3 h w"]) -> dict[str, Float[Tensor, "n 3 h w"]]:
        """Return the reconstructions of images in each space that the method has."""
        found = self.made(self.result).invert(images)
        return {space: found.decode(self.generator, space, noise=self.fixed_noise) for space in found.spaces}

    def made(self, encoder: nn.Module) -> PeerInverter:
        """Return the inverter of an encoder."""
        return self.inverter(encoder, self.generator)

    def build_encoder(self) -> nn.Module:
        """Return the method's encoder, with a pretrained backbone if its weights are given."""
        config, width = self.config, self.generator.style_dim
        sizes = {"style_dim": width, "body": config.body, "widths": config.widths}
        encoder = self.network(self.generator.size, **sizes, **self.options)
        if self.parts.start is not None:
            getattr(encoder, "base", encoder).start_from(dict(self.parts.start))
        return encoder

    def _compare(self, w_plus: Tensor, target: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the reconstruction terms of the image of W+, and their weighted sum."""
        image = self.parts.view(self.generator.synthesis(w_plus, noise=self.noise))
        return self.reconstruction_terms({"w_plus": image}, target)

    def _with_norm(self, terms: Terms, total: Tensor, offsets: Tensor) -> tuple[Terms, Tensor]:
        """Add pSp's own term: the length of the offsets from the mean code."""
        terms["norm"] = torch.linalg.vector_norm(offsets.float(), dim=2).mean()
        return terms, total + self.config.weight_norm * terms["norm"]


class E4eTask(PeerTask):
    """Trains e4e: small offsets, freed one layer after another, and a discriminator of codes."""

    network, inverter = E4eEncoder, E4eInverter

    def setup(self, fabric: Fabric) -> None:
        """Build the encoder and the discriminator."""
        super().setup(fabric)
        self.discriminator = LatentDiscriminator(self.generator.style_dim).to(fabric.device)
        self.discriminator.attach(self.generator)
        adam = torch.optim.Adam(self.discriminator.parameters(), lr=self.config.lr / 5, betas=(0.0, 0.99))
        self.modules["discriminator"] = self.discriminator
        self.optimizers["discriminator"] = fabric.setup_optimizers(adam)
        self.pool = CodePool()

    def state(self) -> dict[str, Any]:
        """Return the count of images and the pools of codes of all ranks, in order."""
        return {**super().state(), "pool": optim.gather(self.fabric, self.pool.codes)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the count of images and this rank's pool."""
        super().load_state(state)
        pools = state["pool"].to(self.fabric.device).tensor_split(self.fabric.world_size)
        self.pool.codes = pools[self.fabric.global_rank]

    @property
    def base(self) -> E4eEncoder:
        """The encoder of codes."""
        return self.encoder

    def learn(
        self, index: int, target: Float[Tensor, "n 3 h w"], *, steps: int | None = None
    ) -> dict[str, Tensor]:
        """Update encoder and discriminator; `steps` is the length of the training that frees the layers."""
        self._set_stage(stage_at(index, steps or self.config.steps, self.base.n_latent))
        with self.fabric.autocast():
            base, deltas = self.base.split(target)
            w_plus = base[:, None] + deltas + self.base.w_avg
            terms, total = self._compare(w_plus, target)
        return self.update_encoder(*self._as_codes(index, terms, total, w_plus, deltas))

    def _as_codes(
        self, index: int, terms: Terms, total: Tensor, w_plus: Tensor, deltas: Tensor
    ) -> tuple[Terms, Tensor]:
        """Update the discriminator, then return the terms with those that keep codes near W."""
        config, w_plus = self.config, w_plus.float()
        terms["delta"] = delta_loss(deltas)
        terms["discriminator"] = self._discriminate(index, w_plus.detach())
        terms["adversarial"] = generator_loss(None, self.discriminator(w_plus), kind="logistic")
        total = total + config.weight_delta * terms["delta"]
        return terms, total + config.weight_adversarial * terms["adversarial"]

    def _discriminate(self, index: int, w_plus: Tensor) -> Tensor:
        """Update the discriminator: the logistic loss, and R1 every 16 steps (equation 2)."""
        config = self.config
        self.set_lr("discriminator", config.lr / 5)
        real = sample_codes(self.generator, w_plus.shape[0], config.seed, CODES, index)
        r1 = 16 * config.r1 if index % 16 == 0 else 0.0
        real.requires_grad_(r1 > 0)
        fake = self.pool.exchange(w_plus).flatten(0, 1)
        scores = self.discriminator(real)
        loss = discriminator_loss(scores, self.discriminator(fake), kind="logistic")
        if r1 > 0:
            loss = loss + 0.5 * r1 * gradient_penalty(scores, real)
        self.update("discriminator", loss, self.discriminator)
        return loss.detach()

    def _set_stage(self, stage: int) -> None:
        """Free the layers up to `stage` in the encoder and in its EMA weights."""
        for network in (self.encoder, self.result):
            getattr(network, "base", network).stage = stage


class RestyleTask(PeerTask):
    """Trains ReStyle with pSp: several corrections of each batch, with an update after each."""

    inverter = RestyleInverter
    options: ClassVar[dict[str, Any]] = {"pictures": 2, "pyramid": False}

    def made(self, encoder: nn.Module) -> PeerInverter:
        """Return the inverter with the training's number of corrections."""
        return RestyleInverter(encoder, self.generator, steps=self.config.iterations)

    def learn(self, index: int, target: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """Update the encoder after each correction; the scalars are those of the last."""
        steps = self.config.iterations
        corrections = refine(self.encoder, self.generator, target, steps=steps, noise=self.noise)
        scalars: dict[str, Tensor] = {}
        for _ in range(steps):
            with self.fabric.autocast():
                codes = next(corrections)
                terms, total = self._compare(codes.w_plus, target)
            scalars = self.update_encoder(*self._regularised(index, terms, total, codes))
        return scalars

    def _regularised(self, _: int, terms: Terms, total: Tensor, codes: Codes) -> tuple[Terms, Tensor]:
        return self._with_norm(terms, total, codes.w_plus - self.encoder.w_avg)


class RestyleE4eTask(RestyleTask, E4eTask):
    """Trains ReStyle with e4e: its offsets and its discriminator, at every correction."""

    network, inverter = E4eEncoder, RestyleInverter

    def learn(self, index: int, target: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """Free layers as e4e does, then correct as ReStyle does."""
        self._set_stage(stage_at(index, self.config.steps, self.encoder.n_latent))
        return RestyleTask.learn(self, index, target)

    def _regularised(self, index: int, terms: Terms, total: Tensor, codes: Codes) -> tuple[Terms, Tensor]:
        return self._as_codes(index, terms, total, codes.w_plus, codes.w_plus - codes.w[:, None])


class HfgiTask(E4eTask):
    """Trains HFGI: first its e4e encoder, then aligner and consultant with the encoder frozen."""

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

    @property
    def base_steps(self) -> int:
        """Steps of the e4e encoder."""
        return round(self.config.base_share * self.config.steps)

    def lr_factor(self, index: int) -> float:
        """Return the learning rate as a share of `config.lr`; each half has its own schedule."""
        first = self.base_steps
        steps, index = (first, index) if index < first else (self.config.steps - first, index - first)
        return optim.cosine(index, steps, warmup=min(self.config.warmup, steps // 5), floor=0.01)

    def learn(self, index: int, target: Float[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """Update the e4e encoder in the first half, aligner and consultant in the second."""
        if index < self.base_steps:
            return super().learn(index, target, steps=self.base_steps)
        return self._consult(index, target)

    def _consult(self, index: int, target: Tensor) -> dict[str, Tensor]:
        """Predict the correction of the activation from a randomly warped distortion map."""
        encoder, config = self.encoder, self.config
        with torch.no_grad(), self.fabric.autocast():
            encoder.base.requires_grad_(False)
            w_plus = encoder(target).w_plus
            image, activations = self.generator.run_with_activations(w_plus, noise=self.noise)
            image = self.parts.view(image).float()
            lost = target - image
            shifted = moved(lost, step_generator(config.seed, MOVES, index, self.fabric.global_rank))
        with self.fabric.autocast():
            aligned = encoder.aligner(image, shifted)
            feature = encoder.consultant(aligned, activations[feature_layer(config.feature_side)])
            made = self.parts.view(self.generator.synthesis(w_plus, noise=self.noise, feature=feature))
            terms, total = self.reconstruction_terms({"f": made}, target)
        terms["align"] = l1_loss(aligned.float(), lost)
        return self.update_encoder(terms, total + config.weight_align * terms["align"])


METHODS: dict[str, type[PeerTask]] = {
    "psp": PeerTask,
    "e4e": E4eTask,
    "restyle_psp": RestyleTask,
    "restyle_e4e": RestyleE4eTask,
    "hfgi": HfgiTask,
}
"""The task of each method."""


def task_of(config: PeerConfig, parts: Parts | None = None) -> PeerTask:
    """Return the task of the configuration's method, on the world's networks unless others are given."""
    return METHODS[config.method](config, world_parts(config) if parts is None else parts)


def train(config: PeerConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Train a peer's encoder in `folder`; return the folder."""
    return fit(task_of(config), config, folder, resume=resume, **options)
