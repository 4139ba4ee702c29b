"""What a picture of the explorer depends on, and nothing else: one value that can be compared, kept and sent.

A state asks for codes in W, W+ or F (arXiv 2211.11448, section 3) and for steps along directions (its section
4.3). It comes from widgets, or from a file that a visitor loads, so each value is checked here.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal

from clcae_lib.errors import ClcaeError
from clcae_lib.inversion import SPACES

Source = Literal["seed", "gallery", "upload"]
Check = Callable[[str, Any], Any]
MAX_STRENGTH = 20.0
"""The furthest edit, in standard deviations; no generator draws faces near as far out."""
MAX_JSON = 8_000_000
"""Characters of a state as JSON: room for an uploaded picture of 1024 pixels a side."""


class ExplorerError(ClcaeError, ValueError):
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
    truncation: float | int = 1.0
    edits: Mapping[str, float | int] = field(default_factory=dict, hash=False)
    mix_seed: int | None = None
    mix_layers: tuple[int, ...] = ()
    lock_identity: bool = False
    strip: str | None = None
    strip_range: float | int = 2.0

    def __post_init__(self) -> None:
        """Check each value; bring edits and layers into the one form in which equal states are equal."""
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))

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
        unknown = sorted(values.keys() - _CHECKS.keys())
        if unknown:
            raise ExplorerError(f"No state has {_short(unknown[0])}; load a file that the explorer saved.")
        return cls(**{name: _CHECKS[name](name, value) for name, value in values.items()})

    def with_edit(self, key: str, strength: float | int) -> "State":
        """The same state with the control `key` at this strength; 0 takes the edit away."""
        return replace(self, edits={**self.edits, key: strength})


def _short(value: Any) -> str:
    """A value as a message shows it, at most 60 characters."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _name(label: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.-]{1,64}", value):
        raise ExplorerError(f"{label} must be a short name of letters and digits, not {_short(value)}.")
    return value


def _choice(*choices: str) -> Check:
    def check(label: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ExplorerError(f"{label} must be one of {', '.join(choices)}, not {_short(value)}.")
        return value

    return check


def _whole(label: str, value: Any, *, below: int = 2**53) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise ExplorerError(f"{label} must be a whole number from 0 to {below - 1}, not {_short(value)}.")
    return value


def _number(low: float, high: float) -> Check:
    def check(label: str, value: Any) -> float:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not low <= value <= high:  # not a number compares as false
            raise ExplorerError(f"{label} must be a number from {low:g} to {high:g}, not {_short(value)}.")
        return float(value)

    return check


def _flag(label: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ExplorerError(f"{label} must be true or false, not {_short(value)}.")
    return value


def _text(label: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_JSON:
        raise ExplorerError(f"{label} must be a picture as base64 text; upload it again.")
    return value


def _strengths(label: str, value: Any) -> Mapping[str, float]:
    if not isinstance(value, Mapping) or len(value) > 200:
        raise ExplorerError(f"{label} must map controls to strengths, not {_short(value)}.")
    strength = _number(-MAX_STRENGTH, MAX_STRENGTH)
    checked = {_name(f"{label}: a control", k): strength(f"{label}: {k}", v) for k, v in value.items()}
    return MappingProxyType({key: checked[key] for key in sorted(checked) if checked[key] != 0})


def _rows(label: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > 64:
        raise ExplorerError(f"{label} must be a list of rows of W+, not {_short(value)}.")
    return tuple(sorted({_whole(f"{label}: a row", row, below=64) for row in value}))


def _optional(check: Check) -> Check:
    return lambda label, value: None if value is None else check(label, value)


_CHECKS: dict[str, Check] = {
    "world": _name,
    "source": _choice("seed", "gallery", "upload"),
    "seed": _whole,
    "index": _whole,
    "upload": _optional(_text),
    "method": _name,
    "space": _choice(*SPACES),
    "truncation": _number(0.0, 1.0),
    "edits": _strengths,
    "mix_seed": _optional(_whole),
    "mix_layers": _rows,
    "lock_identity": _flag,
    "strip": _optional(_name),
    "strip_range": _number(0.01, MAX_STRENGTH),
}
"""What each field may be: a check takes its name and a value, and returns the value as it is kept."""
