"""What a person sees while a run goes on: two bars in a terminal, plain lines elsewhere, and a log file."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


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
