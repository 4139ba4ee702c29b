"""Measure trainings and inversions on a device: `make bench-cuda`; `--device cpu` rehearses it in small.

One row per case, precision and mode (eager, torch.compile, CUDA graphs): images per second, memory, and the
share of this device's own ceilings, which are measured first: an 8192 cubed matrix product in each precision,
and a copy within its memory. A time is the median over blocks of calls, after warm-up; each block ends when
the device has finished. The table is written again after every row, so whatever ends the run loses one row.

An operation's bytes are what it reads and writes by itself, so a share of the copy ceiling says how near a
network is to that limit without fusing; torch.compile can exceed it.
"""

import os

os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # float32 means float32, as under `make` and `clcae`

import argparse
import csv
import gc
import itertools
import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import torch
from torch import nn

from clcae_lib import files
from clcae_lib.devices import device_label, make_fabric, resolve_device
from clcae_lib.inversion import ClcaeInverter
from clcae_lib.inversion.optimisation import OptimisationInverter, Settings
from clcae_lib.inversion.psp import PspEncoder
from clcae_lib.models import Generator
from clcae_lib.models.foundation import FoundationEncoder
from clcae_lib.models.published import PublishedEncoder
from clcae_lib.worlds import get_world
from clcae_lib.worlds.perceptual import empty_lpips
from tests.benchmarks.steps import Counter, tasks
from tests.device.drivers import steps_of

Call = Callable[[], object]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
RECORDED = ("train inversion foundation", "train inversion published", "train alignment", "train generator")
"""Tasks whose steps can be recorded as CUDA graphs; elsewhere than on CUDA they run as they are."""
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


class OutOfTimeError(BaseException):
    """The budget is spent; not an `Exception`, so that no handler in torch takes it for a failure."""


@dataclass(frozen=True)
class Sizes:
    """What is measured: in full on a GPU, small in a rehearsal on a CPU."""

    matrix: int = 8192
    copied: int = 1 << 30
    batches: tuple[tuple[int, int], ...] = ((64, 64), (256, 16), (1024, 8))
    """Images per call, by resolution."""
    width: int | None = None
    """Channels of the published architecture; None for its own."""
    batch_size: int | None = None
    """Images per training step; None for the task's own."""
    optimised: int = 10
    """Optimisation steps in one call."""
    warmup: int = 3
    seconds: float = 1.5
    """Time for one row's measurement."""


TINY = Sizes(
    128, 1 << 16, ((64, 2), (256, 1), (1024, 1)), width=8, batch_size=4, optimised=2, warmup=1, seconds=0.1
)


@dataclass
class Row:
    """One line of the table; speeds are in images per second (of optimisation: steps of an image)."""

    task: str
    resolution: int
    precision: str
    mode: str
    images: int = 0
    images_per_second: float = math.nan
    ms_per_call: float = math.nan
    spread: float = math.nan
    peak_gb: float = math.nan
    tflop_per_second: float = math.nan
    matmul_share: float = math.nan
    copy_share: float = math.nan
    outcome: str = "ok"


@dataclass(frozen=True)
class Case:
    """What one row measures.

    Attributes:
        make: returns the call to time and its number of images, given precision and mode.
    """

    task: str
    resolution: int
    make: Callable[[str, str], tuple[Call, int]]


class Bench:
    """Measures cases on a device, within a time limit, and writes the table."""

    def __init__(self, device: torch.device, sizes: Sizes, out: Path) -> None:
        self.device, self.sizes, self.out = device, sizes, out
        self.rows: list[Row] = []
        self.counts: dict[tuple[str, int, str], tuple[int, int]] = {}
        self.ceilings: dict[str, float] = {}

    def measure_ceilings(self) -> None:
        """Measure TFLOP/s of a matrix product in each precision, and TB/s of a copy (read and written)."""
        side = self.sizes.matrix
        for precision, dtype in DTYPES.items():
            left, right = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
            seconds = statistics.median(self._blocks(lambda a=left, b=right: a @ b))
            self.ceilings[precision] = 2 * side**3 / seconds / 1e12
        source = torch.empty(self.sizes.copied, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        seconds = statistics.median(self._blocks(lambda: target.copy_(source)))
        self.ceilings["copy"] = 2 * self.sizes.copied / seconds / 1e12

    def run(self, case: Case, precision: str, mode: str) -> None:
        """Measure one row; what fails is a row that says why."""
        row = Row(case.task, case.resolution, precision, mode)
        try:
            self._measure(row, case, precision)
        except OutOfTimeError:
            row.outcome = "not finished: the budget is spent"
            raise
        except Exception as error:
            row.outcome = f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
        finally:
            self.rows.append(row)
            self.write()
            print(" ".join(_texts(row)), flush=True)
            if mode == "compiled":
                torch._dynamo.reset()
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _measure(self, row: Row, case: Case, precision: str) -> None:
        key = (case.task, case.resolution, precision)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        call, row.images = case.make(precision, row.mode)
        if row.mode == "eager":
            call()
            with Counter() as counter:
                call()
            self.counts[key] = counter.flop, counter.bytes
        times = self._blocks(call)
        seconds = statistics.median(times)
        row.ms_per_call, row.images_per_second = 1000 * seconds, row.images / seconds
        row.spread = (max(times) - min(times)) / seconds
        if self.device.type == "cuda":
            row.peak_gb = torch.cuda.max_memory_allocated(self.device) / 1e9
        if key in self.counts:
            flop, size = self.counts[key]
            row.tflop_per_second = flop / seconds / 1e12
            row.matmul_share = row.tflop_per_second / self.ceilings[precision]
            row.copy_share = size / seconds / 1e12 / self.ceilings["copy"]

    def _blocks(self, call: Call) -> list[float]:
        """Return seconds per call, for each block of calls that take about a tenth of a row's time."""
        for _ in range(self.sizes.warmup):
            call()
        self._wait()
        started = time.perf_counter()
        call()
        self._wait()
        each = max(1, int(self.sizes.seconds / 10 / (time.perf_counter() - started)))
        times, end = [], time.perf_counter() + self.sizes.seconds
        while len(times) < 3 or (time.perf_counter() < end and len(times) < 20):
            started = time.perf_counter()
            for _ in range(each):
                call()
            self._wait()
            times.append((time.perf_counter() - started) / each)
        return times

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def write(self) -> None:
        """Write the table as CSV and as markdown."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        names = [field.name for field in fields(Row)]
        with (
            files.atomic_path(self.out.with_suffix(".csv")) as path,
            Path(path).open("w", newline="") as file,
        ):
            table = csv.DictWriter(file, names)
            table.writeheader()
            table.writerows(asdict(row) for row in self.rows)
        ceilings = self.ceilings
        lines = [f"{device_label(self.device)}, torch {torch.__version__}. Ceilings: matrix product of"]
        lines[0] += f" {self.sizes.matrix} cubed {ceilings['bf16']:.3g} TFLOP/s in bf16 and"
        lines[0] += f" {ceilings['fp32']:.3g} in fp32; copy {ceilings['copy']:.3g} TB/s."
        lines += ["", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        lines += [f"| {' | '.join(_texts(row))} |" for row in self.rows]
        self.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


def _texts(row: Row) -> list[str]:
    """Return a row's values with three digits, nothing where there is none."""
    values = [getattr(row, field.name) for field in fields(row)]
    return [("" if math.isnan(v) else f"{v:.3g}") if isinstance(v, float) else str(v) for v in values]


def training_cases(device: torch.device, sizes: Sizes) -> list[Case]:
    """Return a step of every task at its default sizes, on the portraits of 64 pixels."""
    changes = {"device": str(device)}
    changes |= {"batch_size": sizes.batch_size} if sizes.batch_size else {}

    def make(name: str, precision: str, mode: str) -> tuple[Call, int]:
        task = tasks("portraits", cuda_graphs=mode == "graphs", **changes)[name]()
        steps = steps_of(task, make_fabric(str(device), precision=PRECISIONS[precision]))
        next(steps)
        if mode == "compiled":  # what is trained; a frozen generator's synthesis stays as it is
            for network in task.modules.values():
                network.compile()
        return lambda: next(steps), task.images_per_step

    return [Case(f"train {name}", 64, partial(make, name)) for name in tasks("portraits", **changes)]


def portrait_cases(device: torch.device, sizes: Sizes) -> list[Case]:
    """Return inversions of portraits with the shipped weights; pSp's are random."""
    world, count = get_world("portraits"), dict(sizes.batches)[64]
    images = world.images("test", count).images(range(count)).to(device)

    def clcae(preset: str, precision: str, mode: str) -> tuple[Call, int]:
        encoder = ClcaeInverter.load(world, preset, device, generator=world.generator(device)).encoder
        return _forward(encoder, images, precision, mode)

    def psp(precision: str, mode: str) -> tuple[Call, int]:
        generator = world.generator(device)
        encoder = PspEncoder(64, style_dim=generator.style_dim).to(device)
        return _forward(encoder, images, precision, mode)

    def wplus(precision: str, mode: str) -> tuple[Call, int]:
        perceptual = world.perceptual("train", device)
        steps = sizes.optimised
        return _optimisation(world.generator(device), perceptual, images, precision, mode, steps=steps)

    cases = [Case(f"invert clcae {p}", 64, partial(clcae, p)) for p in ("foundation", "published")]
    return [*cases, Case("invert psp", 64, psp), Case("optimise W+", 64, wplus)]


def published_cases(device: torch.device, sizes: Sizes, side: int) -> list[Case]:
    """Return the published architectures at a resolution, with random weights."""
    count, dim = dict(sizes.batches)[side], sizes.width or 512
    widths = [sizes.width] * 5 if sizes.width else None

    def generator() -> Generator:
        channels = {4 << i: sizes.width for i in range(side.bit_length() - 2)} if sizes.width else None
        network = Generator(side, dim, channels=channels).eval().requires_grad_(False).to(device)
        network.measure_w(100)
        return network

    def images() -> torch.Tensor:
        return torch.rand(count, 3, side, side, device=device) * 2 - 1

    def forward(precision: str, mode: str) -> tuple[Call, int]:
        network = generator()
        synthesis = torch.compile(network.synthesis) if mode == "compiled" else network.synthesis
        w = network.sample_w(count)
        return _without_gradient(lambda: synthesis(w), device, precision), count

    def wplus(precision: str, mode: str) -> tuple[Call, int]:
        perceptual = empty_lpips().to(device).eval().requires_grad_(False)

        def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return perceptual(x, y).flatten()

        steps = sizes.optimised
        return _optimisation(generator(), distance, images(), precision, mode, steps=steps)

    def encode(kind: Callable[..., nn.Module], precision: str, mode: str) -> tuple[Call, int]:
        return _forward(kind().to(device), images(), precision, mode)

    own = {"widths": widths} if widths else {}
    trained = {"style_dim": dim, "body": "irse50", **own}
    encoders = {
        "published": partial(PublishedEncoder, side, style_dim=dim, feature_channels=dim, **own),
        "psp": partial(PspEncoder, side, **trained),
        "foundation": partial(FoundationEncoder, side, feature_channels=dim, **trained),
    }
    cases = [Case("generator forward", side, forward), Case("optimise W+", side, wplus)]
    return cases + [Case(f"encoder {name}", side, partial(encode, kind)) for name, kind in encoders.items()]


def _forward(network: nn.Module, images: torch.Tensor, precision: str, mode: str) -> tuple[Call, int]:
    network.eval().requires_grad_(False)
    if mode == "compiled":
        network.compile()
    return _without_gradient(lambda: network(images), images.device, precision), len(images)


def _without_gradient(call: Call, device: torch.device, precision: str) -> Call:
    @torch.no_grad()
    def run() -> None:
        with _autocast(device, precision):
            call()

    return run


def _optimisation(
    generator: Generator,
    perceptual: Callable,
    images: torch.Tensor,
    precision: str,
    mode: str,
    *,
    steps: int,
) -> tuple[Call, int]:
    """Return a call of some steps of Adam in W+, and the number of images times steps."""
    if mode == "compiled":
        generator.synthesis = torch.compile(generator.synthesis)
    inverter = OptimisationInverter(generator, perceptual, settings=Settings(steps=steps))

    def run() -> None:
        with _autocast(images.device, precision):
            inverter.invert(images, batch_size=len(images))

    return run, steps * len(images)


def _autocast(device: torch.device, precision: str):
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def plan(device: torch.device, sizes: Sizes) -> Iterator[tuple[Case, str, str]]:
    """Yield case, precision and mode, the most important rows first."""
    trainings, portraits = training_cases(device, sizes), portrait_cases(device, sizes)
    large, middle = published_cases(device, sizes, 1024), published_cases(device, sizes, 256)
    both, first = tuple(PRECISIONS), [*large[:2], trainings[0], portraits[0]]
    recorded = [case for case in trainings if case.task in RECORDED]
    every = large + portraits + trainings + middle
    parts = [
        (trainings, ("bf16",), "eager"),
        (large + portraits, both, "eager"),
        (recorded, ("bf16",), "graphs"),
        (first, ("bf16",), "compiled"),
        (middle, both, "eager"),
        (trainings, ("fp32",), "eager"),
        (recorded, ("fp32",), "graphs"),
        ([case for case in every if case not in first], ("bf16",), "compiled"),
        (every, ("fp32",), "compiled"),
    ]
    for cases, precisions, mode in parts:
        yield from ((*row, mode) for row in itertools.product(cases, precisions))


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTimeError` in the body after so many seconds, or at SIGTERM."""

    def stop(number, frame):
        raise OutOfTimeError

    old = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGTERM)}
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in old.items():
            signal.signal(number, handler)


def main() -> None:
    """Measure what fits the budget and say where the table is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--budget", type=float, default=240.0, help="seconds; the table has what was done by then"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:1; cpu rehearses it in small")
    parser.add_argument("--out", type=Path, default=Path("build/bench-cuda"), help="file without its suffix")
    parser.add_argument("--only", default="", help="measure the rows whose task contains this text")
    options = parser.parse_args()
    device = resolve_device(options.device)
    sizes = Sizes() if device.type == "cuda" else TINY
    bench, started = Bench(device, sizes, options.out), time.perf_counter()
    try:
        with time_limit(options.budget):
            bench.measure_ceilings()
            for case, precision, mode in plan(device, sizes):
                if options.only in case.task:
                    bench.run(case, precision, mode)
    except OutOfTimeError:
        print(f"The budget of {options.budget:g} s is spent; the table has the rows before.")
    seconds = time.perf_counter() - started
    print(f"{len(bench.rows)} rows in {seconds:.0f} s: {options.out}.csv and {options.out}.md")


if __name__ == "__main__":
    main()
