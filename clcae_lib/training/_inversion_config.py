"""Settings of an inversion encoder's training: two presets, and a switch for each line where they part."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from clcae_lib.training.config import Precision, TrainConfig

PRESETS: dict[str, dict[str, Any]] = {
    "foundation": {
        "wplus_attention": "spatial",
        "feature_attention": "spatial",
        "alignment": "bank",
        "alignment_input": "input",
        "init_from_alignment": True,
        "lpips_scales": 1,
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
        "ramp": "epoch",
        "optimizer": "ranger",
        "schedule": "plateau",
        "flip": 0.5,
        "average_flip": True,
        "clip": None,
        "ema_half_life": 0.0,
    },
}
"""What each preset sets; any of it can be set otherwise by itself."""

SMALL: dict[str, dict[str, Any]] = {
    "foundation": {"body": "small", "lr": 1e-3},
    "published": {"body": "irse_small", "lr": 2e-3},
}
"""Defaults at the portraits' size, which differ between the presets; a world of photographs has others."""

DEPARTURES: dict[str, tuple[Any, Any]] = {
    "wplus_attention": ("spatial", "single"),
    "feature_attention": ("spatial", "single"),
    "alignment_input": ("input", "w_reconstruction"),
    "alignment": ("bank", "batch"),
    "init_from_alignment": (True, False),
    "lpips_scales": (3, 1),
    "ramp": ("run", "epoch"),
}
"""Where the published code departs from what was meant: a switch each, what was meant, what it does.

Any of them can be set by itself in preset `foundation`, as `clcae train inversion --set ramp=epoch` does:

| switch | meant | published code |
|---|---|---|
| `wplus_attention` | a layer of W+ attends to the pixels of its level | to one pooled vector: idle |
| `feature_attention` | F attends to T3's pixels and to W+ | to one vector, w: the same is added everywhere |
| `alignment_input` | w is held against the input picture | against its own reconstruction |
| `alignment` | negatives from a bank of random codes | from the rest of the batch: one, at batch 2 |
| `init_from_alignment` | the body starts from the contrastive encoder | it silently does not |
| `lpips_scales` | perceptual distance summed over three scales | the sum is overwritten by one scale |
| `ramp` | F fades in once, validation sees all of it | in every epoch anew, validation as it stands |

`lpips_scales` is 1 in both presets: three scales cost a third more and are an option of the published code,
not of the paper. `published` has its own network, where attention is `single` alone.
"""


class InversionConfig(TrainConfig):
    """Settings of the inversion's training; what is not given follows the preset.

    The weights are the paper's. Each picture (from F, W+ and w) is judged by L2, perceptual distance and
    identity.
    """

    preset: Literal["foundation", "published"] = "foundation"
    precision: Precision = "bf16-mixed"
    steps: int = Field(default=3000, ge=0)
    batch_size: int = Field(default=16, ge=1)

    wplus_attention: Literal["spatial", "single", "none"]
    feature_attention: Literal["spatial", "single", "off"]
    feature_side: Literal[8, 16, 32] = Field(default=16, description="of F, in pixels; 16 in the paper")
    alignment: Literal["bank", "batch", "off"]
    alignment_input: Literal["input", "w_reconstruction"]
    init_from_alignment: bool
    start: Literal["fresh", "pretrained"] = Field(
        default="fresh", description="the body's weights, where they are not the aligned image encoder's"
    )
    lpips_scales: Literal[1, 3]
    ramp: Literal["run", "epoch"]
    ramp_epoch: int = Field(
        default=500, ge=2, description="steps of an epoch, where ramp=epoch or schedule=plateau"
    )

    body: str
    widths: tuple[int, ...] | None = None
    units: tuple[int, ...] = Field(default=(1, 1, 2, 1), description="units of the published body's stages")
    style_hidden: int | None = Field(default=24, description="channels in the published style blocks")
    hidden: int | None = Field(default=64, description="width of the published feed-forward layers")
    heads: int = Field(default=4, ge=1)

    weight_l2: float = Field(default=1.0, ge=0)
    weight_perceptual: float = Field(default=0.2, ge=0)
    weight_identity: float = Field(default=0.1, ge=0)
    weight_alignment: float = Field(default=0.1, ge=0)
    weight_feature: float = Field(default=0.01, ge=0)
    weight_w: float = Field(
        default=0.0, ge=0, description="direct regression of w on samples, in its variance"
    )
    picture_weights: dict[Literal["f", "w_plus", "w"], float] = Field(
        default={"f": 1.0, "w_plus": 1.0, "w": 1.0}, description="of the reconstructions"
    )
    bank: int = Field(default=4096, ge=1, description="random codes as negatives, where alignment=bank")

    mix: float = Field(
        default=0.5, ge=0, le=1, description="share of samples; the rest are the world's images"
    )
    images: int | None = Field(
        default=20_000, ge=1, description="how many training images; null takes them all"
    )
    flip: float = Field(ge=0, le=1, description="share of the world's images that are mirrored")
    average_flip: bool = Field(
        description="a defect of the published code: the average picture is mirrored by a coin of its own"
    )
    optimizer: Literal["adam", "ranger"]
    schedule: Literal["cosine", "constant", "plateau"] = Field(
        description="plateau: a tenth when the mean validation loss has not fallen for 10 epochs (ramp_epoch)"
    )
    lr: float = Field(gt=0, description="1e-4 at full size; small networks want more")
    warmup: int = Field(default=50, ge=0, description="steps over which the learning rate rises")
    clip: float | None = Field(gt=0, description="largest norm of the gradient; null sets no limit")
    ema_half_life: float = Field(ge=0, description="of the encoder's average, in images; 0 keeps none")
    validation_images: int = Field(default=256, ge=8)

    free: ClassVar[frozenset[str]] = TrainConfig.free | {"validation_images"}
    stage: ClassVar[str] = "inversion"

    @classmethod
    def preset_values(cls, preset: Any) -> dict[str, Any]:
        """What a preset sets; `foundation` where none is named, or none that exists."""
        return PRESETS[preset if preset in list(PRESETS) else "foundation"]

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Take from the preset what is not given, and then from the small defaults."""
        if not isinstance(values, dict):
            return values
        preset = values.get("preset")
        small = SMALL[preset if preset in list(SMALL) else "foundation"]
        return {**small, **cls.preset_values(preset), **values}

    @model_validator(mode="after")
    def _check(self) -> InversionConfig:
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size={self.batch_size} cannot be shared by devices={self.devices}")
        bodies = ("irse_small", "irse50") if self.preset == "published" else ("small", "irse_small", "irse50")
        if self.body not in bodies:
            raise ValueError(f"body={self.body!r}: preset={self.preset} has {', '.join(bodies)}")
        if self.average_flip and self.preset != "published":
            raise ValueError("average_flip: only preset=published takes an average picture from its input")
        if self.preset == "published":
            fixed = {"wplus_attention": "single", "feature_attention": "single", "feature_side": 16}
            wrong = [name for name, value in fixed.items() if getattr(self, name) != value]
            if wrong:
                only = fixed[wrong[0]]
                raise ValueError(f"{wrong[0]}: preset=published has {only!r} alone; switch it in foundation")
        return self

    def architecture(self, style_dim: int = 128) -> dict[str, Any]:
        """Arguments of the encoder, beside those that the generator, of this width of codes, gives."""
        if self.preset == "published":
            small = {"widths": (16, 24, 48, 80, style_dim), "units": self.units}
            sizes = {"irse_small": small, "irse50": {}}
            body = sizes[self.body] | ({"widths": self.widths} if self.widths else {})
            return {**body, "style_hidden": self.style_hidden, "hidden": self.hidden, "heads": self.heads}
        names = ("body", "widths", "heads", "wplus_attention", "feature_attention", "feature_side")
        return {name: getattr(self, name) for name in names}

    def term_weight(self, term: str) -> float:
        """The weight of `l2`, `perceptual` or `identity`."""
        return float(getattr(self, f"weight_{term}"))

    def picture_weight(self, name: str) -> float:
        """The weight of a reconstruction: `f`, `w_plus` or `w`."""
        return self.picture_weights.get(name, 1.0)
