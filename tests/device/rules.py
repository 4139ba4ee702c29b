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

from clcae_lib.editing import apply, find_directions, interpolate, mix, traverse  # noqa: E402
from clcae_lib.evaluation import Bench, GeneratorMeasure, Judges, cost_table  # noqa: E402
from clcae_lib.explorer import State, Studio  # noqa: E402
from clcae_lib.inversion import METHODS, ClcaeInverter, make_inverter  # noqa: E402
from clcae_lib.inversion.nearest import NearestCodeInverter  # noqa: E402
from clcae_lib.training import fit  # noqa: E402
from clcae_lib.training.adversarial import AdversarialTask, GeneratorConfig, Stage  # noqa: E402
from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask  # noqa: E402
from clcae_lib.training.inversion import InversionConfig, InversionTask  # noqa: E402
from clcae_lib.training.judges import JudgesConfig, JudgeTask  # noqa: E402
from clcae_lib.training.peers import PeerConfig, task_of  # noqa: E402
from clcae_lib.worlds import get_world  # noqa: E402
from tests.unit._tiny import WIDTHS, Pictures, parts_of, tiny_generator  # noqa: E402

OWN = {"device": "cpu", "tensorboard": False, "log_every": 10, "checkpoint_every": 2}
OWN |= {"validate_every": 2, "sheet_every": 2}
ENCODER = {**OWN, "batch_size": 4, "validation_images": 8}
VARIANTS = {
    "foundation": {},
    "single": {"wplus_attention": "single", "feature_attention": "single", "alignment": "batch"},
    "none": {"wplus_attention": "none", "feature_attention": "off", "alignment_input": "w_reconstruction"},
    "unaligned": {"alignment": "off", "init_from_alignment": False, "lpips_scales": 3, "ramp": "epoch"},
    "ranger": {"weight_w": 1.0, "optimizer": "ranger", "schedule": "plateau", "flip": 0.5, "clip": None},
}
PUBLISHED = {"preset": "published", "widths": (4, 4, 6, 8, 8), "style_hidden": 4, "hidden": 8}
PART = sys.argv[1] if len(sys.argv) > 1 else ""
FAILED: list[str] = []


def check(name: str, action: Callable[[], object]) -> None:
    """Run one check and print its outcome, with the lines of the library that lead to an error."""
    if PART not in name:
        return
    started = time.monotonic()
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
        print(f"ok     {name} ({time.monotonic() - started:.1f} s)", flush=True)


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


def check_trainings() -> None:
    """Check every task of training."""
    for name, changes in VARIANTS.items():
        settings = {**ENCODER, "bank": 16, "warmup": 1, "ramp_epoch": 2, "widths": WIDTHS, **changes}
        check_training(
            f"training inversion {name}",
            lambda n, s=settings: InversionTask(InversionConfig(steps=n, **s), parts_of()),
        )
    settings = {**ENCODER, "bank": 16, "warmup": 1, "ramp_epoch": 2, **PUBLISHED}
    check_training(
        "training inversion published",
        lambda n: InversionTask(InversionConfig(steps=n, **settings), parts_of(64)),
    )
    for method in ("psp", "e4e", "restyle_psp", "restyle_e4e", "hfgi"):
        peer = {**ENCODER, "method": method, "widths": WIDTHS, "start": "fresh"}
        check_training(f"training {method}", lambda n, s=peer: task_of(PeerConfig(steps=n, **s), parts_of()))
    sizes = {"embedding": 8, "widths": WIDTHS, "width": 8, "latent_width": 16, "latent_depth": 1}
    sizes |= {"batch_size": 8, "validation_pairs": 20, "final_pairs": 24, "neighbour_codes": 3, **OWN}
    for name, changes in {"fresh pairs": {}, "fixed pairs": {"pairs": 24, "loss": "sigmoid"}}.items():
        check_training(
            f"training alignment {name}",
            lambda n, c=changes: AlignmentTask(AlignmentConfig(steps=n, **sizes, **c), tiny_generator()),
        )
    shape = {"resolution": 16, "style_dim": 8, "mapping_layers": 1, "channels": {4: 8, 8: 8, 16: 6}}
    shape |= {"batch_size": 4, "penalty_every": 2, "w_samples": 16, "size": None, **OWN}
    stages = (Stage(resolution=8, images=8), Stage(resolution=16, images=80))
    for loss in ("relativistic", "logistic"):
        check_training(
            f"training generator {loss}",
            lambda n, kind=loss: AdversarialTask(
                GeneratorConfig(steps=n, stages=stages, loss=kind, **shape),
                Pictures(tiny_generator(16), 8, seed=3),
            ),
        )
    for kind in ("oracle", "identity", "perceptual"):
        small = {
            "kind": kind,
            "copy": "a",
            "start": "random",
            "size": 8,
            "validation_size": 8,
            "batch_size": 8,
        }
        check_training(f"training {kind}", lambda n, s=small: JudgeTask(JudgesConfig(steps=n, **s, **OWN)))


def check_uses() -> None:
    """Check what is done with trained networks: directions, inverters, edits, measures, the explorer."""
    world, device = get_world("portraits"), torch.device("sim", 0)
    generator, judges = world.generator(device), Judges.of(world, device)
    images = world.images("test", 4).images(range(4))
    found = {}
    options = {"samples": 60, "components": 2, "effect_codes": 2, "calibrated_on": 4, "channels": 8}
    for method in ("interfacegan", "ganspace", "sefa", "stylespace", "alignment"):
        check(
            f"directions {method}",
            lambda m=method: found.update(
                {m: find_directions(world, ["yaw", "age"], m, device=device, **options)}
            ),
        )

    def invert_and_edit(inverter) -> None:
        codes = inverter.invert(images)
        space = codes.spaces[-1]
        strengths = torch.tensor([1.0, -1.0, 0.5, 0.0])
        for method in ("interfacegan", "stylespace"):
            apply(inverter.generator, codes, found[method]["yaw"], strengths).decode(generator, space)
        mix(generator, codes, codes, [0, 1])
        interpolate(codes, codes, 0.5)
        traverse(generator, codes[:1], found["interfacegan"]["yaw"], (-1, 1), space=space)

    for name, method in METHODS.items():
        if method.kind != "encoder" and name != "nearest_code":
            extra = {"over": "mean_face"} if name == "pti" else {}
            check(
                f"inverter {name}",
                lambda n=name, more=extra: invert_and_edit(
                    make_inverter(n, world, device=device, generator=generator, steps=1, **more)
                ),
            )
    check(
        "inverter nearest_code",
        lambda: invert_and_edit(NearestCodeInverter.load(world, generator, bank=1000)),
    )
    for preset in ("foundation", "published"):
        check(
            f"inverter clcae {preset}",
            lambda p=preset: invert_and_edit(ClcaeInverter.load(world, p, device, generator=generator)),
        )
    inverter = ClcaeInverter.load(world, "foundation", device, generator=generator)
    bench = {"images": 4, "edits": 2, "strengths": (1.0,), "accessories": 2, "codes": 4}
    check(
        "bench",
        lambda: Bench.of(judges, found["interfacegan"], **bench).measure(inverter, method="clcae", space="f"),
    )
    methods = {"clcae": inverter.invert}
    check("cost", lambda: cost_table(methods, images.to(device), modules={}, images_seen={}, runs=1))
    check("measures of a generator", lambda: GeneratorMeasure(world, samples=10, device=device)())

    def explore() -> None:
        studio = Studio.open(world, device=device)
        state = State(source="gallery", index=3).with_edit("yaw", 1.5)
        studio.image(state)
        studio.frame(state)
        studio.inversion(state)

    check("explorer", explore)


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
        settings = {**ENCODER, "bank": 16, "warmup": 1, "widths": WIDTHS}
        task = InversionTask(InversionConfig(steps=1, **settings), parts_of())
        with tempfile.TemporaryDirectory() as folder:
            fit(task, task.config, Path(folder), fabric=simulated.SimulatedFabric(), progress=False)
    except RuntimeError:
        return
    finally:
        losses.torch.arange = plain
    raise AssertionError("a tensor on the wrong device was not noticed")


if __name__ == "__main__":
    check("rules", check_rules)
    check("planted fault", check_a_planted_fault)
    check_trainings()
    check_uses()
    sys.exit(1 if FAILED else 0)
