"""Print GFLOP and images per second of a training step of every task: `make bench-steps`.

GFLOP are counted by torch (convolutions and matrix products, forward and backward, two per multiply-add), so
they are the same on every machine; images per second are measured on this one, after one step of warm-up.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from clcae_lib.training import Task, fit
from clcae_lib.training.adversarial import AdversarialTask, GeneratorConfig, Stage
from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask
from clcae_lib.training.encoders import world_parts
from clcae_lib.training.inversion import InversionConfig, InversionTask
from clcae_lib.training.judges import JudgesConfig, JudgeTask
from clcae_lib.training.peers import PeerConfig, task_of
from clcae_lib.worlds import get_world

STEPS = 4


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations; torch's own counter cannot follow gradients of gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def tasks(world: str) -> Iterator[tuple[str, Task]]:
    """Yield every task of training by name, at its default sizes, with few images."""
    common = {"world": world, "steps": STEPS, "tensorboard": False, "log_every": 100, "checkpoint_every": 100}
    common |= {"validate_every": 100, "sheet_every": 100}
    few = {"images": 64, "validation_images": 8, **common}
    for preset in ("foundation", "published"):
        config = InversionConfig(preset=preset, **few)
        yield f"inversion {preset}", InversionTask(config, world_parts(config))
    for method in ("psp", "e4e", "restyle_psp", "hfgi"):
        config = PeerConfig(method=method, start="fresh", **few)
        yield method, task_of(config, world_parts(config))
    pairs = {"validation_pairs": 20, "final_pairs": 24, "neighbour_codes": 3}
    yield "alignment", AlignmentTask(AlignmentConfig(**pairs, **common), get_world(world).generator())
    stages = (Stage(resolution=64, images=10**6),)
    config = GeneratorConfig(stages=stages, size=64, w_samples=16, **common)
    yield "generator", AdversarialTask(config, get_world(world).images("train", 64))
    for kind in ("oracle", "identity", "perceptual"):
        sizes = {"start": "random", "size": 128, "validation_size": 8}
        yield kind, JudgeTask(JudgesConfig(kind=kind, copy="a", **sizes, **common))


def measure(task: Task) -> dict[str, Any]:
    """Train the first steps of a task and return its operations per step and its speed."""
    step, found = task.step, {}

    def measured(index: int) -> dict:
        if index == 0:  # the penalties and other parts that do not run in every step run in the first
            with FlopCounter() as counter:
                scalars = step(index)
            found["gflop"] = counter.total / 1e9
            return scalars
        started = time.perf_counter()
        scalars = step(index)
        found["seconds"] = min(time.perf_counter() - started, found.get("seconds", float("inf")))
        return scalars

    task.step = measured
    with tempfile.TemporaryDirectory() as folder:
        fit(task, task.config, Path(folder), progress=False)
    found["images"] = getattr(task, "images_per_step", None) or task.config.batch_size
    return found


def main(world: str = "portraits") -> None:
    """Print the table."""
    print(f"{'task':<22}{'images':>8}{'GFLOP per step':>16}{'images per second':>19}")
    for name, task in tasks(world):
        row = measure(task)
        speed = row["images"] / row["seconds"]
        print(f"{name:<22}{row['images']:>8}{row['gflop']:>16.1f}{speed:>19.1f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
