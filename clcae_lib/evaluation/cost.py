"""Measure what a method costs: parameters, milliseconds per image, peak memory, training images."""

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

Invert = Callable[[Tensor], object]


def parameter_count(*modules: nn.Module) -> int:
    """Return the number of parameters, trainable or not; shared ones are counted once."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


def time_paired(
    methods: Mapping[str, Invert],
    images: Float[Tensor, "n 3 h w"],
    *,
    runs: int = 5,
) -> dict[str, float]:
    """Return milliseconds per image of each method: the median over runs in which the methods take turns.

    So a slow phase of the machine affects all methods. The first run of each is not counted.

    Args:
        images: one batch, on the device where it is timed.

    Raises:
        ValueError: `runs` or the number of images is 0.
    """
    if runs < 1 or not len(images):
        raise ValueError(f"time_paired: runs={runs} and {len(images)} images: at least one of each is needed")
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(1 + runs):
        for name, invert in methods.items():
            _synchronize(images)
            start = time.perf_counter()
            invert(images)
            _synchronize(images)
            seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(each[1:]) / len(images) for name, each in seconds.items()}


def _synchronize(images: Tensor) -> None:
    """Wait until the device has finished, so that the clock includes its work."""
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def peak_memory(invert: Invert, images: Float[Tensor, "n 3 h w"]) -> float:
    """Return the peak memory of a call in megabytes, beyond the memory in use before it.

    On CUDA this is the memory of torch's allocator, on a CPU the resident memory of the process, which only
    Linux reports in this way; elsewhere the result is nan.
    """
    if images.is_cuda:
        _synchronize(images)
        held = torch.cuda.memory_allocated(images.device)
        torch.cuda.reset_peak_memory_stats(images.device)
        invert(images)
        _synchronize(images)
        return (torch.cuda.max_memory_allocated(images.device) - held) / 1e6
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        # Else the call would reuse memory that was freed before (glibc only).
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
        held = _resident("VmRSS")
    except OSError:
        return float("nan")
    invert(images)
    return max(0.0, _resident("VmHWM") - held)


def _resident(name: str) -> float:
    """Return a memory size of this process, as the Linux kernel reports it, in megabytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) * 1.024 / 1000 for line in lines if line.startswith(f"{name}:"))


def cost_table(
    methods: Mapping[str, Invert],
    images: Float[Tensor, "n 3 h w"],
    *,
    modules: Mapping[str, tuple[nn.Module, ...]],
    images_seen: Mapping[str, int],
    runs: int = 5,
) -> pd.DataFrame:
    """Return one row per method: `parameters`, `ms_per_image`, `peak_mb`, `images_seen`, `batch`, `runs`.

    Args:
        modules: trained networks of each method; empty for optimisation.
        images_seen: number of training images of each method.
    """
    times = time_paired(methods, images, runs=runs)
    rows = [
        {
            "method": name,
            "parameters": parameter_count(*modules.get(name, ())),
            "ms_per_image": times[name],
            "peak_mb": peak_memory(invert, images),
            "images_seen": images_seen.get(name, 0),
        }
        for name, invert in methods.items()
    ]
    return pd.DataFrame(rows).assign(batch=len(images), runs=runs)
