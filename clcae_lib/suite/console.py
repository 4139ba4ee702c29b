"""The output during a run: a live table in a terminal, plain lines elsewhere, and a log file."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

_SHOWN = 14  # rows of the table at a time
_ORDER = ("running", "failed", "stopped", "done", "waiting", "unchanged")


class Board:
    """The progress of a run or a sweep: a live table in a terminal, elsewhere a line for each finished part.

    `what` is the name of the run or sweep, `parts` the names of its notebooks or runs, and `running` returns
    those that are running.
    """

    def __init__(self, what: str, parts: Sequence[str], running: Callable[[], Collection[str]]) -> None:
        self._console = Console(highlight=False)
        self._what = what
        self._states = dict.fromkeys(parts, "waiting")
        self._notes: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._running = running
        self._live = Live(console=self._console, get_renderable=self.table, refresh_per_second=1)

    def print(self, line: str) -> None:
        """Print a line unchanged."""
        self._console.print(line, markup=False, soft_wrap=True)

    def progress(self, part: str, done: int, total: int) -> None:
        """Show how many cells of a running part are done; only in a terminal."""
        self._notes[part] = f"{done} of {total} cells"

    def note(self, part: str, text: str) -> None:
        """Show a message about a running part."""
        self._notes[part] = text
        self.print(f"{part:<40} {text}")

    def end(self, part: str, state: str, text: str = "") -> None:
        """Show the final state of a part, such as "done" or "failed", with a time or a reason."""
        self._states[part], self._notes[part] = state, text
        if not self._console.is_terminal:
            self.print(f"{part:<40} {state}{f'  {text}' if text else ''}")

    def table(self) -> Table:
        """Return the table: running parts first, then failed, finished and waiting ones."""
        working, now = self._running(), time.monotonic()
        for part in working:
            self._since.setdefault(part, now)
        states = {
            part: "running" if state == "waiting" and part in working else state
            for part, state in self._states.items()
        }
        counts = Counter(states.values())
        title = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
        table = Table("", "state", "min", "", title=f"{self._what}: {title}", title_justify="left", box=None)
        for part in sorted(states, key=lambda part: _ORDER.index(states[part]))[:_SHOWN]:
            minutes = f"{(now - self._since[part]) / 60:.1f}" if states[part] == "running" else ""
            table.add_row(part, states[part], minutes, Text(self._notes.get(part, "")))
        if len(states) > _SHOWN:
            table.add_row(f"and {len(states) - _SHOWN} more")
        return table

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._live.stop()


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write all log messages of the suite and papermill only to a file while the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    loggers = [logging.getLogger(name) for name in ("clcae_lib.suite", "papermill")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.level, logger.propagate = level, propagate
        handler.close()
