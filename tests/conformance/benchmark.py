"""Time and memory of one inversion at full size: `python -m tests.conformance.benchmark`.

The network is the published one, 1024 pixels, filled weights. Beside it runs the plain form
(`tests.conformance.plain`): three images decoded from the start, one modulated kernel a sample.
Times are taken in one process, in turns, so that ratios hold on a busy machine; memory is the peak of a
process that does nothing else. It takes some minutes and 6 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.conformance import fill, golden, plain
from tests.conformance.bench import Bench
from tests.conformance.official import PublishedInversion

FORMS = ("plain", "all", "f", "load")
GOALS = {"all": 0.5, "f": 0.25}
GOAL_OF_MEMORY = 0.5


def forms(network: PublishedInversion) -> dict[str, Callable[[], object]]:
    """What is measured: the plain form, our three images, the only the F image."""
    x = fill.image("x", 256, 256, 1)
    return {
        "plain": lambda: plain.invert(network, x)[1],
        "all": lambda: _invert(network, x, ("f", "w_plus", "w")),
        "f": lambda: _invert(network, x, ("f",)),
    }


def _invert(network: PublishedInversion, images: Tensor, spaces: Sequence[str]) -> dict[str, Tensor]:
    codes = network.encoder(images)
    return {space: network.decode(codes, space, side=None) for space in spaces}


@torch.inference_mode()
def times(size: int, rounds: int) -> dict[str, float]:
    """Seconds of each form, the fastest of some rounds; the images must agree."""
    network = Bench("faces", size).inversion
    run, found = forms(network), {"plain": [], "all": [], "f": [], "encoder": []}
    expected, made = run["plain"](), run["all"]()
    for space, image in expected.items():
        golden.assert_golden(made[space], image.numpy())
    run["encoder"] = lambda: network.encoder(fill.image("x", 256, 256, 1))
    for _ in range(rounds):
        for form, rows in found.items():
            start = time.perf_counter()
            run[form]()
            rows.append(time.perf_counter() - start)
    return {form: min(rows) for form, rows in found.items()}


@torch.inference_mode()
def peak(form: str, size: int) -> float:
    """Gigabytes that this process has held at most, once the form has run (`load`: only loaded)."""
    network = Bench("faces", size).inversion
    if form != "load":
        forms(network)[form]()
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the status is 0 if every goal is reached."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.benchmark", description=__doc__)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peak", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.peak:
        print(json.dumps(peak(options.peak, options.size)))
        return 0
    command = [sys.executable, "-m", "tests.conformance.benchmark", "--size", str(options.size)]
    command += ["--threads", str(options.threads), "--peak"]
    gigabytes = {f: json.loads(subprocess.check_output([*command, f], text=True)) for f in FORMS}
    # After the others: on Linux a process starts with the peak of the one that starts it.
    return report(times(options.size, options.rounds), gigabytes)


def report(seconds: dict[str, float], gigabytes: dict[str, float]) -> int:
    """Print both, with their ratios to the plain form; 0 if every goal is reached."""
    names = {"plain": "plain form, three images", "all": "three images", "f": "only the F image"}
    print(f"{'':28s}{'seconds':>9s}{'ratio':>7s}{'goal':>6s}{'GB':>7s}{'ratio':>7s}{'goal':>6s}")
    missed = 0
    for form, name in names.items():
        ratio, share = seconds[form] / seconds["plain"], gigabytes[form] / gigabytes["plain"]
        goal, room = GOALS.get(form, 1.0), GOAL_OF_MEMORY if form in GOALS else 1.0
        missed += (ratio > goal) + (share > room)
        figures = f"{seconds[form]:9.2f}{ratio:7.2f}{goal:6.2f}{gigabytes[form]:7.2f}{share:7.2f}{room:6.2f}"
        print(f"{name:28s}{figures}")
    print(f"the encoder {seconds['encoder']:.2f} s; network and weights {gigabytes['load']:.2f} GB")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
