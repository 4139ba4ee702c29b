"""Run everything that takes a device on the simulated one: `python -m tests.device.rules [PART]`.

Every training (two steps with validation, sample sheet and final weights, then a third one resumed),
inverter, finder of directions, measure and the explorer. Prints one line per check and the host's waits per
training step; exit status 1 if a check fails. PART runs only the checks whose names contain it.
"""

import contextlib
import io
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from tests.device import simulated

simulated.install()

from clcae_lib.training import fit  # noqa: E402
from clcae_lib.worlds.portraits import dataset  # noqa: E402
from tests.device.drivers import Uses, trainings  # noqa: E402

PART = sys.argv[1] if len(sys.argv) > 1 else ""
FAILED: list[str] = []


def check(name: str, action: Callable[[], object]) -> None:
    """Run one check and print its outcome, with the lines of the library that lead to an error."""
    if PART not in name:
        return
    started = time.process_time()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            action()
    except Exception as error:
        FAILED.append(name)
        print(f"BROKEN {name}: {type(error).__name__}: {error}"[:400])
        for frame in traceback.extract_tb(error.__traceback__):
            if "clcae_lib" in frame.filename:
                print(f"    {frame.filename.rpartition('clcae_lib/')[2]}:{frame.lineno}  {frame.line}")
    else:
        print(f"ok     {name} ({time.process_time() - started:.1f} s)", flush=True)


def check_training(name: str, make: Callable[[int], object]) -> None:
    """Train two steps, resume for a third, and count the host's waits in that third step."""
    waits: Counter = Counter()

    def train() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for steps in (2, 3):
                task = make(steps)
                plain = task.step

                def step(index: int, plain=plain):
                    simulated.HOST_WAITS.clear()
                    values = plain(index)
                    waits.clear()
                    waits.update(simulated.HOST_WAITS)
                    return values

                task.step = step
                fit(task, task.config, Path(folder), fabric=simulated.SimulatedFabric(), progress=False)

    check(name, train)
    if PART in name:
        places = ", ".join(f"{place} {kind} x{count}" for (kind, place), count in sorted(waits.items()))
        print(f"waits  {name}: {sum(waits.values())} ({places})", flush=True)


def check_rules() -> None:
    """Check that the simulation notices what a GPU would: each of these must raise an error."""
    x = torch.ones(3, device="sim")
    faults = {
        "two devices": lambda: x + torch.ones(3),
        "numpy": lambda: x.numpy(),
        "index": lambda: torch.ones(3)[x.long()],
        "stack": lambda: torch.stack([x[0], torch.ones(())]),
        "generator": lambda: torch.randn(3, device="sim", generator=torch.Generator()),
    }
    for name, fault in faults.items():
        try:
            fault()
        except (RuntimeError, TypeError):
            continue
        raise AssertionError(f"the simulated device allowed: {name}")


def check_a_planted_fault() -> None:
    """Check that a training notices a fault of the library: labels that stay on the CPU."""
    from clcae_lib import losses

    plain = torch.arange

    def on_the_cpu(*arguments, device=None, **options):
        return plain(*arguments, **options)

    losses.torch.arange = on_the_cpu
    try:
        task = trainings()["inversion foundation"](1)
        with tempfile.TemporaryDirectory() as folder:
            fit(task, task.config, Path(folder), fabric=simulated.SimulatedFabric(), progress=False)
    except RuntimeError:
        return
    finally:
        losses.torch.arange = plain
    raise AssertionError("a tensor on the wrong device was not noticed")


if __name__ == "__main__":
    dataset._BLOCK_AT_64 = 32  # render no more than is asked for
    check("rules", check_rules)
    check("planted fault", check_a_planted_fault)
    for name, make in trainings().items():
        check_training(f"training {name}", make)
    for name, action in Uses(torch.device("sim", 0)).checks().items():
        check(name, action)
    sys.exit(1 if FAILED else 0)
