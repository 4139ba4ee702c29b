"""What a person sees while a run goes on: two bars in a terminal, plain lines elsewhere, and a log file."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text


class Display:
    """The progress of a run: steps done, and within the current step its parts.

    Args:
        what: the name of the whole, such as "quick".
        steps: how many steps it has.
        console: where to draw; standard output by default.
    """

    def __init__(self, what: str, steps: int, *, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            expand=True,
        )
        self._all = self._bars.add_task(what, total=steps)
        self._part = self._bars.add_task("", total=1, visible=False)

    def begin(self, step: str) -> None:
        """A step begins."""
        self._bars.reset(self._part, total=1, description=f"  {step}", visible=True)

    def watch(self, done: int, total: int) -> None:
        """Parts of the current step that are done, of all."""
        self._bars.update(self._part, completed=done, total=total)

    def end(self, line: str) -> None:
        """A step has ended; the line says how."""
        self._bars.update(self._part, visible=False)
        self._bars.advance(self._all)
        self.console.print(line, markup=False, soft_wrap=True)

    def __enter__(self) -> "Display":
        """Starts drawing."""
        self._bars.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stops drawing and leaves the terminal as it was."""
        self._bars.stop()


_SHOWN = 14  # rows of the table at once
_ENDED = ("done", "unchanged", "failed")


class Board:
    """The progress of a sweep: in a terminal a live table of its runs, elsewhere a line for each that ends.

    Args:
        what: the name of the sweep.
        runs: the names of its runs.
        console: where to draw; standard output by default.
    """

    def __init__(self, what: str, runs: Sequence[str], *, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._what = what
        self._states = dict.fromkeys(runs, "waiting")
        self._notes: dict[str, str] = {}
        self._since: dict[str, float] = {}
        self._running: Callable[[], set[str]] = set
        self._live = Live(
            console=self.console, get_renderable=self.table, refresh_per_second=1, transient=False
        )

    def watch(self, running: Callable[[], set[str]]) -> None:
        """Has the table ask which runs are at work."""
        self._running = running

    def note(self, run: str, text: str) -> None:
        """Something worth telling about a run that goes on."""
        self._notes[run] = text
        self.console.print(f"{run:<40} {text}", markup=False, soft_wrap=True)

    def end(self, run: str, state: str, reason: str = "") -> None:
        """A run has ended: "done", "unchanged" or "failed"."""
        self._states[run], self._notes[run] = state, reason
        if not self.console.is_terminal:
            line = f"{run:<40} {state}{f'  {reason}' if reason else ''}"
            self.console.print(line, markup=False, soft_wrap=True)

    def table(self) -> Table:
        """The runs at work first, then what ended last, then what waits."""
        working, now = self._running(), time.monotonic()
        states = {
            run: "running" if state == "waiting" and run in working else state
            for run, state in self._states.items()
        }
        for run in working:
            self._since.setdefault(run, now)
        counts = Counter(states.values())
        tally = ", ".join(
            f"{counts[state]} {state}" for state in ("running", "waiting", *_ENDED) if counts[state]
        )
        table = Table(
            "run", "state", "min", "", title=f"{self._what}: {tally}", title_justify="left", box=None
        )
        order = {"running": 0, "failed": 1, "done": 2, "waiting": 3, "unchanged": 4}
        for run in sorted(states, key=lambda run: order[states[run]])[:_SHOWN]:
            minutes = f"{(now - self._since[run]) / 60:.1f}" if states[run] == "running" else ""
            table.add_row(run, states[run], minutes, Text(self._notes.get(run, "")))
        if len(states) > _SHOWN:
            table.add_row(f"and {len(states) - _SHOWN} more")
        return table

    def __enter__(self) -> "Board":
        """Starts drawing, in a terminal."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Draws the last state and stops."""
        if self.console.is_terminal:
            self._live.stop()


@contextmanager
def log_to(path: Path) -> Iterator[logging.Logger]:
    """Everything the suite and papermill log goes to a file, and nowhere else, while the block runs."""
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
        yield loggers[0]
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.level, logger.propagate = level, propagate
        handler.close()
