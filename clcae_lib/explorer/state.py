"""The state of the explorer, a value that determines the image; and the history of states.

A state selects codes in W, W+ or F (arXiv 2211.11448, section 3) and steps along directions (section 4.3). It
comes from widgets or from a file that a visitor loads, so each value is checked here.
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import field, fields, replace
from functools import wraps
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from clcae_lib.errors import ClcaeError
from clcae_lib.settings import explain

MAX_STRENGTH = 20.0
"""The largest strength of an edit, in standard deviations, far beyond what still gives faces."""
MAX_JSON = 8_000_000
"""Characters of a state as JSON: room for an uploaded image of 1024 pixels a side."""


class ExplorerError(ClcaeError, ValueError):
    """A request that the explorer cannot meet, in a sentence for the visitor: plain text, not HTML."""


def _in_one_sentence(cls: type) -> type:
    """Return the pydantic data class, changed to raise an ExplorerError with its first error."""
    checked = cls.__init__

    @wraps(checked)
    def __init__(self, /, **values: Any) -> None:  # noqa: N807
        try:
            checked(self, **values)
        except ValidationError as error:
            raise ExplorerError(f"{explain(error)}.") from error

    cls.__init__ = __init__
    return cls


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,64}", name):
        raise ValueError("give a short name of letters and digits")
    return name


def _sorted_edits(edits: Mapping[str, float]) -> Mapping[str, float]:
    """Return edits in a normal form, so that equal states compare equal."""
    return MappingProxyType({key: edits[key] for key in sorted(edits) if edits[key] != 0})


_Name = Annotated[str, AfterValidator(_check_name)]
_Whole = Annotated[int, Field(ge=0, lt=2**53)]
_Strength = Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH)]
_Row = Annotated[int, Field(ge=0, lt=64)]
_Unique = AfterValidator(lambda rows: tuple(sorted(set(rows))))
_Rows = Annotated[tuple[_Row, ...], Field(max_length=64, strict=False), _Unique]


@_in_one_sentence
@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", validate_default=True))
class State:
    """Everything that an image of the explorer depends on.

    Attributes:
        world: name of the world.
        source: origin of the code: drawn by `seed`, or an inverted image of the gallery or of an upload.
        seed: seed of the latent, if `source` is "seed".
        index: number of the image in the gallery, if `source` is "gallery".
        upload: a PNG of the world's side in base64, if `source` is "upload"; so a state is self-contained.
        method: preset of the encoder that inverts gallery and uploads.
        space: space that is decoded. A sampled code has no F: "f" then means its W+.
        truncation: 0 to 1; share that remains of the code's distance from the mean code.
        edits: strengths of controls, in standard deviations; zeros are dropped.
        mix_seed: rows `mix_layers` of W+ are taken from the code of this seed; None for no mixing.
        mix_layers: rows of W+, rising.
        lock_identity: whether to remove from edits what changes the identity.
        strip: control that is shown over a range, or None.
        strip_range: strengths of the strip run from minus this to this.

    Raises:
        ExplorerError: a value is out of its range; it is a `ValueError`.
    """

    world: _Name = "portraits"
    source: Literal["seed", "gallery", "upload"] = "seed"
    seed: _Whole = 0
    index: _Whole = 0
    upload: Annotated[str, Field(max_length=MAX_JSON)] | None = field(default=None, repr=False)
    method: _Name = "foundation"
    space: Literal["w", "w_plus", "f"] = "f"
    truncation: Annotated[float, Field(ge=0, le=1)] = 1.0
    edits: Annotated[Mapping[_Name, _Strength], Field(max_length=200), AfterValidator(_sorted_edits)] = field(
        default_factory=dict, hash=False
    )
    mix_seed: _Whole | None = None
    mix_layers: _Rows = ()
    lock_identity: bool = False
    strip: _Name | None = None
    strip_range: Annotated[float, Field(ge=0.01, le=MAX_STRENGTH)] = 2.0

    def to_json(self) -> str:
        """Return the state as JSON, which `from_json` reads."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps(values | {"edits": dict(self.edits)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "State":
        """Return the state that `to_json` wrote; missing fields get their defaults.

        Raises:
            ExplorerError: the text is too long, not a JSON object, or has a key or value that no state has.
        """
        if len(text) > MAX_JSON:
            raise ExplorerError(f"This is not a state of the explorer: it has over {MAX_JSON:,} characters.")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ExplorerError("This is not valid JSON; load a file that the explorer saved.") from error
        if not isinstance(values, dict):
            raise ExplorerError("This JSON is not an object; load a file that the explorer saved.")
        return cls(**values)

    def with_edit(self, key: str, strength: float | int) -> "State":
        """Return the same state with the control `key` at this strength; 0 removes the edit."""
        return replace(self, edits={**self.edits, key: strength})


class History:
    """The states so far, for undo and redo; a drag, which sends many states, is one step.

    Changes of one control that follow each other within `pause` seconds are a drag. `limit` steps are kept.
    """

    def __init__(
        self,
        state: State,
        *,
        pause: float = 1.0,
        limit: int = 200,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._past, self._future = state, [state], list[State]()
        self._pause, self._limit, self._clock = pause, limit, clock
        self._dragged: str | None = None
        self._last = -float("inf")

    @property
    def state(self) -> State:
        """The current state."""
        return self._past[-1]

    @property
    def can_undo(self) -> bool:
        """Whether there is an earlier state."""
        return len(self._past) > 1

    @property
    def can_redo(self) -> bool:
        """Whether a step was undone."""
        return bool(self._future)

    def push(self, state: State) -> State:
        """Make a state the current one; undone states are deleted."""
        if state == self.state:
            return state
        control, now = _only_change(self.state, state), self._clock()
        drag = control is not None and control == self._dragged and now - self._last < self._pause
        past = self._past[:-1] if drag else self._past
        back = state == past[-1]  # the drag is back at its start: its step is deleted
        self._dragged, self._last = None if back else control, now
        self._past = (past if back else [*past, state])[-self._limit :]
        self._future.clear()
        return state

    def undo(self) -> State:
        """Go back one step, if there is one, and return the state there."""
        if self.can_undo:
            self._future.append(self._past.pop())
        self._dragged = None
        return self.state

    def redo(self) -> State:
        """Revert the last undo, if there is one, and return the state there."""
        if self.can_redo:
            self._past.append(self._future.pop())
        self._dragged = None
        return self.state

    def reset(self) -> State:
        """Return to the first state, as one step that can be undone."""
        self._dragged = None
        self.push(self._first)
        self._dragged = None
        return self.state


def _only_change(old: State, new: State) -> str | None:
    """Return the control in which two states differ, or None unless it is exactly one."""
    names = [f.name for f in fields(State) if getattr(old, f.name) != getattr(new, f.name)]
    if names == ["edits"]:
        keys = old.edits.keys() | new.edits.keys()
        names = [f"edits {key}" for key in keys if old.edits.get(key, 0) != new.edits.get(key, 0)]
    return names[0] if len(names) == 1 else None
