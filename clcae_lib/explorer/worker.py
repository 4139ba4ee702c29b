"""One thread that draws for the explorer, so that neither a drag nor the kernel's other cells ever wait.

There is one place for a request: a newer one replaces the one that waits, so nothing is drawn that nobody
wants to see any more (no section of the paper).
"""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import UInt8
from threadpoolctl import threadpool_limits

from clcae_lib.explorer.state import ExplorerError, State
from clcae_lib.explorer.studio import Frame

Picture = UInt8[np.ndarray, "h w 3"]
Result = Picture | Frame | ExplorerError

_log = logging.getLogger(__name__)


class Worker:
    """Draws the newest state at once, and all that belongs to it when no newer one has come for a while.

    Args:
        picture: the fast path, a state to its picture.
        frame: the slow path, a state to everything shown of it.
        deliver: called from the thread with a state and its picture, then its frame; or an error.
        rest: seconds without a request after which the frame is drawn.
        threads: that torch computes with for this thread only; None leaves them as they are.
    """

    def __init__(
        self,
        picture: Callable[[State], Picture],
        frame: Callable[[State], Frame],
        deliver: Callable[[State, Result], None],
        *,
        rest: float = 0.15,
        threads: int | None = None,
    ) -> None:
        self._threads = threads
        self._picture, self._frame, self._deliver, self._rest = picture, frame, deliver, rest
        self._news = threading.Condition()
        self._asked: State | None = None
        self._resting: tuple[State, float] | None = None
        self._jobs: dict[str, Callable[[], None]] = {}
        self._busy = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="clcae-explorer", daemon=True)
        self._thread.start()

    def ask(self, state: State) -> None:
        """Have a state drawn; a request that still waits is dropped."""
        with self._news:
            self._asked, self._resting = state, None
            self._news.notify_all()

    def do(self, name: str, job: Callable[[], None]) -> None:
        """Have something else done between pictures; a job of the same name that still waits is dropped."""
        with self._news:
            self._jobs[name] = job
            self._news.notify_all()

    def wait(self, timeout: float = 60.0) -> bool:
        """Block until everything asked for is delivered, frames too; False if the time was up before."""
        with self._news:
            return self._news.wait_for(lambda: self._stopped or not self._pending(), timeout)

    def stop(self) -> None:
        """End the thread when what it does now is done; what waits is dropped."""
        with self._news:
            self._stopped = True
            self._news.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def _pending(self) -> bool:
        return bool(self._busy or self._asked is not None or self._resting or self._jobs)

    def _run(self) -> None:
        # torch.set_num_threads would also hold for every thread that starts later.
        torch.get_num_threads()  # the first call in a thread sets its number: before the limit
        with threadpool_limits(self._threads, user_api="openmp"):
            self._work()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except Exception:
                _log.exception("The explorer could not show a result")
            with self._news:
                self._busy = False
                self._news.notify_all()

    def _next(self) -> Callable[[], None] | None:
        """The next thing to do: a new state, a job, then the frame of a state that rests; None at the end."""
        with self._news:
            while not self._stopped:
                self._busy = True
                if self._asked is not None:
                    state, self._asked = self._asked, None
                    return lambda: self._draw(state)
                if self._jobs:
                    job = self._jobs.pop(next(iter(self._jobs)))
                    return job
                if self._resting and self._resting[1] <= time.monotonic():
                    (state, _), self._resting = self._resting, None
                    return lambda: self._deliver(state, self._try(self._frame, state))
                self._busy = False
                self._news.wait(self._resting and max(0.0, self._resting[1] - time.monotonic()))
        return None

    def _draw(self, state: State) -> None:
        result = self._try(self._picture, state)
        self._deliver(state, result)
        with self._news:
            if self._asked is None and not isinstance(result, ExplorerError):
                self._resting = (state, time.monotonic() + self._rest)

    def _try(self, draw: Callable[[State], Result], state: State) -> Result:
        """What a drawing function returns, or its error as one that can be shown."""
        try:
            return draw(state)
        except Exception as error:
            return as_sentence(error)


def as_sentence(error: Exception) -> ExplorerError:
    """An error as the visitor may see it; what nobody expected goes to the log, with its details."""
    if isinstance(error, ExplorerError):
        return error
    _log.error("Unexpected in the explorer", exc_info=error)
    kind = type(error).__name__
    return ExplorerError(f"Something unexpected went wrong ({kind}); the last picture stays. Try reset.")
