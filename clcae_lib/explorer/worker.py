"""The thread that computes for the explorer, so that a drag and the kernel's other cells need not wait.

A new job replaces a waiting job of the same name, so outdated states are not drawn (no section of the paper).
"""

import logging
import threading
import time
from collections.abc import Callable

import torch
from threadpoolctl import threadpool_limits

_log = logging.getLogger(__name__)


class Worker:
    """Runs jobs one after another.

    The job named `urgent` runs before all others. `threads` limits torch's threads for these jobs only.
    """

    def __init__(self, *, urgent: str, threads: int | None = None) -> None:
        self._urgent, self._threads = urgent, threads
        self._news = threading.Condition()
        self._jobs: dict[str, tuple[float, Callable[[], None]]] = {}
        self._busy = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="clcae-explorer", daemon=True)
        self._thread.start()

    def do(self, name: str, job: Callable[[], None], *, after: float = 0.0) -> None:
        """Queue a job, to start after some seconds; a waiting job of the same name is dropped."""
        with self._news:
            self._jobs[name] = (time.monotonic() + after, job)
            self._news.notify_all()

    def drop(self, name: str) -> None:
        """Drop the job of this name if it is still waiting."""
        with self._news:
            self._jobs.pop(name, None)

    def wait(self, timeout: float = 60.0) -> bool:
        """Block until all jobs are done; return False after `timeout` seconds."""
        with self._news:
            return self._news.wait_for(lambda: self._stopped or not (self._busy or self._jobs), timeout)

    def stop(self) -> None:
        """End the thread after the current job; waiting jobs are dropped."""
        with self._news:
            self._stopped = True
            self._news.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        # torch.set_num_threads would also apply to every thread that starts later.
        torch.get_num_threads()  # the first call in a thread sets its number, so it must precede the limit
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
        with self._news:
            while not self._stopped:
                now = time.monotonic()
                due = [name for name, (begin, _) in self._jobs.items() if begin <= now]
                if due:
                    self._busy = True
                    return self._jobs.pop(self._urgent if self._urgent in due else due[0])[1]
                begins = [begin for begin, _ in self._jobs.values()]
                self._news.wait(min(begins) - now if begins else None)
        return None
