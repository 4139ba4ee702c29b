"""Measure photographs, sweeps and inversions in quantity on a CPU: `make bench-scale`, one table.

Speeds of one run, on a machine that does nothing else. Each part makes what it needs in a temporary folder:
photographs (drawn portraits, saved with another brightness each), and the published architecture at 1024
pixels with random weights. `--small` rehearses it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import psutil
import torch
from PIL import Image, ImageEnhance

from clcae_lib import paths
from clcae_lib.training import fit
from clcae_lib.training.data import Ahead, InMemory, Shuffled
from clcae_lib.training.encoders import world_parts
from clcae_lib.training.inversion import InversionConfig, InversionTask
from clcae_lib.weights import export_generator
from clcae_lib.worlds import add_world, get_world
from clcae_lib.worlds.portraits.photographs import write_photographs
from tests.conformance.official import build_inversion

Rows = Iterator[tuple[str, str]]


def main() -> None:
    """Run the parts that are named, or all of them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="all of them if none is named")
    parser.add_argument("--small", action="store_true", help="a few photographs and steps")
    options = parser.parse_args()
    print("| measured | result |", "|---|---|", sep="\n")
    for name in options.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder, places_below(Path(folder)):
            for what, result in PARTS[name](Path(folder), options.small):
                print(f"| {what} | {result} |", flush=True)


@contextmanager
def places_below(folder: Path) -> Iterator[None]:
    """Put data, cache and results below a folder, with the shipped weights in the data."""
    shipped = paths.data_dir() / "portraits"
    (folder / "data").mkdir()
    (folder / "data" / "portraits").symlink_to(shipped)
    places = {f"CLCAE_{name.upper()}": str(folder / name) for name in ("data", "cache", "results")}
    with patch.dict(os.environ, places):
        yield


def photographs(folder: Path, small: bool) -> Rows:
    """Read photographs of about a megapixel: the first time, again, and while an encoder is trained."""
    count, batch = (48, 8) if small else (2000, 8)
    album = many_photographs(folder / "album", count)
    generator = paths.data_dir() / "portraits" / "generator.safetensors"
    add_world("album", images=album, generator=generator, widen=1.1)
    took, source = timed(lambda: get_world("album").images("train"))
    yield (
        f"{count:,} photographs, 1280 by 1024, read, cut and kept",
        f"{count / took:.0f} images/s",
    )

    def read(source: InMemory | Ahead) -> None:
        order = Shuffled(len(source), seed=1)
        for start in range(0, len(source), batch):
            following = order.take(start + batch, batch)
            if isinstance(source, Ahead):
                source.read(order.take(start, batch), following)

    took, _ = timed(lambda: read(Ahead(source)))
    yield "an epoch after the first, only reading", f"{len(source) / took:.0f} images/s"
    portraits = get_world("portraits").images("train", len(source))
    portraits.prepare()
    for what, images in (("photographs", source), ("images in memory", portraits)):
        speed, growth = trained(images, folder / what.replace(" ", "_"), batch)
        yield f"an epoch with the encoder's training step, {what}", f"{speed:.1f} images/s"
        yield f"memory at the end of it, over that after the first tenth, {what}", f"{growth:+.0f} MB"


def trained(source: object, folder: Path, batch: int) -> tuple[float, float]:
    """Train an encoder for an epoch of a data set; return images per second, and MB that memory grew by."""
    steps = len(source) // batch
    settings = {"steps": steps, "batch_size": batch, "validation_images": 8, "tensorboard": False}
    settings |= dict.fromkeys(("log_every", "validate_every", "sheet_every", "checkpoint_every"), steps)
    config = InversionConfig(world="portraits", **settings)
    task = InversionTask(config, replace(world_parts(config), images=source))
    step, marks = task.step, []

    def measured(index: int) -> dict:
        if index in (steps // 10, steps - 1):
            marks.append((time.perf_counter(), psutil.Process().memory_info().rss))
        return step(index)

    task.step = measured
    fit(task, config, folder, progress=False)
    (begun, first), (ended, last) = marks
    return (steps - 1 - steps // 10) * batch / (ended - begun), (last - first) / 1e6


def sweeps(folder: Path, small: bool) -> Rows:
    """Run the same sweep with one worker and with two, each with one thread."""
    options = ["--profile", "smoke", "--set", f"steps={30 if small else 120}"]
    options += ["--variants", "foundation", "no_alignment", "--seeds", "0", "1"]
    took = {}
    for workers in (1, 2):
        place = ["--workers", str(workers), "--output", str(folder / f"with_{workers}")]
        took[workers], _ = timed(lambda place=place: clcae("sweep", "ablations", *options, *place))
        yield f"four runs of notebook 05, {workers} at a time", f"{took[workers]:.0f} s"
    yield "speed of two workers over one", f"{took[1] / took[2]:.2f} times"


def inversions(folder: Path, small: bool) -> Rows:
    """Invert photographs with the published architecture at 1024 pixels, stop half way, and go on."""
    count = 4 if small else 100
    album = many_photographs(folder / "album", count)
    torch.manual_seed(0)
    network = build_inversion(1024).eval()
    network.decoder.measure_w(100)
    add_world("large", images=album, generator=export_generator(folder / "generator.pt", network.decoder))
    torch.save(network.state_dict(), folder / "encoder.pt")
    del network
    given = ["invert", "--world", "large", "--weights", str(folder / "encoder.pt"), "--input", str(album)]
    target = folder / "inverted"

    def done() -> list[Path]:
        return sorted(target.glob("*.safetensors"))

    command = [sys.executable, "-m", "clcae_lib.cli", *given, "--output", str(target)]
    process, memory, moments = psutil.Popen(command, stdout=subprocess.DEVNULL), [], []
    while process.poll() is None and len(done()) < count // 2:
        time.sleep(0.5)
        if len(done()) > len(moments):
            moments.append(time.perf_counter())
            memory.append(process.memory_info().rss / 1e6)
    process.kill()
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in done()}
    speed = 60 * (len(moments) - 1) / (moments[-1] - moments[0])
    yield "`clcae invert`, published architecture, 1024 pixels", f"{speed:.1f} images/minute"
    growth = memory[-1] - memory[len(memory) // 4]
    yield (
        f"memory after {len(memory)} images, and growth since a quarter",
        f"{memory[-1]:.0f}, {growth:+.0f} MB",
    )
    took, _ = timed(lambda: clcae(*given, "--output", str(target)))
    same = sum(path.stat().st_mtime_ns == moment for path, moment in kept.items())
    rest = count - len(kept)
    yield (
        f"killed after {len(kept)} and begun again",
        f"{same} kept as they were, {rest} more in {took:.0f} s",
    )


def many_photographs(folder: Path, count: int) -> Path:
    """Write photographs of 1280 by 1024 pixels with landmarks, no two of them alike."""
    base = write_photographs(folder / "base", min(count, 20), size=(1280, 1024))
    for number in range(count):
        source, target = base[number % len(base)], folder / f"photograph_{number:05}.jpg"
        with Image.open(source) as image:
            ImageEnhance.Brightness(image).enhance(1 - number / (3 * count)).save(target, quality=92)
        beside = source.with_suffix(".landmarks.json").read_bytes()
        target.with_suffix(".landmarks.json").write_bytes(beside)
    return folder


def clcae(*arguments: str) -> None:
    """Run a command of this project."""
    command = [sys.executable, "-m", "clcae_lib.cli", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def timed(call: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds of a call, and its result."""
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


PARTS = {"photographs": photographs, "sweeps": sweeps, "inversions": inversions}

if __name__ == "__main__":
    main()
