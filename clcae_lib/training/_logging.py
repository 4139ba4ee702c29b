"""The records of a run: metrics.csv, TensorBoard, sample sheets and the versions that made them."""

from __future__ import annotations

import csv
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.devices import device_label
from clcae_lib.files import atomic_path
from clcae_lib.provenance import commit, version

__all__ = ["MetricsFile", "Scalars", "environment", "tile"]

_PACKAGES = ("torch", "lightning-fabric", "numpy", "pydantic", "safetensors", "tensorboard", "torchvision")


class MetricsFile:
    """A CSV with one row a record; a new metric adds a column, a resumed run drops the rows it will redo."""

    def __init__(self, path: Path, *, until: int) -> None:
        """Open `path`, keeping the rows of steps up to `until`."""
        self.path, self.rows = path, []
        if path.is_file() and until > 0:
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= until]
        self.columns = list(self.rows[0]) if self.rows else []
        self._rewrite()

    def add(self, row: dict[str, float]) -> None:
        """Append one row; it must have `step`."""
        written = {name: _number(value) for name, value in row.items()}
        self.rows.append(written)
        if new := [name for name in written if name not in self.columns]:
            self.columns += new
            self._rewrite()
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(written)

    def _rewrite(self) -> None:
        with atomic_path(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            if self.columns:
                writer.writeheader()
            writer.writerows(self.rows)


class Scalars:
    """TensorBoard scalars, or nothing when it is switched off."""

    def __init__(self, folder: Path, *, enabled: bool, from_step: int) -> None:
        """Write into `folder`; events after `from_step` of an interrupted run are purged."""
        self._writer: Any = None
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder), purge_step=from_step + 1 if from_step else None)

    def add(self, values: dict[str, float], step: int) -> None:
        """Write one point for each value."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        if self._writer is not None:
            self._writer.close()


def environment(device: torch.device | str) -> dict[str, Any]:
    """What made a run: packages, Python, platform, commit, device, threads and the command line."""
    return {
        "packages": {name: version(name) or "absent" for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": commit() or "unknown",
        "device": device_label(device),
        "threads": torch.get_num_threads(),
        "command": command(),
    }


def command() -> str:
    """The command line that started this process, without the folders of its program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def tile(images: Float[Tensor, "n 3 h w"], *, columns: int = 8) -> Float[Tensor, "3 H W"]:
    """The images side by side, `columns` in a row, on white."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    sheet = images.new_ones(rows * columns, channels, height, width)
    sheet[:count] = images
    sheet = sheet.reshape(rows, columns, channels, height, width)
    return sheet.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
