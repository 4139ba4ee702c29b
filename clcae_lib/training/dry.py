"""A rehearsal of a training at full size: two steps, which show that all fits, and nothing is left behind."""

from __future__ import annotations

import resource
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from clcae_lib.training.config import TrainConfig

STEPS = 2
#: What a rehearsal makes short: nothing that a step's memory or time depends on.
_SHORT = {
    "validation_images": 8,
    "validation_pairs": 11,
    "final_pairs": 11,
    "neighbour_codes": 2,
    "bank": 64,
    "w_samples": 64,
    "measure_every": None,
}


@dataclass(frozen=True)
class Rehearsal:
    """What two steps have shown.

    Attributes:
        steps: of the whole training.
        seconds_per_step: of the second step, the first being slower.
        peak_gb: memory of the device, or of the process on a CPU.
        device: where it ran.
    """

    steps: int
    seconds_per_step: float
    peak_gb: float
    device: str

    def lines(self) -> list[str]:
        """The report, a line a fact."""
        hours = self.steps * self.seconds_per_step / 3600
        return [
            f"two steps on {self.device}: everything is there and fits together",
            f"memory: {self.peak_gb:.1f} GB at the peak",
            f"time: {self.seconds_per_step:.2f} s a step, {hours:.1f} hours for {self.steps} steps",
        ]


def rehearse(module: Any, config: TrainConfig) -> Rehearsal:
    """Train two steps of a link in a temporary folder, at the configuration's full size.

    Args:
        module: of the link, such as `clcae_lib.training.inversion`.
        config: as for the whole training.

    Raises:
        WorldError, ConfigError: what the training would raise.
    """
    from clcae_lib.devices import device_label, resolve_device

    device = resolve_device(config.device)
    short = {name: value for name, value in _SHORT.items() if name in type(config).model_fields}
    short |= {"steps": STEPS, "log_every": 1, "validate_every": STEPS, "sheet_every": 10**9}
    short |= {"tensorboard": False, "checkpoint_every": 10**9}
    if "images" in type(config).model_fields:
        short["images"] = config.batch_size
    if "size" in type(config).model_fields:
        short["size"] = getattr(config.resolved()[-1], "batch_size", config.batch_size)
    if device.type == "cuda":
        torch.cuda.init()  # without it, a device with an index is not known yet
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory(prefix="clcae-dry-") as folder:
        module.train(config.model_copy(update=short), Path(folder), resume=False)
        rows = pd.read_csv(Path(folder) / "metrics.csv")
    gaps = rows.groupby("step")["seconds"].max().diff().dropna()
    return Rehearsal(_steps(config), float(gaps.iloc[-1]), _peak(device), device_label(device))


def _steps(config: Any) -> int:
    """How many steps the whole training takes."""
    if hasattr(config, "resolved"):
        return min(config.steps, sum(-(-stage.images // stage.batch_size) for stage in config.resolved()))
    return config.steps


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
