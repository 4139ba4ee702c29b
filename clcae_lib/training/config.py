"""Typed settings of a training run.

Later sources replace earlier ones: defaults, the world's defaults, the preset's values, a YAML file, and
`name=value` of the command line.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from clcae_lib.settings import ConfigError, parse_text, parse_yaml, read_yaml, split_setting

START_OVER = "another folder, or resume=False (--no-resume) to start over"
Config = TypeVar("Config", bound="TrainConfig")
MAX_PARTS = 8


class TrainConfig(BaseModel):
    """Settings that every training run has; each stage of the chain adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    world: str = "portraits"
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    devices: int = Field(default=1, ge=1, description="number of devices, one process for each")
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "bf16-mixed"
    threads: int | None = Field(default=None, ge=1, description="CPU threads; null leaves torch's choice")
    cuda_graphs: bool = Field(default=True, description="record steps and replay them, on a CUDA device")
    compile: bool = Field(default=False, description="compile the trained networks, which takes a minute")
    steps: int = Field(default=1000, ge=0)
    batch_size: int = Field(default=16, ge=1, description="images per step, summed over all devices")
    max_minutes: float | None = Field(
        default=None, ge=0, description="stop after this time; it can be resumed"
    )
    checkpoint_every: int = Field(default=500, ge=1, description="steps between resumable states")
    log_every: int = Field(default=50, ge=1, description="steps averaged into one row of metrics.csv")
    validate_every: int = Field(default=500, ge=1, description="steps between validations")
    sheet_every: int = Field(default=500, ge=1, description="steps between sample sheets")
    tensorboard: bool = True

    free: ClassVar[frozenset[str]] = frozenset(
        {"steps", "max_minutes", "checkpoint_every", "log_every", "validate_every", "sheet_every"}
        | {"tensorboard", "threads", "device", "cuda_graphs", "compile"}
    )
    """Settings that a resumed run may change."""
    stage: ClassVar[str] = ""
    """The link of the chain of weights, by which a world selects its defaults."""

    @classmethod
    def preset_values(cls, preset: Any) -> Mapping[str, Any]:
        """Return the settings of a preset, given its name or None; none where there are no presets."""
        return {}

    def fixed(self, progress: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that must match on resume, if the state of the run's task is `progress`."""
        return self.model_dump(mode="json", exclude=set(self.free))

    def batch_sizes(self) -> list[int]:
        """Return every batch size of the run; each must be a multiple of `devices`."""
        return [self.batch_size]

    @model_validator(mode="after")
    def _check_devices(self) -> TrainConfig:
        if odd := [size for size in self.batch_sizes() if size % self.devices]:
            raise ValueError(f"batch_size={odd[0]} cannot be shared by devices={self.devices}")
        return self


def load_config(cls: type[Config], file: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Return settings from, in rising order: defaults, the world's, the preset's, `file`, and `overrides`.

    Args:
        file: YAML, such as a run's own config.yaml.
        overrides: settings such as "lr=3e-4" or "stages.0.images=100"; text is used as written.

    Raises:
        ConfigError: an unreadable file, an unknown parameter or a wrong value; the message names it.
        WorldError: there is no such world.
    """
    return resolve_config(cls, file, overrides)[0]


def resolve_config(
    cls: type[Config], file: str | Path | None = None, overrides: Iterable[str] = ()
) -> tuple[Config, dict[str, str]]:
    """Return the result of `load_config`, and the source of each field's value by the field's name."""
    from clcae_lib.worlds import get_world

    overrides = [split_setting(override) for override in overrides]
    given = read_yaml(file) if file is not None else {}
    chosen = {name: field.default for name, field in cls.model_fields.items()}
    chosen |= given | {name: parse_text(text) for name, text in overrides}
    world, preset = chosen["world"], chosen.get("preset")
    layers = {
        f"world {world}": get_world(str(world)).training_defaults(cls.stage),
        f"preset {preset}": cls.preset_values(preset),
        str(file): given,
    }
    aliases = {name: field.alias or name for name, field in cls.model_fields.items()}
    fields = {alias: name for name, alias in aliases.items()}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, layer in layers.items():
        values |= {aliases.get(name, name): copy.deepcopy(value) for name, value in layer.items()}
        sources |= {aliases.get(name, name): source for name in layer}
    for name, text in overrides:
        top, *path = name.split(".")
        top = aliases.get(top, top)
        _override(cls, values, [top, *path], text)
        sources[top] = "--set"
    try:
        config = cls.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(cls, error, sources)) from error
    return config, {fields.get(name, name): source for name, source in sources.items()}


def refuse_changes(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise an error if the fixed settings of a run to resume, `TrainConfig.fixed`, differ.

    Raises:
        ConfigError: they differ; the message names each difference.
    """
    if changed := differences(old, new):
        raise ConfigError(
            f"{folder} holds a run with other settings ({'; '.join(changed)}); "
            f"use the old settings, {START_OVER}"
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a line for each parameter that differs between two `TrainConfig.fixed`: "lr: 0.1 -> 0.2"."""
    names = sorted(set(old) | set(new))
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in names if old.get(name) != new.get(name)]


def _override(cls: type[TrainConfig], values: dict[str, Any], path: list[str], text: str) -> None:
    """Set the value at a path of names, list indices and keys; missing parts get their defaults first."""
    name, top = ".".join(path), path[0]
    if len(path) > MAX_PARTS:
        raise ConfigError(f"{name[:80]}: no parameter has more than {MAX_PARTS} parts")
    field = cls.model_fields.get(top)
    if len(path) == 1 and field is not None and field.annotation is str:
        values[top] = parse_text(text)
        return
    if len(path) > 1 and top not in values:
        if field is None:
            raise ConfigError(_unknown(cls, top))
        default = TypeAdapter(Any).dump_python(field.get_default(call_default_factory=True))
        values[top] = list(default) if isinstance(default, tuple) else default
    place: Any = values
    for key in path[:-1]:
        key = _key(place, key, name)
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[_key(place, path[-1], name)] = parse_yaml(text, source=f"--set {name}") if text.strip() else ""


def _key(place: Any, key: str, name: str) -> Any:
    if isinstance(place, dict):
        return int(key) if re.fullmatch("-?[0-9]{1,9}", key) else key
    if isinstance(place, list) and re.fullmatch("[0-9]{1,9}", key) and int(key) < len(place):
        return int(key)
    raise ConfigError(f"{name}: there is no {key!r} in {place!r}")


def _explain(cls: type[BaseModel], error: ValidationError, sources: Mapping[str, str]) -> str:
    """Return all problems on one line, each with the parameter's name and the source of its value."""
    problems = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        source = sources.get(str(problem["loc"][0])) if problem["loc"] else None
        if problem["type"] == "extra_forbidden":
            text = _unknown(cls, where)
        elif problem["type"] == "value_error":
            text = ": ".join(filter(None, [where, problem["msg"].removeprefix("Value error, ")]))
        else:
            text = f"{where}: {problem['msg']}, not {repr(problem['input'])[:80]}"
        problems.append(text + (f" (from {source})" if source else ""))
    return "; ".join(problems)


def _unknown(cls: type[BaseModel], name: str) -> str:
    near = difflib.get_close_matches(name, cls.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(cls.model_fields)}"
    return f"{name}: {cls.__name__} has no such parameter; {hint}"
