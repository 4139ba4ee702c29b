"""Print GFLOP and images per second of a training step of every task: `make bench-steps`.

GFLOP are counted by torch (convolutions and matrix products, forward and backward, two per multiply-add), so
they are the same on every machine; images per second are measured on this one, after one step of warm-up.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from clcae_lib.training import Task, fit
from clcae_lib.training.adversarial import AdversarialTask, GeneratorConfig, Stage
from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask
from clcae_lib.training.body import BodyConfig, BodyTask
from clcae_lib.training.encoders import world_parts
from clcae_lib.training.feature_editor import FeatureEditorConfig, FeatureEditorTask
from clcae_lib.training.inversion import InversionConfig, InversionTask
from clcae_lib.training.judges import JudgesConfig, JudgeTask
from clcae_lib.training.peers import PeerConfig, task_of
from clcae_lib.worlds import get_world

STEPS = 4


class Counter(TorchDispatchMode):
    """Counts operations; torch's own counter cannot follow gradients of gradients.

    Attributes:
        flop: floating-point operations of convolutions and matrix products.
        bytes: size of what all operations read and write, each by itself; views count nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop, self.bytes = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.flop += count(*args, **(kwargs or {}), out_val=out)
        aliases = [value.alias_info for value in func._schema.returns]
        if not any(alias is not None and not alias.is_write for alias in aliases):
            values = tree_flatten((args, kwargs, out))[0]
            self.bytes += sum(v.numel() * v.element_size() for v in values if isinstance(v, Tensor))
        return out


def tasks(world: str, **changes: Any) -> dict[str, Callable[[], Task]]:
    """Return what makes every task of training, by name, at its default sizes, with few images.

    Args:
        world: name of the world.
        changes: settings of all tasks, such as `device` and `batch_size`.
    """
    common = {"world": world, "steps": STEPS, "tensorboard": False, "log_every": 100, "checkpoint_every": 100}
    common |= {"validate_every": 100, "sheet_every": 100, **changes}
    few = {"images": 64, "validation_images": 8, **common}
    return {
        **{f"inversion {p}": partial(_inversion, preset=p, **few) for p in ("foundation", "published")},
        **{m: partial(_peer, method=m, start="fresh", **few) for m in ("psp", "e4e", "restyle_psp", "hfgi")},
        "alignment": partial(_alignment, **common),
        "generator": partial(_generator, **common),
        **{kind: partial(_judge, kind=kind, **common) for kind in ("oracle", "identity", "perceptual")},
        "body": lambda: BodyTask(BodyConfig(**few), get_world(world)),
        "feature editor": lambda: FeatureEditorTask(FeatureEditorConfig(**common), get_world(world)),
    }


def _inversion(**values: Any) -> Task:
    config = InversionConfig(**values)
    return InversionTask(config, world_parts(config))


def _peer(**values: Any) -> Task:
    config = PeerConfig(**values)
    return task_of(config, world_parts(config))


def _alignment(**values: Any) -> Task:
    pairs = {"validation_pairs": 20, "final_pairs": 24, "neighbour_codes": 3}
    config = AlignmentConfig(**pairs, **values)
    return AlignmentTask(config, get_world(config.world).generator())


def _generator(**values: Any) -> Task:
    config = GeneratorConfig(stages=(Stage(resolution=64, images=10**6),), size=64, w_samples=16, **values)
    return AdversarialTask(config, get_world(config.world).images("train", 64))


def _judge(**values: Any) -> Task:
    return JudgeTask(JudgesConfig(copy="a", start="random", size=128, validation_size=8, **values))


def measure(task: Task) -> dict[str, Any]:
    """Train the first steps of a task and return its operations per step and its speed."""
    step, found = task.step, {}

    def measured(index: int) -> dict:
        if index == 0:  # the penalties and other parts that do not run in every step run in the first
            with Counter() as counter:
                scalars = step(index)
            found["gflop"] = counter.flop / 1e9
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
    for name, make in tasks(world).items():
        row = measure(make())
        speed = row["images"] / row["seconds"]
        print(f"{name:<22}{row['images']:>8}{row['gflop']:>16.1f}{speed:>19.1f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
