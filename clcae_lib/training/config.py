"""Typed settings of a training run: defaults, then a YAML file, then `name=value` overrides."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["ConfigError", "TrainConfig", "differences", "load_config"]

Config = TypeVar("Config", bound=BaseModel)
Precision = Literal["32-true", "bf16-mixed", "64-true"]


class ConfigError(ValueError):
    """A setting that does not exist, does not parse, or may not change now; the message names it."""


class TrainConfig(BaseModel):
    """What every training run has in common; each stage of the chain adds its own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    world: str = "portraits"
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    devices: int = Field(default=1, ge=1, description="how many devices; more than one means DDP")
    precision: Precision = "32-true"
    threads: int | None = Field(default=None, ge=1, description="CPU threads; null leaves torch's choice")
    steps: int = Field(default=1000, ge=0)
    batch_size: int = Field(default=16, ge=1, description="images a step, over all devices together")
    max_minutes: float | None = Field(
        default=None, ge=0, description="stop cleanly (resumably) after this long"
    )
    checkpoint_every: int = Field(default=500, ge=1, description="steps between resumable states")
    log_every: int = Field(default=50, ge=1, description="steps averaged into one row of metrics.csv")
    validate_every: int = Field(default=500, ge=1, description="steps between validations")
    sheet_every: int = Field(default=500, ge=1, description="steps between sample sheets")
    tensorboard: bool = True

    free: ClassVar[frozenset[str]] = frozenset(
        {"steps", "max_minutes", "checkpoint_every", "log_every", "validate_every", "sheet_every"}
        | {"tensorboard", "threads", "device"}
    )
    """Settings that a resumed run may change."""

    def fixed(self, progress: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a run may no longer change once its task's state is `progress`."""
        del progress
        return self.model_dump(mode="json", exclude=set(self.free))


def load_config(cls: type[Config], file: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """A `cls` from its defaults, the YAML `file` and `overrides` such as "lr=3e-4" or "stages.0.images=100".

    Raises:
        ConfigError: an unreadable file, an unknown parameter or a wrong value; the message names it.
    """
    values = _read(file) if file is not None else {}
    for override in overrides:
        _override(cls, values, override)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(cls, error)) from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each parameter that differs between two `TrainConfig.fixed`: "lr: 0.1 -> 0.2"."""
    names = sorted(set(old) | set(new))
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]


def _read(file: str | Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(file).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the configuration {file}: {error}") from error
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{file} must hold 'name: value' lines, not a {type(values).__name__}")
    return values or {}


def _override(cls: type[BaseModel], values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"{override!r} is no setting; write name=value, e.g. seed=1")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {text!r} is no YAML value") from error
    path = name.strip().split(".")
    if len(path) > 1 and path[0] not in values:
        values[path[0]] = _default(cls, path[0])
    _put(values, path, value, name=name)


def _default(cls: type[BaseModel], name: str) -> Any:
    if name not in cls.model_fields:
        raise ConfigError(_unknown(cls, name))
    return _plain(cls.model_fields[name].get_default(call_default_factory=True))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _put(values: Any, path: list[str], value: Any, *, name: str) -> None:
    for depth, key in enumerate(path):
        index = _index(values, key, name)
        if depth == len(path) - 1:
            values[index] = value
        elif isinstance(values, dict):
            values = values.setdefault(index, {})
        else:
            values = values[index]


def _index(values: Any, key: str, name: str) -> Any:
    if isinstance(values, dict):
        return int(key) if key.lstrip("-").isdigit() else key
    if isinstance(values, list) and key.isdigit() and int(key) < len(values):
        return int(key)
    raise ConfigError(f"{name}: there is no {key!r} in {values!r}")


def _explain(cls: type[BaseModel], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        unknown = problem["type"] == "extra_forbidden"
        lines.append(
            _unknown(cls, where) if unknown else f"{where}: {problem['msg']} (got {problem['input']!r})"
        )
    return "\n".join(lines)


def _unknown(cls: type[BaseModel], name: str) -> str:
    near = difflib.get_close_matches(name, cls.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(cls.model_fields)}"
    return f"{name}: {cls.__name__} has no such parameter; {hint}"
