"""One writer at a time, in a folder of results and in a single run's place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from clcae_lib.suite._errors import SuiteError


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Inside, no other run writes to `target`; the lock ends with the process, however that ends.

    Raises:
        SuiteError: another one does already.
    """
    lock = FileLock(_lock_file(target))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise SuiteError(
            f"another run is writing to {target}; wait until it ends, or choose a folder with --output"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def in_turn(target: Path) -> Iterator[None]:
    """Inside, this is the only process that makes the run at `target`; others wait until it has ended."""
    with FileLock(_lock_file(target)):
        yield


def _lock_file(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.lock")
