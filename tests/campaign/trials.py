"""Trials that take too long for the tests: hostile weights by every path, and processes killed at random."""

import contextlib
import csv
import multiprocessing
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from clcae_lib.errors import ClcaeError
from clcae_lib.explorer import find_controls
from clcae_lib.files import sha256
from clcae_lib.inversion import make_inverter
from clcae_lib.suite import read_runs
from clcae_lib.weights import checkpoints, convert_file, inspect_file, save_generator
from clcae_lib.worlds import add_world
from tests.field.inputs import REFUSED
from tests.field.test_directions import BAD
from tests.notebooks_in_small import PARAMETERS, record, write_notebook
from tests.unit._explorer import BareWorld
from tests.unit._tiny import save_encoder, tiny_generator
from tests.unit.test_weights_hostile import BOMBS, CONTENTS, PROGRAMS, SAFETENSORS, Reduce, saved

ROOT = Path(__file__).resolve().parents[2]
SECONDS, MEGABYTES = 20, 700
Outcome = tuple[int, list[str]]
"""How many trials there were, and a line for each that fell."""


# ------------------------------------------------------------------------------------ hostile weights


def _generator(path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    tensors = {name: tensor.clone() for name, tensor in tiny_generator().state_dict().items()}
    save_file(tensors | {"conv1.conv.weight": change(tensors["conv1.conv.weight"])}, path)


def _written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def hostile_files(canary: Path) -> dict[str, Callable[[Path], object]]:
    """What writes each hostile file, by a name that begins with the suffix."""
    call, made = f"touch {canary}", {}
    archive = saved({"g_ema": tiny_generator().state_dict(), "x": Reduce(os.system, call)}, archive=True)
    made |= {f"pkl {name}": _written(program(call)) for name, program in PROGRAMS.items()}
    made |= {f"pkl {name}": _written(make()) for name, make in BOMBS.items()}
    made |= {"pt a call beside tensors": _written(archive), "npy a call": _written(b"\x93NUMPY" + archive)}
    made |= {f"pt {name}": _written(content) for name, (content, _) in CONTENTS.items()}
    made |= {f"safetensors {name}": _written(content) for name, content in SAFETENSORS.items()}
    made |= {f"{row.rpartition('.')[2]} {row}": make for row, (make, _) in REFUSED.items()}
    made |= {f"{row.rpartition('.')[2]} {row}": make for row, (make, _) in BAD.items() if "._" not in row}
    for name, change in {
        "NaN": lambda t: t * float("nan"),
        "Inf": lambda t: t + float("inf"),
        "int8": lambda t: t.to(torch.int8),
    }.items():
        made[f"safetensors weights of {name}"] = lambda path, change=change: _generator(path, change)
    for name, value in {"resolution": 1 << 30, "style_dim": 10**9, "widths": [4] * 100_000}.items():
        made[f"safetensors {name}"] = lambda path, name=name, value=value: save_encoder(path, **{name: value})
    short = pickle.dumps([str(i) for i in range(990_000)], protocol=4)
    return made | {"pkl many short texts": _written(short)}


def _paths(folder: Path) -> dict[str, Callable[[Path], object]]:
    """The ways by which a weights file comes in."""
    photographs = folder / "photographs"
    photographs.mkdir()
    Image.new("RGB", (64, 64)).save(photographs / "a.png")
    save_generator(folder / "g.safetensors", tiny_generator(32), {})
    world = add_world("good", images=photographs, generator=folder / "g.safetensors", already_aligned=True)

    def directions(path: Path) -> None:
        target = BareWorld().folder / "directions" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        said: list[str] = []
        find_controls(BareWorld(), samples=100, device="cpu", report=said.append)
        if said:
            raise ClcaeError(said[0])

    return {
        "inspect": inspect_file,
        "convert": lambda path: convert_file(path, folder / "out.safetensors", force=True),
        "world add": lambda path: add_world("bad", images=photographs, generator=path, replace=True),
        "invert": lambda path: make_inverter("clcae", world, device="cpu", weights=path),
        "invert --method": lambda path: make_inverter("psp", world, device="cpu", weights=path),
        "directions": directions,
        "state.pt": checkpoints.load_state,
    }


def _try(read: Callable[[Path], object], path: Path, pipe: Any) -> None:
    """Read a file in a process of its own, and send what fell, "" for nothing."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))  # of the processor: others may be at work
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read(path)
        said = ""
    except (ClcaeError, OSError) as error:
        said = "several lines" if "\n" in str(error) or len(str(error)) > 2000 else ""
    except BaseException as error:
        said = f"{type(error).__name__}: {str(error)[:60]!r}"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
    pipe.send(said or (f"{grown:.0f} MB" if grown > MEGABYTES else ""))


def _tried(read: Callable[[Path], object], path: Path) -> str:
    """Return what fell when a file was read in a process of its own, "" for nothing."""
    context = multiprocessing.get_context("fork")
    mine, other = context.Pipe(duplex=False)
    child = context.Process(target=_try, args=(read, path, other))
    child.start()
    other.close()
    try:
        return mine.recv() if mine.poll(60 * SECONDS) else "it waits for ever"
    except EOFError:
        return f"ended, perhaps after {SECONDS} s of the processor"
    finally:
        child.kill()
        child.join()


def hostile_weights(limit: int | None = None) -> Outcome:
    """Every hostile file by every path: bounded, and nothing in it is run.

    Args:
        limit: the most files; all of them if None.
    """
    fell, count = [], 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        folder, canary = Path(scratch), Path(scratch) / "canary"
        for place in ("data", "cache"):
            patch.setenv(f"CLCAE_{place.upper()}", str(folder / place))
        paths = _paths(folder)
        for name, write in list(hostile_files(canary).items())[:limit]:
            for way, read in paths.items():
                path = folder / f"weights.{name.split()[0]}"
                write(path)
                said = _tried(read, path)
                for left in (path, BareWorld().folder / "directions" / path.name):
                    left.unlink(missing_ok=True)
                said = "CODE WAS RUN" if canary.exists() else said
                canary.unlink(missing_ok=True)
                count += 1
                fell += [f"{name} by {way}: {said}"] if said else []
    return count, fell


# ------------------------------------------------------------------------------- processes that are killed

TRAINING = (
    *("steps=300", "batch_size=8", "embedding=8", "width=8", "latent_width=16", "latent_depth=1"),
    *("validation_pairs=20", "final_pairs=24", "neighbour_codes=3", "checkpoint_every=1", "log_every=5"),
    *("validate_every=40", "sheet_every=999", "tensorboard=false", "precision=32-true", "device=cpu"),
    "threads=1",
)


def clcae(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    """The command line in a process of its own, whose output is dropped."""
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([sys.executable, "-m", "clcae_lib.cli", *arguments], env=settings, **options)


def _rows(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, without what depends on the time."""
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def killed_trainings(limit: int = 8) -> Outcome:
    """Trainings killed at random moments, then resumed: equal to one that was not, and no litter."""
    chance, fell = random.Random(17), []
    with tempfile.TemporaryDirectory() as scratch:

        def train(name: str) -> subprocess.Popen[bytes]:
            sets = [word for setting in TRAINING for word in ("--set", setting)]
            return clcae("train", "alignment", "--out", f"{scratch}/{name}", *sets)

        killed, begun = 0, time.monotonic()
        assert train("whole").wait() == 0
        took = time.monotonic() - begun
        whole = Path(scratch) / "whole"
        for number, kills in enumerate(len(range(k, limit, 2)) for k in range(min(2, limit))):
            folder = Path(scratch) / str(number)
            for _ in range(kills):
                process = train(str(number))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(0.25, 0.5) * took)
                killed += process.poll() is None
                process.kill()
                process.wait()
            if train(str(number)).wait() != 0:
                fell.append(f"run {number} does not resume")
                continue
            weights = [sha256(at / "alignment.safetensors") for at in (whole, folder)]
            fell += [f"run {number}: other weights"] if weights[0] != weights[1] else []
            fell += [f"run {number}: other metrics.csv"] if _rows(whole) != _rows(folder) else []
            fell += [f"run {number} leaves {path.name}" for path in folder.rglob(".partial-*")]
    return killed, fell


VARIANTS = {"plain": 1, "ten": 10, "hundred": 100}
SEEDS = (0, 1)


def _suite(folder: Path) -> None:
    """A notebook of two seconds, and a sweep of three variants."""
    cells = ("import time; time.sleep(2)", record("05_metric_ablations", "factor * (seed + 1)"))
    parameters = PARAMETERS + 'variant = "plain"\nfactor = 1\n'
    notebooks = folder / "notebooks"
    write_notebook(notebooks / "05_metric_ablations.ipynb", *cells, parameters=parameters)
    (notebooks / "suite.yaml").write_text(yaml.safe_dump({"notebooks": [{"name": "05_metric_ablations"}]}))
    (notebooks / "profiles").mkdir()
    (notebooks / "profiles" / "quick.yaml").write_text("about: a trial\n")
    variants = {name: {"factor": factor} for name, factor in VARIANTS.items()}
    content = {"notebook": "05_metric_ablations", "variants": variants}
    (notebooks / "ablations.yaml").write_text(yaml.safe_dump(content))


def _drive(folder: Path) -> subprocess.Popen[bytes]:
    """`clcae sweep` with two workers."""
    place = {"CLCAE_ROOT": str(folder), "CLCAE_RESULTS": str(folder / "results")}
    return clcae("sweep", "ablations", "--workers", "2", "--seeds", *map(str, SEEDS), **place)


def _by_kind(driver: subprocess.Popen[bytes]) -> dict[str, list[psutil.Process]]:
    """The processes of a sweep: the driver and, once they are there, workers and kernels."""
    kinds: dict[str, list[psutil.Process]] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(driver.pid)
        kinds["driver"] = [root]
        for child in root.children(recursive=True):
            kind = "kernel" if "ipykernel" in " ".join(child.cmdline()) else "worker"
            kinds.setdefault(kind, []).append(child)
    return kinds


def _kill_some(driver: subprocess.Popen[bytes], chance: random.Random, most: int) -> list[str]:
    """Kill a process of the sweep at random moments until its driver has ended; return their kinds."""
    killed: list[str] = []
    due = 0.0
    while driver.poll() is None and len(killed) < most:
        kinds = _by_kind(driver)
        if "kernel" not in kinds or time.monotonic() < due:
            time.sleep(0.1)
            due = due or time.monotonic() + chance.uniform(0.5, 5)
            continue
        kind = chance.choice(sorted(kinds))
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(kinds[kind]).kill()
            killed.append(kind)
        due = time.monotonic() + chance.uniform(0.2, 4)
    return killed


def killed_sweeps(limit: int = 12) -> Outcome:
    """Sweeps any of whose processes is killed at random moments: nothing is lost, doubled or half-written."""
    chance, killed, fell = random.Random(15), [], []
    expected = {(name, seed): factor * (seed + 1) for name, factor in VARIANTS.items() for seed in SEEDS}
    with tempfile.TemporaryDirectory() as scratch:
        while len(killed) < limit:
            folder, complete, quiet = Path(scratch) / str(len(killed)), {}, False
            _suite(folder)
            while not quiet:
                quiet = len(killed) == limit or len(complete) == len(expected)
                driver = _drive(folder)
                killed += [] if quiet else _kill_some(driver, chance, limit - len(killed))
                driver.wait()
                again = [path for path, content in complete.items() if path.read_bytes() != content]
                fell += [f"{path.parent} ran again" for path in again]
                found = (folder / "results" / "sweeps" / "ablations").rglob("run.json")
                complete = {path: path.read_bytes() for path in found if path.parts[-4] == "ablations"}
            fell += _problems(folder, expected)
            fell += _left(folder)
    print("killed:", dict(Counter(killed)), file=sys.stderr)
    return len(killed), fell


def _left(folder: Path) -> list[str]:
    """Processes of a sweep that are there a moment after it ended."""
    place = str(folder)
    found = psutil.process_iter(["environ"])
    mine = [process for process in found if (process.info["environ"] or {}).get("CLCAE_ROOT") == place]
    return [f"process {process.pid} is left" for process in psutil.wait_procs(mine, timeout=20)[1]]


def _problems(folder: Path, expected: dict[tuple[str, int], int]) -> Iterator[str]:
    """What is lost, doubled or left in a sweep that should be complete."""
    target = folder / "results" / "sweeps" / "ablations"
    runs = read_runs(target)
    counted = Counter(zip(runs["variant"], runs["seed"], strict=True))
    yield from (f"{run} is lost" for run in expected.keys() - counted.keys())
    yield from (f"{run} is there {number} times" for run, number in counted.items() if number > 1)
    found = runs.set_index(["variant", "seed"])["value"].to_dict()
    yield from (f"{run} has the value {found[run]}" for run in found if found[run] != expected.get(run))
    for pattern in ("*.running", "*.old", "*.state", ".partial*"):
        yield from (f"{path.name} is left" for path in target.rglob(pattern))
