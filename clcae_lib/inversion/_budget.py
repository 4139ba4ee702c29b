"""How much of an optimisation is done, counted in steps or by the clock, whichever is further."""

import time
from collections.abc import Callable, Iterator

Clock = Callable[[], float]


class Budget:
    """Steps for each picture, and seconds for all pictures of a call together.

    The progress that it yields drives the schedules, so they reach their end in either case: where the time
    is short, every phase is as much shorter.

    Args:
        steps: at most, for each batch.
        max_seconds: for all batches; None for no limit.
        images: how many there are in all.
        clock: gives seconds.

    Raises:
        ValueError: `steps` is negative, or the time is not positive.
    """

    def __init__(
        self, steps: int, max_seconds: float | None, images: int, *, clock: Clock = time.monotonic
    ) -> None:
        if steps < 0:
            raise ValueError(f"steps={steps}: give a number of optimisation steps, 0 or more")
        if max_seconds is not None and not max_seconds > 0:
            raise ValueError(f"max_seconds={max_seconds}: give a positive number of seconds, or None")
        self.steps, self.images, self.clock = steps, images, clock
        self.end = None if max_seconds is None else clock() + max_seconds

    def progress(self, batch: int) -> Iterator[float]:
        """How far one batch's optimisation is before each of its steps, from 0 to below 1.

        The time that is left is divided evenly over the images that are left. At least one step is given,
        unless none was asked for.

        Args:
            batch: how many images it has; they count as done afterwards.
        """
        start = self.clock()
        allowed = None
        if self.end is not None:
            allowed = max(0.0, self.end - start) * batch / max(1, self.images)
        self.images -= batch
        for step in range(self.steps):
            gone = 0.0 if allowed is None or not step else (self.clock() - start) / max(allowed, 1e-9)
            if gone >= 1:
                return
            yield max(step / self.steps, gone)
