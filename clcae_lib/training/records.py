"""The records of a run: metrics.csv, versions, and sample sheets."""

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
from clcae_lib.files import atomic_path, sha256
from clcae_lib.provenance import commit, version
from clcae_lib.settings import ConfigError

_PACKAGES = ("torch", "lightning-fabric", "numpy", "pydantic", "safetensors", "tensorboard", "torchvision")


class MetricsFile:
    """A CSV with one row per record; a new metric adds a column, a resume removes rows after its state.

    Args:
        until: last step whose row is kept; 0 for a new file.

    Raises:
        ConfigError: the file is not such a CSV.
    """

    def __init__(self, path: Path, *, until: int) -> None:
        self.path, self.rows = path, []
        if path.is_file() and until > 0:
            try:
                self.rows = [row for row in _read(path) if int(row["step"]) <= until]
            except (KeyError, TypeError, ValueError, csv.Error) as error:
                raise ConfigError(f"{path} is damaged; remove it, or give another folder") from error
        self.columns = list(self.rows[0]) if self.rows else []
        self._rewrite()

    def add(self, row: dict[str, float]) -> None:
        """Append one row; it must have `step`."""
        written = {name: str(v) if isinstance(v, int) else f"{v:.6g}" for name, v in row.items()}
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


def _read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV; raise ValueError if the fields of one do not match the columns."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a row does not fit the columns")
    return rows


def environment(device: torch.device | str) -> dict[str, Any]:
    """Return the environment of a run: packages, Python, platform, commit, device, threads, command line."""
    return {
        "packages": {name: version(name) or "absent" for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": commit() or "unknown",
        "device": device_label(device),
        "threads": torch.get_num_threads(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def digests(*weights: Path) -> dict[str, str]:
    """Return the digest of each weights file by its file name, for a card's `trained_on`."""
    return {path.name: sha256(path) for path in weights}


def tile(images: Float[Tensor, "n c h w"], *, columns: int = 8) -> Float[Tensor, "c H W"]:
    """Return the images side by side, `columns` in a row, on white."""
    rows = -(-len(images) // columns)
    sheet = images.new_ones(rows * columns, *images.shape[1:])
    sheet[: len(images)] = images
    return sheet.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)
