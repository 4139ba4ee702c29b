"""A dry run: two steps of a training at full size, to check that everything fits; nothing is kept."""

import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from clcae_lib.training.config import TrainConfig

STEPS = 2
_SHORT: dict[str, Any] = {
    "validation_images": 8,
    "validation_pairs": 11,
    "samples": 64,
    "final_pairs": 11,
    "neighbour_codes": 2,
    "bank": 64,
    "w_samples": 64,
    "measure_every": None,
}
"""Settings that are reduced; memory and time of a step do not depend on them."""


def rehearse(module: Any, config: TrainConfig) -> list[str]:
    """Train two steps of a link in a temporary folder, and return a report of memory and time.

    Args:
        module: module of the link, such as `clcae_lib.training.inversion`.
    """
    from clcae_lib.devices import device_label, resolve_device

    device, fields = resolve_device(config.device), type(config).model_fields
    short = {name: value for name, value in _SHORT.items() if name in fields}
    short |= {"steps": STEPS, "log_every": 1, "validate_every": STEPS, "sheet_every": 10**9}
    short |= {"tensorboard": False, "checkpoint_every": 10**9}
    short |= {name: config.batch_sizes()[-1] for name in ("images", "size") if name in fields}
    if device.type == "cuda":
        torch.cuda.init()  # else torch does not know a device with an index yet
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory(prefix="clcae-dry-") as folder:
        module.train(config.model_copy(update=short), Path(folder), resume=False)
        rows = pd.read_csv(Path(folder) / "metrics.csv")
    seconds = float(rows.groupby("step")["seconds"].max().diff().iloc[-1])  # the first step is slower
    steps = _steps(config)
    return [
        f"two steps on {device_label(device)}: nothing is missing, and all parts fit",
        f"memory: {_peak(device):.1f} GB at the peak",
        f"time: {seconds:.2f} s a step, {steps * seconds / 3600:.1f} hours for {steps} steps",
    ]


def _steps(config: Any) -> int:
    """Return the number of steps of the whole training."""
    if hasattr(config, "resolved"):
        return min(config.steps, sum(-(-stage.images // stage.batch_size) for stage in config.resolved()))
    return config.steps


def _peak(device: torch.device) -> float:
    """Return the peak memory of the device, or of the process on a CPU, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
