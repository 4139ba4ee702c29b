"""Undo and redo of the explorer: states one after another (no section of the paper).

A drag sends many states; they are one step of the history, so that one undo takes the whole drag back.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import fields

from clcae_lib.explorer.state import State

Control = tuple[str, str]


class History:
    """The states so far, and a place among them. Several threads may change it: one change at a time.

    Args:
        state: the first one, which `reset` returns to.
        pause: seconds; changes of one control that follow each other sooner are one step.
        limit: steps kept; the oldest are forgotten.
        clock: seconds that only rise.
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
        self._dragged: Control | None = None
        self._last = -float("inf")
        self._lock = threading.RLock()

    @property
    def state(self) -> State:
        """The present one."""
        with self._lock:
            return self._past[-1]

    @property
    def can_undo(self) -> bool:
        """Whether there is an earlier one."""
        return len(self._past) > 1

    @property
    def can_redo(self) -> bool:
        """Whether an undo can be taken back."""
        return bool(self._future)

    def push(self, state: State) -> State:
        """Make a state the present one; what was undone before is forgotten."""
        with self._lock:
            if state == self.state:
                return state
            control, now = _only_change(self.state, state), self._clock()
            drag = control is not None and control == self._dragged and now - self._last < self._pause
            self._dragged, self._last = control, now
            if drag:
                self._past.pop()
            if state == self.state:
                self._dragged = None  # back where the drag began: its step is gone, the next is another
            else:
                self._past.append(state)
            self._past = self._past[-self._limit :]
            self._future.clear()
            return self.state

    def undo(self) -> State:
        """Go back one step, if there is one, and return the state there."""
        with self._lock:
            if self.can_undo:
                self._future.append(self._past.pop())
            return self._stop()

    def redo(self) -> State:
        """Take the last undo back, if there is one, and return the state there."""
        with self._lock:
            if self.can_redo:
                self._past.append(self._future.pop())
            return self._stop()

    def reset(self) -> State:
        """Return to the first state, as one step that can be undone."""
        with self._lock:
            self._dragged = None
            self.push(self._first)
            return self._stop()

    def _stop(self) -> State:
        """End the drag: what follows is a step of its own."""
        self._dragged = None
        return self.state


def _only_change(old: State, new: State) -> Control | None:
    """The one control that two states differ in, or None where it is not one."""
    names = [f.name for f in fields(State) if getattr(old, f.name) != getattr(new, f.name)]
    if names == ["edits"]:
        keys = old.edits.keys() | new.edits.keys()
        edits = [("edits", k) for k in keys if old.edits.get(k, 0) != new.edits.get(k, 0)]
        return edits[0] if len(edits) == 1 else None
    return (names[0], "") if len(names) == 1 else None
