"""An IPython extension for `suite.execute` that records the exceptions of a kernel that no cell raises.

These are exceptions in threads, in asyncio tasks, and in futures of executors whose result no cell reads. The
exception of a future is recorded at the end, unless `result` or `exception` was called. Every kernel of a
run imports this module, so it imports nothing slow; `suite` would import pandas.
"""

import atexit
import gc
import logging
import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

FILE = "CLCAE_FAULTS"
"""The environment variable with the name of the file; it is created with the first exception."""


def load_ipython_extension(shell: Any) -> None:
    """Watch the kernel of `shell` from now on."""
    for name in ("asyncio", "concurrent.futures", "tornado.application"):
        logging.getLogger(name).addHandler(_OfTasks(logging.ERROR))
    show, store = threading.excepthook, Future.set_exception
    unseen: dict[Future[Any], BaseException] = {}

    def in_thread(args: Any) -> None:
        _note("thread", args.exc_value)
        show(args)

    def set_exception(future: Future[Any], exception: BaseException) -> None:
        unseen[future] = exception
        store(future, exception)

    def seeing(read: Callable[..., Any]) -> Callable[..., Any]:
        def both(future: Future[Any], *arguments: Any, **options: Any) -> Any:
            try:
                return read(future, *arguments, **options)
            finally:
                unseen.pop(future, None)

        return both

    def finish() -> None:
        shell.reset(new_session=False)  # asyncio reports a task's exception when the task is collected
        gc.collect()
        for error in unseen.values():
            _note("future", error)

    threading.excepthook, Future.set_exception = in_thread, set_exception
    Future.result, Future.exception = seeing(Future.result), seeing(Future.exception)
    atexit.register(finish)


class _OfTasks(logging.Handler):
    """Records what event loops and executors log: exceptions in callbacks and in tasks not awaited."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            _note("task", record.exc_info[1])


def _note(place: str, error: BaseException | None) -> None:
    if error is not None:
        text = (
            f"in a {place}: {type(error).__name__}: {error}\n{''.join(traceback.format_exception(error))}\n"
        )
        with open(os.environ[FILE], "a", encoding="utf-8", errors="replace") as file:
            file.write(text)
