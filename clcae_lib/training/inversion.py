"""Training of the inversion encoder on top of a frozen generator (arXiv 2211.11448, sections 3.2 and 3.3).

Each step decodes three pictures of a target, from w, from W+ and from W+ with F, and asks all of them to be
the target; the alignment asks w to be the target's code; F is kept near the generator's own activation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from clcae_lib.losses import (
    ContrastiveLoss,
    IdentityLoss,
    PerceptualLoss,
    ReconstructionLoss,
    feature_blend,
    feature_loss,
)
from clcae_lib.metrics import psnr
from clcae_lib.models import Codes, Generator, ImageEncoder, LatentEncoder
from clcae_lib.models.backbone import to_encoder_side
from clcae_lib.models.published import MIN_SIDE
from clcae_lib.spaces import broadcast_w, feature_layer
from clcae_lib.training import _common as common
from clcae_lib.training._ema import half_life, update_average
from clcae_lib.training._inversion_config import InversionConfig
from clcae_lib.training._logging import tile
from clcae_lib.training._plateau import Plateau
from clcae_lib.training._seeds import Shuffled, step_generator
from clcae_lib.training.body import pretrained_body
from clcae_lib.training.config import ConfigError, TrainConfig
from clcae_lib.training.loop import Task, fit
from clcae_lib.weights import build_encoder, checkpoints

__all__ = ["InversionConfig", "InversionTask", "Parts", "train", "world_parts"]

SAMPLES, BANK, HELD_OUT, FLIPS = range(4)
PICTURES = ("f", "w_plus", "w")


@dataclass(frozen=True)
class Parts:
    """What an inversion encoder is trained with; several trainings can share it, on any devices.

    Attributes:
        generator: frozen.
        images: of the training split.
        validation: held-out images.
        perceptual: distance of two batches, for the loss; None leaves the term out.
        identity: images to unit vectors, for the loss; None leaves the term out.
        alignment: image encoder, latent encoder and scale; None where alignment and initialisation are off.
        start: weights of the body, where they are not the aligned image encoder's; None for random ones.
        judges: networks that measure the finished encoder, by name: for portraits copies that no loss has,
            for photographs the networks of the losses, since a world of photographs has one of each kind.
        trained_on: names and digests of the weights above, for the card.
        view: what losses see of the generator's pictures.
        shown: what encoder and losses see of images, and of samples that stand for images.
        height: of what the published encoder sees, where that is not square.
    """

    generator: Generator
    images: Any
    validation: Any
    perceptual: nn.Module | None = None
    identity: nn.Module | None = None
    alignment: tuple[ImageEncoder, LatentEncoder, float] | None = None
    start: Mapping[str, Tensor] | None = None
    judges: Mapping[str, nn.Module] = field(default_factory=dict)
    trained_on: Mapping[str, str] = field(default_factory=dict)
    view: Callable[[Tensor], Tensor] = to_encoder_side
    shown: Callable[[Tensor], Tensor] = to_encoder_side
    height: int | None = None


class AlignmentTerm(nn.Module):
    """The alignment, both encoders frozen, as a judge of w: a picture's embedding must choose its own code.

    Args:
        alignment: image encoder, latent encoder and the scale that they were trained to; the term has copies.
        bank: codes `[M, D]` whose embeddings are the negatives beside the batch; None for the batch alone.
        device: of the copies.
    """

    bank: Tensor | None

    def __init__(
        self,
        alignment: tuple[nn.Module, nn.Module, float],
        *,
        bank: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """Embed the bank once."""
        super().__init__()
        *encoders, scale = alignment
        self.image_encoder, self.latent_encoder = (copy.deepcopy(encoder) for encoder in encoders)
        self.loss = ContrastiveLoss(scale=min(scale, 100.0), learnable=False)
        self.to(device)
        with torch.no_grad():
            embedded = None if bank is None else self.latent_encoder(bank.to(device))
        self.register_buffer("bank", embedded, persistent=False)

    def forward(
        self, pictures: Float[Tensor, "batch 3 h w"], w: Float[Tensor, "batch dim"], *, fabric: Fabric
    ) -> Float[Tensor, ""]:
        """The loss of codes for pictures; the pictures may carry a gradient."""
        images = common.gather(fabric, self.image_encoder(pictures).float())
        # As in the alignment's own training: in bfloat16, codes that lie close together would be one.
        with torch.autocast(w.device.type, enabled=False):
            codes = common.gather(fabric, self.latent_encoder(w.float()))
            return self.loss(images, codes, negatives=self.bank)


class InversionTask(Task):
    """Trains an inversion encoder of either preset, with every departure of the published code a switch."""

    config: InversionConfig

    def __init__(self, config: InversionConfig, parts: Parts) -> None:
        """Keep the configuration and the frozen parts.

        Raises:
            ConfigError: the configuration asks for an alignment that is not there.
        """
        super().__init__(config)
        if parts.alignment is None and (config.alignment != "off" or config.init_from_alignment):
            raise ConfigError(
                "alignment: there are no aligned encoders; train them, or set alignment=off and "
                "init_from_alignment=false"
            )
        self.parts, self.seen, self.trained_on = parts, 0, parts.trained_on
        self.plateau = Plateau(config.lr) if config.schedule == "plateau" else None

    def setup(self, fabric: Fabric) -> None:
        """Build the encoder, its average, the loss and the optimizer."""
        self.fabric, config, device = fabric, self.config, fabric.device
        self.generator = common.placed(self.parts.generator, device)
        self.noise = common.noise_of(self.generator, training=True)
        self.feature_index = feature_layer(config.feature_side)
        self.encoder = build_encoder(config.preset, self._architecture())
        if config.init_from_alignment:
            self._initialise(self.parts.alignment[0].body.state_dict(), "init_from_alignment")
        elif self.parts.start is not None:
            self._initialise(self.parts.start, "start")
        common.channels_last(self.encoder).to(device).attach(self.generator)
        self.modules = {"encoder": self.encoder}
        if config.ema_half_life > 0:
            self.modules["average"] = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        self.optimizers = {"optimizer": fabric.setup_optimizers(self._optimizer())}
        self._build_losses()
        self.train_images, self.validation = common.at_hand(self.parts.images), None
        self.few = common.at_once(self.generator.size)
        self.order = Shuffled(len(self.train_images), seed=config.seed)

    def step(self, index: int) -> dict[str, float | Tensor]:
        """One batch: encode, decode three times, judge, update."""
        config, optimizer = self.config, self.optimizers["optimizer"]
        if self.plateau is not None and index > 0 and index % config.ramp_epoch == 0:
            self.plateau.step(self._validation_loss(index))
        common.set_rate(optimizer, config.lr * self._rate(index))
        target, known = self._batch(index)
        with self.fabric.autocast():
            terms, total = self._losses(target, known, blend=self._blend(index))
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(total)
        common.average_gradients(self.fabric, self.encoder)
        norm = nn.utils.clip_grad_norm_(self.encoder.parameters(), config.clip or float("inf"))
        optimizer.step()
        self.seen += config.batch_size
        if "average" in self.modules:
            life = half_life(self.seen, target=config.ema_half_life, ramp=0.05)
            update_average(self.modules["average"], self.encoder, images=config.batch_size, half_life=life)
        return {"loss": total, "gradient": norm, **terms}

    @torch.no_grad()
    def validate(self, index: int) -> dict[str, float]:
        """PSNR in dB of the three reconstructions of held-out images, with F as far in as validation says."""
        encoder, images = self.result, self._held_out()
        blend = self._blend(index) if self.config.ramp == "epoch" else 1.0
        found: dict[str, list[Tensor]] = {}
        with common.evaluating(encoder):
            for batch in images.split(self.few):
                with self.fabric.autocast():
                    pictures = self._decode(encoder(batch), blend=blend, noise=self._still)[0]
                for name, picture in pictures.items():
                    found.setdefault(name, []).append(psnr(picture.float(), batch))
        return {f"validation/psnr_{name}": float(torch.cat(rows).mean()) for name, rows in found.items()}

    @torch.no_grad()
    def sheet(self, index: int) -> Float[Tensor, "3 H W"]:
        """Rows of targets (8 held-out images, 8 samples) and their reconstructions from W, W+ and F."""
        del index
        w = common.sample_codes(self.generator, 8, self.config.seed, HELD_OUT)
        with common.evaluating(self.result), self.fabric.autocast():
            samples = [self.parts.view(self.generator.synthesis(part)) for part in w.split(self.few)]
            targets = torch.cat([self._held_out()[:8], *(part.float() for part in samples)])
            parts = [
                self._decode(self.result(part), blend=1.0, noise=self._still)[0]
                for part in targets.split(self.few)
            ]
        pictures = {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}
        rows = [targets, *(pictures[name] for name in reversed(PICTURES) if name in pictures)]
        return tile(torch.cat(rows).clamp(-1, 1).cpu(), columns=16)

    def state(self) -> dict[str, Any]:
        """How many images the average has seen, and what the schedule has seen of the validation."""
        return {"seen": self.seen} | ({"plateau": self.plateau.state()} if self.plateau else {})

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up the count of images and the schedule."""
        self.seen = int(state["seen"])
        if self.plateau is not None:
            self.plateau.load_state(state["plateau"])

    @property
    def result(self) -> nn.Module:
        """The encoder that is validated and shipped: the average, if there is one."""
        return self.modules.get("average", self.encoder)

    def finish(self, folder: Path) -> None:
        """Write the encoder and its card, measured on held-out images by `parts.judges`."""
        name = f"inversion_{self.config.preset}"
        path, encoder = folder / f"{name}.safetensors", self.result
        metadata = {"kind": "inversion", "preset": self.config.preset, "config": encoder.config}
        metadata |= {"world": self.config.world, "seed": self.config.seed}
        checkpoints.save_weights(path, encoder.state_dict(), metadata=metadata)
        written = common.card(
            name,
            self,
            self.fabric,
            trained_on=dict(self.parts.trained_on),
            measures=self.measure(),
            parameters=sum(p.numel() for p in encoder.parameters()),
        )
        checkpoints.write_card(path, written)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Means over held-out images: PSNR in dB and each judge's distance, for W, W+ and F in full."""
        images, encoder, found = self._held_out(), self.result, {}
        judges = {name: copy.deepcopy(judge).to(images.device) for name, judge in self.parts.judges.items()}
        with common.evaluating(encoder):
            for batch in images.split(self.few):
                pictures = self._decode(encoder(batch), blend=1.0, noise=self._still)[0]
                for name, picture in pictures.items():
                    picture = picture.clamp(-1, 1)
                    found.setdefault(f"psnr_{name}", []).append(psnr(picture, batch))
                    for term, judge in judges.items():
                        found.setdefault(f"{term}_{name}", []).append(_judged(judge, picture, batch))
        return {name: float(torch.cat(rows).mean()) for name, rows in found.items()}

    def _architecture(self) -> dict[str, Any]:
        config, generator = self.config, self.generator
        if config.preset == "published" and generator.size < MIN_SIDE:
            raise ConfigError(f"preset=published: it needs images of {MIN_SIDE} pixels or more")
        common_part = {
            "resolution": generator.size,
            "style_dim": generator.style_dim,
            "feature_channels": generator.channels[config.feature_side],
        }
        if config.preset == "published" and self.parts.height is not None:
            common_part["height"] = self.parts.height
        return common_part | config.architecture(generator.style_dim)

    def _initialise(self, source: Mapping[str, Tensor], setting: str) -> None:
        """Copy the weights of a body that was trained before."""
        body = self.encoder.body if self.config.preset == "foundation" else self.encoder
        own = body.state_dict()
        misfits = [name for name in source if name not in own or own[name].shape != source[name].shape]
        if misfits:
            raise ConfigError(
                f"{setting}: that body has other layers ({misfits[0]}, ...); set body and widths to its own, "
                "or init_from_alignment=false and start=fresh"
            )
        body.load_state_dict({**own, **source})

    def _build_losses(self) -> None:
        config, parts, device = self.config, self.parts, self.fabric.device
        perceptual, identity = None, None
        if parts.perceptual is not None and config.weight_perceptual > 0:
            judge = common.placed(parts.perceptual, device)
            perceptual = PerceptualLoss(judge, scales=config.lpips_scales)
        if parts.identity is not None and config.weight_identity > 0:
            identity = IdentityLoss(common.placed(parts.identity, device))
        self.reconstruction = ReconstructionLoss(perceptual=perceptual, identity=identity)
        self.alignment = None
        if config.alignment != "off" and config.weight_alignment > 0:
            bank = None
            if config.alignment == "bank":
                bank = common.sample_codes(self.generator, config.bank, config.seed, BANK)
            self.alignment = AlignmentTerm(parts.alignment, bank=bank, device=device)

    def _optimizer(self) -> torch.optim.Optimizer:
        if self.config.optimizer == "ranger":
            return common.make_ranger(self.encoder.parameters(), lr=self.config.lr)
        return torch.optim.Adam(self.encoder.parameters(), lr=self.config.lr, fused=True)

    def _rate(self, index: int) -> float:
        config = self.config
        if config.schedule != "cosine":
            reached = 1.0 if self.plateau is None else self.plateau.factor
            return reached * min(1.0, (index + 1) / max(1, config.warmup))
        return common.cosine(index, config.steps, warmup=config.warmup, floor=0.01)

    @torch.no_grad()
    def _validation_loss(self, index: int) -> float:
        """The mean of the whole objective over held-out images, in batches of the training's size."""
        blend = self._blend(index - 1) if self.config.ramp == "epoch" else 1.0
        known = self.generator.w_avg[None][:0]
        with common.evaluating(self.encoder), self.fabric.autocast():
            found = [
                self._losses(batch, known, blend=blend, still=True)[1].float()
                for batch in self._held_out().split(min(self.few, self.config.batch_size))
            ]
        mean = torch.stack(found).mean()
        return float(mean if self.fabric.world_size == 1 else self.fabric.all_reduce(mean, reduce_op="mean"))

    def _blend(self, index: int) -> float:
        config = self.config
        return feature_blend(index, config.steps, ramp=config.ramp, epoch=config.ramp_epoch)

    @property
    def _still(self) -> str:
        return common.noise_of(self.generator, training=False)

    def _held_out(self) -> Float[Tensor, "n 3 h w"]:
        if self.validation is None:
            count = min(self.config.validation_images, len(self.parts.validation))
            starts = range(0, count, self.few)
            parts = [
                self.parts.shown(self.parts.validation.images(range(start, min(count, start + self.few))))
                for start in starts
            ]
            images = torch.cat(parts).to(self.fabric.device)
            self.validation = images.contiguous(memory_format=torch.channels_last)
        return self.validation

    @torch.no_grad()
    def _batch(self, index: int) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "m d"]]:
        """Targets, samples first, and the codes of the samples."""
        config, device = self.config, self.fabric.device
        size = config.batch_size
        start, count = common.share(self.fabric, size)
        sampled = min(count, round(count * config.mix))
        w = common.sample_codes(self.generator, sampled, config.seed, SAMPLES, index, start=start, total=size)
        rows = self.order.take(index * size + start, count)[sampled:]
        renders = self.parts.shown(self.train_images.images(rows, device))
        if config.flip > 0:
            source = step_generator(config.seed, FLIPS, index, self.fabric.global_rank)
            flipped = (torch.rand(len(renders), generator=source) < config.flip).to(device)
            renders = torch.where(flipped[:, None, None, None], renders.flip(3), renders)
        if not sampled:
            return renders, w
        with self.fabric.autocast():
            samples = self.parts.shown(self.generator.synthesis(w, noise=self.noise)).float()
        return torch.cat([samples, renders]).contiguous(memory_format=torch.channels_last), w

    def _losses(
        self, target: Tensor, known: Tensor, *, blend: float, still: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Every term of the objective, unweighted and by name, and the weighted sum; `still` to validate."""
        config, codes = self.config, self.encoder(target) if still else self._encode(target)
        pictures, activation = self._decode(codes, blend=blend, noise=self._still if still else self.noise)
        terms: dict[str, Tensor] = {}
        total = target.new_zeros(())
        for name, judged in self.reconstruction(pictures, target).items():
            for term, value in judged.items():
                terms[f"{term}_{name}"] = value
                total = total + config.picture_weight(name) * config.term_weight(term) * value
        if codes.feature is not None:
            terms["feature"] = feature_loss(codes.feature, activation)
            total = total + config.weight_feature * terms["feature"]
        if self.alignment is not None:
            shown = target if config.alignment_input == "input" else pictures["w"].float()
            terms["alignment"] = self.alignment(shown, codes.w, fabric=self.fabric)
            total = total + config.weight_alignment * terms["alignment"]
        if config.weight_w > 0 and len(known):
            scale = self.generator.w_std.square().mean()
            terms["w"] = mse_loss(codes.w[: len(known)].float(), known) / scale
            total = total + config.weight_w * terms["w"]
        return terms, total

    def _encode(self, target: Tensor) -> Codes:
        """The codes; as published, each sample's average picture may be mirrored by a coin of its own."""
        if not self.config.average_flip or self.config.flip <= 0:
            return self.encoder(target)
        average = self.encoder.average
        mirrored = torch.rand(len(target), 1, 1, 1, device=target.device) < self.config.flip
        return self.encoder(target, average=torch.where(mirrored, average.flip(3), average))

    def _decode(self, codes: Codes, *, blend: float, noise: str) -> tuple[dict[str, Tensor], Tensor]:
        """All reconstructions in one call of the generator, and its own activation where F goes in."""
        count, layers = len(codes.w), self.generator.n_latent
        w = broadcast_w(codes.w, layers)
        if codes.feature is None:
            images, features = self.generator.run_with_activations(torch.cat([codes.w_plus, w]), noise=noise)
            seen = self.parts.view(images).split(count)
            return dict(zip(PICTURES[1:], seen, strict=True)), features[self.feature_index][:count]
        share = codes.w.new_zeros(3 * count, 1, 1, 1)
        share[:count] = blend
        feature = torch.cat([codes.feature, torch.zeros_like(codes.feature).repeat(2, 1, 1, 1)])
        images, features = self.generator.run_with_activations(
            torch.cat([codes.w_plus, codes.w_plus, w]),
            feature=feature,
            feature_blend=share,
            noise=noise,
        )
        seen = self.parts.view(images).split(count)
        return dict(zip(PICTURES, seen, strict=True)), features[self.feature_index][:count]


def _judged(judge: nn.Module, pictures: Tensor, targets: Tensor) -> Tensor:
    """A pair's distance, or the cosine of its embeddings where the judge makes those."""
    if hasattr(judge, "similarity"):
        return judge.similarity(pictures, targets)
    return judge(pictures, targets)


def train(config: InversionConfig, folder: Path | str, *, resume: bool = True, **options: Any) -> Path:
    """Train a world's inversion encoder in `folder`; returns the folder.

    Raises:
        WorldError: weights that it is trained on are missing; the message has the command that makes them.
    """
    return fit(InversionTask(config, world_parts(config)), config, folder, resume=resume, **options)


def world_parts(config: TrainConfig) -> Parts:
    """The generator, images, judges and alignment of the configuration's world, with their digests.

    Args:
        config: of CLCAE's encoder, or of a peer's.
    """
    from clcae_lib.worlds import get_world

    world = get_world(config.world)
    used = [world.generator_file]
    alignment, judges = None, {}
    if config.alignment != "off" or config.init_from_alignment:
        alignment, path = _alignment(world, config)
        used += [path] if path.is_file() else sorted(path.glob("*.pt*"))
    for name in ("perceptual", "identity"):
        if getattr(config, f"weight_{name}") > 0:
            judges[name] = getattr(world, name)("train")
            used += filter(None, [world.judge_file(name, "train")])
    start = None
    if config.start == "pretrained" and not config.init_from_alignment:
        start = pretrained_body(world, device=config.device, body=config.body, widths=config.widths)
    return Parts(
        generator=world.generator("cpu"),
        images=world.images("train", config.images),
        validation=world.images("validation", config.validation_images),
        perceptual=judges.get("perceptual"),
        identity=judges.get("identity"),
        alignment=alignment,
        start=start,
        judges={name: getattr(world, name)("measure") for name in judges if world.measures_with(name)},
        trained_on=common.digests(*used),
        **_framing(world, config),
    )


def _alignment(world: Any, config: TrainConfig) -> tuple[Any, Path]:
    """The alignment trained here or, of `published` without one, the official pair of the world's folder."""
    from clcae_lib.weights import load_alignment, load_contrastive

    official = world.folder / "contrastive"
    trained = world.weights("alignment").is_file()
    if config.preset == "published" and not trained and official.is_dir():
        return load_contrastive(official, world.generator("cpu"), height=world.published_height), official
    path = world.require("alignment", command=f"clcae train alignment --world {world.name}")
    return load_alignment(path), path


def _framing(world: Any, config: TrainConfig) -> dict[str, Any]:
    """What is seen of a world's pictures: by `foundation` the square, by `published` the official cut."""
    if config.preset != "published":
        return {}
    return {"view": world.view, "shown": world.published_view, "height": world.published_height}
