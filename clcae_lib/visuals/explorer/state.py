"""What a picture of the explorer depends on, and nothing else: one value that can be compared, kept and sent.

A state asks for codes in W, W+ or F (arXiv 2211.11448, section 3) and for steps along directions (its section
4.3). It comes from widgets, or from a file that a visitor loads, so each value is checked here.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

Source = Literal["seed", "gallery", "upload"]
SOURCES = ("seed", "gallery", "upload")
CODE_SPACES = ("w", "w_plus", "f")
MAX_STRENGTH = 20.0
"""The furthest edit, in standard deviations; no generator draws faces near as far out."""
MAX_JSON = 8_000_000
"""Characters of a state as JSON: room for an uploaded picture of 1024 pixels a side."""


class ExplorerError(ValueError):
    """What the explorer expects to go wrong, said in a sentence for the visitor: plain text, not HTML."""


@dataclass(frozen=True)
class State:
    """Everything that a picture of the explorer depends on.

    Attributes:
        world: its name.
        source: what is shown: a code drawn by `seed`, or a picture of the gallery or an upload, inverted.
        seed: of the latent, where `source` is "seed".
        index: into the gallery, where `source` is "gallery".
        upload: a PNG of the world's side in base64, where `source` is "upload"; a state stays self-contained.
        method: the preset that inverts gallery and uploads.
        space: what is decoded. A sampled code has no F: "f" then means its W+.
        truncation: 0 to 1; how much is left of the code's distance from the mean code.
        edits: strengths of controls, in standard deviations; zeros are dropped.
        mix_seed: rows `mix_layers` of W+ are taken from the code of this seed; None for no mixing.
        mix_layers: rows of W+, rising.
        lock_identity: take out of the edits what changes who is seen.
        strip: the control that is shown over a range, or None.
        strip_range: strengths of the strip run from minus this to this.

    Raises:
        ExplorerError: a value is out of its range; it is a `ValueError`.
    """

    world: str = "portraits"
    source: Source = "seed"
    seed: int = 0
    index: int = 0
    upload: str | None = field(default=None, repr=False)
    method: str = "foundation"
    space: Literal["w", "w_plus", "f"] = "f"
    truncation: float = 1.0
    edits: Mapping[str, float] = field(default_factory=dict, hash=False)
    mix_seed: int | None = None
    mix_layers: tuple[int, ...] = ()
    lock_identity: bool = False
    strip: str | None = None
    strip_range: float = 2.0

    def __post_init__(self) -> None:
        """Check each value; bring edits and layers into the one form in which equal states are equal."""
        for name in ("world", "method"):
            _name(name, getattr(self, name))
        _choice("source", self.source, SOURCES)
        _choice("space", self.space, CODE_SPACES)
        for name in ("seed", "index"):
            _whole(name, getattr(self, name))
        if self.mix_seed is not None:
            _whole("mix_seed", self.mix_seed)
        if self.strip is not None:
            _name("strip", self.strip)
        if not isinstance(self.lock_identity, bool):
            raise ExplorerError(f"lock_identity must be true or false, not {_short(self.lock_identity)}")
        if self.upload is not None and (not isinstance(self.upload, str) or len(self.upload) > MAX_JSON):
            raise ExplorerError("upload must be a picture as base64 text; upload it again")
        _set(self, "truncation", _number("truncation", self.truncation, 0.0, 1.0))
        _set(self, "strip_range", _number("strip_range", self.strip_range, 0.01, MAX_STRENGTH))
        _set(self, "edits", MappingProxyType(_strengths(self.edits)))
        _set(self, "mix_layers", _rows(self.mix_layers))

    def to_json(self) -> str:
        """The state as JSON, which `from_json` reads."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(values | {"edits": dict(self.edits)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "State":
        """The state that `to_json` wrote; what is left out has its default.

        Raises:
            ExplorerError: the text is too long, no JSON object, or has a key or value that no state has.
        """
        if len(text) > MAX_JSON:
            raise ExplorerError(f"This state has more than {MAX_JSON:,} characters, so it is none of ours.")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ExplorerError("This is no JSON; load a file that the explorer saved.") from error
        if not isinstance(values, dict):
            raise ExplorerError("This JSON is no object; load a file that the explorer saved.")
        unknown = sorted(values.keys() - {f.name for f in fields(cls)})
        if unknown:
            raise ExplorerError(f"No state has {_short(unknown[0])}; load a file that the explorer saved.")
        return cls(**values)

    def with_edit(self, key: str, strength: float) -> "State":
        """The same state with the control `key` at this strength; 0 takes the edit away."""
        return replace(self, edits={**self.edits, key: strength})


def _set(state: State, name: str, value: Any) -> None:
    """Set a field of a frozen instance, while it is being made."""
    object.__setattr__(state, name, value)


def _short(value: Any) -> str:
    """A value as a message shows it, at most 60 characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _name(label: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.-]{1,64}", value):
        raise ExplorerError(f"{label} must be a short name of letters and digits, not {_short(value)}")


def _choice(label: str, value: Any, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ExplorerError(f"{label} must be one of {', '.join(choices)}, not {_short(value)}")


def _whole(label: str, value: Any, *, below: int = 2**53) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise ExplorerError(f"{label} must be a whole number from 0 to {below - 1}, not {_short(value)}")


def _number(label: str, value: Any, low: float, high: float) -> float:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not low <= value <= high:
        raise ExplorerError(f"{label} must be a number from {low:g} to {high:g}, not {_short(value)}")
    return float(value)


def _strengths(edits: Any) -> dict[str, float]:
    if not isinstance(edits, Mapping) or len(edits) > 200:
        raise ExplorerError(f"edits must map controls to strengths, not {_short(edits)}")
    for key in edits:
        _name("edits: a control", key)
    checked = {k: _number(f"edits: {k}", v, -MAX_STRENGTH, MAX_STRENGTH) for k, v in edits.items()}
    return {key: checked[key] for key in sorted(checked) if checked[key] != 0}


def _rows(layers: Any) -> tuple[int, ...]:
    if not isinstance(layers, tuple | list) or len(layers) > 64:
        raise ExplorerError(f"mix_layers must be a list of rows of W+, not {_short(layers)}")
    for layer in layers:
        _whole("mix_layers: a row", layer, below=64)
    return tuple(sorted(set(layers)))
