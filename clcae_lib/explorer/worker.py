"""One thread that draws for the explorer, so that neither a drag nor the kernel's other cells ever wait.

Of the jobs that wait, each name has one: a newer job replaces it, so nothing is drawn that is not wanted any
more (no section of the paper).
"""

import logging
import threading
import time
from collections.abc import Callable

import torch
from threadpoolctl import threadpool_limits

from clcae_lib.errors import ClcaeError
from clcae_lib.explorer.state import ExplorerError, State
from clcae_lib.explorer.studio import Frame, Pixels

Result = Pixels | Frame | ClcaeError

_log = logging.getLogger(__name__)


class Worker:
    """Draws the newest state first, and all that belongs to it when no newer one has come for a while.

    Args:
        image: the fast path, a state to its image.
        frame: the slow path, a state to everything shown of it.
        deliver: called from the thread with a state and its image, then its frame; or an error.
        rest: seconds without a request after which the frame is drawn.
        threads: number of threads that torch uses in this thread only; None leaves it as it is.
    """

    def __init__(
        self,
        image: Callable[[State], Pixels],
        frame: Callable[[State], Frame],
        deliver: Callable[[State, Result], None],
        *,
        rest: float = 0.15,
        threads: int | None = None,
    ) -> None:
        self._image, self._frame, self._deliver, self._rest = image, frame, deliver, rest
        self._threads = threads
        self._news = threading.Condition()
        self._jobs: dict[str, tuple[float, Callable[[], None]]] = {}
        self._busy = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="clcae-explorer", daemon=True)
        self._thread.start()

    def ask(self, state: State) -> None:
        """Have a state drawn; a request that still waits is dropped."""
        with self._news:
            self._jobs.pop("frame", None)
            self.do("image", lambda: self._draw(state))

    def do(self, name: str, job: Callable[[], None], *, after: float = 0.0) -> None:
        """Have something done between images; a job of the same name that still waits is dropped.

        Args:
            name: name of the job.
            job: what is done.
            after: seconds before which it does not begin.
        """
        with self._news:
            self._jobs[name] = (time.monotonic() + after, job)
            self._news.notify_all()

    def wait(self, timeout: float = 60.0) -> bool:
        """Block until everything asked for is delivered, frames too; False if the time was up before."""
        with self._news:
            return self._news.wait_for(lambda: self._stopped or not (self._busy or self._jobs), timeout)

    def stop(self) -> None:
        """End the thread when what it does now is done; what waits is dropped."""
        with self._news:
            self._stopped = True
            self._news.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        # torch.set_num_threads would also hold for every thread that starts later.
        torch.get_num_threads()  # the first call in a thread sets its number: before the limit
        with threadpool_limits(self._threads, user_api="openmp"):
            while (job := self._next()) is not None:
                try:
                    job()
                except Exception:
                    _log.exception("The explorer could not show a result")
                with self._news:
                    self._busy = False
                    self._news.notify_all()

    def _next(self) -> Callable[[], None] | None:
        """The next job: an image, else the one that waits longest; None at the end."""
        with self._news:
            while not self._stopped:
                now = time.monotonic()
                due = [name for name, (begin, _) in self._jobs.items() if begin <= now]
                if due:
                    self._busy = True
                    return self._jobs.pop("image" if "image" in due else due[0])[1]
                begins = [begin for begin, _ in self._jobs.values()]
                self._news.wait(min(begins) - now if begins else None)
        return None

    def _draw(self, state: State) -> None:
        result = _attempt(self._image, state)
        self._deliver(state, result)
        with self._news:
            if "image" not in self._jobs and not isinstance(result, ClcaeError):
                self.do("frame", lambda: self._deliver(state, _attempt(self._frame, state)), after=self._rest)


def _attempt(draw: Callable[[State], Result], state: State) -> Result:
    """What a drawing function returns, or its error as one that can be shown."""
    try:
        return draw(state)
    except Exception as error:
        return as_sentence(error)


def as_sentence(error: Exception) -> ClcaeError:
    """Return an error as the visitor may see it; a fault of the program is logged with its traceback."""
    if isinstance(error, ClcaeError):
        return error
    _log.error("A fault in the explorer", exc_info=error)
    kind = type(error).__name__
    return ExplorerError(f"Something unexpected went wrong ({kind}); the last image stays. Try reset.")
