"""Settings of the generator's training: stages of rising resolution, the loss and the running average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clcae_lib.training.config import Precision, TrainConfig

__all__ = ["GeneratorConfig", "Stage"]


class Stage(BaseModel):
    """One resolution and for how many images it is trained; null takes the run's own value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: int = Field(ge=8)
    images: int = Field(ge=0)
    batch_size: int | None = Field(default=None, ge=1)
    lr: float | None = Field(default=None, gt=0)
    gamma: float | None = Field(default=None, ge=0)


class GeneratorConfig(TrainConfig):
    """Settings of the generator's training; the defaults are the recipe of the portraits."""

    precision: Precision = "bf16-mixed"
    steps: int = Field(default=10_000_000, ge=0, description="an early end; the stages give the length")
    size: int | None = Field(
        default=30_000, ge=1, description="how many training images; null takes them all"
    )
    resolution: int = 64
    style_dim: int = 128
    mapping_layers: int = Field(default=4, ge=1)
    channels: dict[int, int] = Field(default={4: 128, 8: 96, 16: 96, 32: 64, 64: 32})
    discriminator_channels: dict[int, int] | None = None
    stages: tuple[Stage, ...] = (
        Stage(resolution=16, images=60_000, lr=0.004),
        Stage(resolution=32, images=120_000, lr=0.003),
        Stage(resolution=64, images=300_000),
    )
    loss: Literal["relativistic", "logistic"] = "relativistic"
    lr: float = Field(default=0.0025, gt=0)
    gamma: float = Field(default=1.0, ge=0, description="weight of R1 and R2")
    penalty_every: int = Field(default=4, ge=1, description="steps between penalties, which scale with it")
    mixing: float = Field(default=0.25, ge=0, le=1, description="share of samples with two codes")
    warmup: int = Field(default=2000, ge=0, description="images over which a stage's generator lr rises")
    ema_half_life: float = Field(default=5000, gt=0, description="images")
    ema_ramp: float = Field(
        default=0.05, gt=0, description="the half life is at most this share of the images"
    )
    w_samples: int = Field(default=100_000, ge=2, description="codes that w_avg and w_std are taken from")
    checkpoint_every: int = Field(default=1000, ge=1)
    log_every: int = Field(default=100, ge=1)
    sheet_every: int = Field(default=1000, ge=1)
    validate_every: int = Field(default=100, ge=1)
    measure_every: int | None = Field(
        default=100_000,
        ge=1,
        description="images of the last resolution between measurements; null measures never",
    )
    measure_samples: int = Field(default=10_000, ge=8, description="samples that are measured")

    free: ClassVar[frozenset[str]] = TrainConfig.free | {
        "devices",
        "w_samples",
        "measure_every",
        "measure_samples",
    }
    stage: ClassVar[str] = "generator"

    @model_validator(mode="after")
    def _check(self) -> GeneratorConfig:
        sides = [stage.resolution for stage in self.stages]
        if not sides or sides != sorted(sides) or sides[-1] != self.resolution:
            raise ValueError(f"stages: resolutions {sides} must rise and end at resolution={self.resolution}")
        if missing := [side for side in sides if side not in self.channels]:
            raise ValueError(f"channels: no width for the resolutions {missing} of the stages")
        if odd := [stage.batch_size for stage in self.resolved() if stage.batch_size % self.devices]:
            raise ValueError(f"batch_size: {odd} cannot be shared by devices={self.devices}")
        return self

    def resolved(self) -> list[Stage]:
        """The stages, with the run's own batch size, learning rate and gamma where they give none."""
        own = {"batch_size": self.batch_size, "lr": self.lr, "gamma": self.gamma}
        return [
            stage.model_copy(
                update={name: value for name, value in own.items() if getattr(stage, name) is None}
            )
            for stage in self.stages
        ]

    def fixed(self, progress: Mapping[str, Any]) -> dict[str, Any]:
        """All but the stages to come and the length of the one at hand, which may be changed on the way."""
        reached = int(progress.get("stage", 0))
        values = super().fixed(progress)
        for name in ("stages", "lr", "gamma", "batch_size"):
            values.pop(name)
        for index, stage in enumerate(self.resolved()[: reached + 1]):
            values[f"stages.{index}"] = stage.model_dump(exclude={"images"} if index == reached else None)
        return values
