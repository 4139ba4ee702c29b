"""Compares this project with any file of golden numbers: `python -m tests.conformance.check FILE.npz`.

    python -m tests.conformance.check FILE.npz --domain cars --size 512

The full networks that the file's names ask for are built, filled and run; each array is printed with the
largest difference in units of its root mean square. The status is 0 if all are within the tolerance, 1 if any
is past it or unknown, 2 if the file or an option cannot be used. Arrays that need an official file are left
out, and counted, where `CLCAE_OFFICIAL_DATA` does not name a folder with it.
"""

import argparse
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.conformance import cases, golden
from tests.conformance.bench import HEIGHTS, Bench

SIZES = (256, 512, 1024)  # the encoder reads 256 pixels, and no generator makes fewer


def read(path: Path | str) -> dict[str, NDArray]:
    """The arrays of a fixture.

    Raises:
        ValueError: it is missing, damaged, empty, or holds more than numbers.
    """
    try:
        with open(path, "rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise ValueError("it is not a .npz archive")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as file:
                arrays = dict(file)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no .npz of golden numbers ({error})") from error
    others = [name for name, array in arrays.items() if array.dtype.kind not in "biuf" or not array.size]
    if not arrays or others:
        raise ValueError(f"{path}: {others[0] if others else 'it'} holds no numbers")
    return arrays


def rows(arrays: dict[str, NDArray], *, domain: str, size: int) -> Iterator[cases.Row]:
    """How each array compares, in the file's order."""
    bench = Bench(domain, size, batch=cases.batch_of(arrays))
    for name in arrays:
        yield cases.compare(bench, name, arrays)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison and return the status."""
    options = _options(arguments)
    try:
        arrays = read(options.file)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = []
    for row in rows(arrays, domain=options.domain, size=options.size):
        found.append(row)
        mark = "left out" if row.skipped else "ok" if row.good else "WRONG"
        figure = row.problem if row.distance is None else f"{row.distance:.2e}"
        print(f"{mark:9s}{row.name:45s} {figure}", flush=True)
    wrong, left = sum(not row.good for row in found), sum(row.skipped for row in found)
    worst = max((row.distance for row in found if row.distance is not None), default=0.0)
    print(
        f"{len(found)} arrays, {wrong} wrong, {left} left out; largest difference {worst:.2e} of the rms, "
        f"at most {golden.TOLERANCE:.0e} is allowed"
    )
    return 1 if wrong or left == len(found) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance.check", description=__doc__.split("\n")[0]
    )
    parser.add_argument("file", type=Path, help="a .npz of golden numbers")
    parser.add_argument("--domain", choices=sorted(HEIGHTS), default="faces")
    parser.add_argument("--size", type=int, default=256, help="side of the generator's images")
    options = parser.parse_args(arguments)
    if options.size not in SIZES:
        parser.error(f"--size: {options.size} is not one of {', '.join(map(str, SIZES))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
