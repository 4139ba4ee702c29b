"""The cost of a run of the notebooks, printed before it starts: counted operations and measured times.

`suite.yaml` has the work of each notebook: units, such as an image in a training step, and the parameters
whose product is their number. A few of each unit are executed with the world's networks on the device of the
run: torch counts the operations, and a clock measures the time. An estimate is the sum over a notebook's
units.
"""

import itertools
import logging
import math
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from clcae_lib.devices import DeviceError, device_label, make_fabric, resolve_device
from clcae_lib.editing import label_codes, named_directions
from clcae_lib.evaluation import EditBench, Judges, evaluate_inversion, measure_edits
from clcae_lib.explorer import State, Studio
from clcae_lib.inversion import METHODS, ClcaeInverter, OptimisationInverter, Settings
from clcae_lib.suite.plan import Job, Profile
from clcae_lib.suite.record import SuiteError
from clcae_lib.training import Task
from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask
from clcae_lib.training.encoders import world_parts
from clcae_lib.training.inversion import InversionConfig, InversionTask
from clcae_lib.training.peers import PeerConfig, task_of
from clcae_lib.weights import load_alignment
from clcae_lib.worlds import World, get_world

LIMIT = 480.0
"""Seconds that a notebook may take on a GPU."""
HOST = "host_second"
"""Unit of work that takes equally long on every device: start, figures, statistics and report."""
ON_HOST = (HOST, "rendered_image")
RUNS, BRIEF = 8, 2.0
"""Number of timings of a unit, and seconds after which timing stops; the fastest one counts."""


class Cost(NamedTuple):
    """GFLOP (two per multiply-add of convolutions and matrix products) and seconds; nan if not timed."""

    gflop: float
    seconds: float


Executed = tuple[Callable[[], object], int]
"""A function that executes a unit several times, and how many times."""


def count(job: Job) -> dict[str, float]:
    """Return the number of each unit in a job.

    A term is the product of its factors: numbers and names of parameters; a list counts as its length.
    "methods.steps" is the number of optimisation steps that all of `methods` need for one image.

    Raises:
        SuiteError: a factor is not a parameter of the notebook, or not a number or a list.
    """
    sizes = dict(job.parameters)
    if "methods" in sizes:
        listed, own = [METHODS[name] for name in sizes["methods"]], sizes["optimisation_steps"]
        sizes["methods.steps"] = sum(own or method.steps for method in listed if method.steps)
    source = f"{job.path.parent / 'suite.yaml'}: work of {job.name}"

    def size(factor: str | float) -> float:
        if isinstance(factor, str) and factor not in sizes:
            raise SuiteError(f"{source}: the notebook has no parameter {factor!r}; it has {', '.join(sizes)}")
        value = sizes[factor] if isinstance(factor, str) else factor
        if not isinstance(value, int | float | list | tuple):
            raise SuiteError(f"{source}: parameter {factor!r} is {value!r}, not a number or a list")
        return len(value) if isinstance(value, list | tuple) else value

    return {unit: sum(math.prod(map(size, term)) for term in terms) for unit, terms in job.entry.work.items()}


def run_cost(profile: Profile, jobs: Sequence[Job]) -> list[str]:
    """Return lines with the work and time of each job and their sum; nothing is written.

    Another process measures the units, in the first job's world and on its device, so that the device is free
    afterwards. If the device cannot be used here, the lines have the rate that `LIMIT` requires instead of
    times, and end with the reason.

    Raises:
        SuiteError: the work in `suite.yaml` is wrong.
        WorldError: the world lacks weights that a unit needs.
    """
    counts = {job.name: count(job) for job in jobs}
    names = sorted({unit for units_of in counts.values() for unit in units_of} - {HOST})
    world, device = (str(jobs[0].parameters[name]) for name in ("world", "device"))
    context, quiet = multiprocessing.get_context("spawn"), {"initializer": logging.disable}
    with ProcessPoolExecutor(1, mp_context=context, initargs=(logging.INFO,), **quiet) as process:
        costs, place, refusal = process.submit(measure, world, device, names).result()
    limits = [limit for limit in (profile.timeout, None if place.startswith("cpu") else LIMIT) if limit]
    return lines(counts, costs, place=place, refusal=refusal, limit=min(limits, default=math.inf))


def lines(
    counts: Mapping[str, Mapping[str, float]],
    costs: Mapping[str, Cost],
    *,
    place: str,
    refusal: str = "",
    limit: float = LIMIT,
) -> list[str]:
    """Return the lines of `run_cost` from numbers of units, by notebook, and the cost of one unit.

    `refusal` is why the device of the run cannot be used here, empty if it can; a notebook that takes more
    than `limit` seconds is named in a warning.
    """
    rate = f"GFLOP/s for {LIMIT / 60:g} min" if refusal else "GFLOP/s"
    shown, over, total = [f"{'notebook':<28}{'TFLOP':>9}{'minutes':>9}  {rate}"], [], Cost(0.0, 0.0)
    for name, units_of in counts.items():
        gflop, seconds = (sum(n * costs[unit][k] for unit, n in units_of.items()) for k in (0, 1))
        host = sum(n * costs[unit].seconds for unit, n in units_of.items() if unit in ON_HOST)
        busy = LIMIT - host if refusal else seconds - host
        total = Cost(total.gflop + gflop, total.seconds + seconds)
        text = f"{gflop / busy:.0f}" if busy > 0 else "-"
        minutes = "?" if refusal else f"{seconds / 60:.1f}"
        shown.append(f"{name:<28}{gflop / 1000:>9.1f}{minutes:>9}  {text:>7}")
        over += [name] if seconds > limit else []
    minutes = "?" if refusal else f"{total.seconds / 60:.1f}"
    shown += [f"{'total':<28}{total.gflop / 1000:>9.1f}{minutes:>9}"]
    shown += [refusal] if refusal else [f"estimated on {place}; unchanged notebooks are not run again"]
    return shown + ([f"warning: above {limit / 60:g} minutes: {', '.join(over)}"] if over else [])


def measure(
    world: str, device: str, names: Sequence[str], *, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, Cost], str, str]:
    """Return the cost of each unit, the device, and the reason if the requested device cannot be used.

    In that case operations are counted on the CPU, and only `ON_HOST` is timed.
    """
    try:
        place, refusal = resolve_device(device), ""
    except DeviceError as error:
        place, refusal = torch.device("cpu"), str(error)
    costs = {HOST: Cost(0.0, 1.0)}
    for name, run, size in units(get_world(world), place, names) if names else ():
        run()
        with FlopCounterMode(display=False) as counter:
            run()
        times, begun = [math.nan], clock()
        while (not refusal or name in ON_HOST) and len(times) <= RUNS and clock() - begun < BRIEF:
            started = clock()
            run()
            if place.type == "cuda":
                torch.cuda.synchronize(place)
            times.append(clock() - started)
        costs[name] = Cost(counter.get_total_flops() / 1e9 / size, min(times[1:] or times) / size)
    return costs, f"{place}: {device_label(place)}", refusal


def units(
    world: World, device: torch.device, names: Iterable[str]
) -> Iterator[tuple[str, Callable[[], object], int]]:
    """Yield the name of each unit, a function that executes it several times, and how many times.

    Raises:
        SuiteError: a unit does not exist.
    """
    generator, oracle = world.generator(device), world.oracle("train", device)
    inverter, judges = ClcaeInverter.load(world, device=device, generator=generator), Judges.of(world, device)
    image_encoder, latent_encoder, _ = load_alignment(world.weights("alignment"), device=device)
    adam, studio = Settings(steps=2), Studio.open(world, device=device)
    optimiser = OptimisationInverter(generator, world.perceptual("train", device), settings=adam)
    test, w, seeds = world.images("test", 32), generator.sample_w(6400), itertools.count()
    images, factors = test.images(range(32)), test.factors(range(32))
    placed, bench = images.to(device), EditBench(inverter, images, factors, judges)
    edit = dict([next(iter(named_directions(world, device=device).items()))])
    few: dict[str, Any] = {"world": world.name, "device": str(device), "tensorboard": False}
    small = {**few, "images": 64, "validation_images": 8}
    inversion, peer = InversionConfig(**small), PeerConfig(method="psp", **small)
    pairs = AlignmentConfig(**few)

    def steps_of(make: Callable[[], Task]) -> Executed:
        task, steps = make(), itertools.count()
        task.setup(make_fabric(str(device), precision=task.config.precision))
        for optimizer in task.optimizers.values():  # as `fit` does: on a GPU a step is recorded
            task.graphs.prepare(optimizer)
        return lambda: task.step(next(steps)), task.config.batch_size

    def frame(*, lock_identity: bool) -> object:
        state = State(world=world.name, seed=next(seeds), lock_identity=lock_identity)
        return studio.frame(state.with_edit(next(iter(edit)), 1.0))

    known: dict[str, Callable[[], Executed]] = {
        "encoder_step_image": lambda: steps_of(lambda: InversionTask(inversion, world_parts(inversion))),
        "peer_step_image": lambda: steps_of(lambda: task_of(peer)),
        "alignment_step_pair": lambda: steps_of(lambda: AlignmentTask(pairs, generator)),
        "optimisation_step_image": lambda: (partial(optimiser.invert, images), 32 * adam.steps),
        "inverted_image": lambda: (partial(evaluate_inversion, inverter, images, judges=judges), 32),
        "edited_image": lambda: (partial(measure_edits, bench, edit), 32),
        "labelled_code": lambda: (partial(label_codes, generator, oracle, 64, seed=0), 64),
        "embedded_image": lambda: (torch.no_grad()(partial(image_encoder, placed)), 32),
        "embedded_code": lambda: (torch.no_grad()(partial(latent_encoder, w)), len(w)),
        "explored_frame": lambda: (partial(frame, lock_identity=False), 1),
        "locked_frame": lambda: (partial(frame, lock_identity=True), 1),
        "rendered_image": lambda: (partial(world.render, factors), 32),
    }
    for name in names:
        if name not in known:
            raise SuiteError(
                f"suite.yaml: work: {name!r} is not a unit; there are {', '.join([*known, HOST])}"
            )
        yield name, *known[name]()
