"""What a method costs: parameters, milliseconds per image, peak memory, training images seen."""

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
    """Trainable or not, each parameter once, however many modules share it."""
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


def time_paired(
    methods: Mapping[str, Invert],
    images: Float[Tensor, "n 3 h w"],
    *,
    runs: int = 5,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Milliseconds per image of each method: the median over runs in which the methods take turns.

    Whatever slows the machine for a while then slows all of them. Work on a GPU is waited for.

    Args:
        methods: each inverts a batch.
        images: one batch, on the device where it is to be timed.
        runs: turns of each method.
        warm_up: turns before, not counted.
        clock: gives seconds.

    Raises:
        ValueError: there is no run or no image.
    """
    if runs < 1 or not len(images):
        raise ValueError(f"time_paired: runs={runs} and {len(images)} images: one at least of each")
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(warm_up + runs):
        for name, invert in methods.items():
            _wait(images)
            start = clock()
            invert(images)
            _wait(images)
            if turn >= warm_up:
                seconds[name].append(clock() - start)
    return {name: 1000 * statistics.median(each) / len(images) for name, each in seconds.items()}


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def peak_memory(invert: Invert, images: Float[Tensor, "n 3 h w"]) -> float:
    """Megabytes that a call needs at most beyond what was held before it.

    On CUDA they are those of torch's allocator. On a CPU they are the process's resident memory, which Linux
    alone lets be measured like this; elsewhere the answer is nan.
    """
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
        held = torch.cuda.memory_allocated(images.device)
        torch.cuda.reset_peak_memory_stats(images.device)
        invert(images)
        torch.cuda.synchronize(images.device)
        return (torch.cuda.max_memory_allocated(images.device) - held) / 1e6
    _hand_back()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
        held = _resident("VmRSS")
    except OSError:
        return float("nan")
    invert(images)
    return max(0.0, (_resident("VmHWM") - held) / 1000)


def _hand_back() -> None:
    """Gives freed memory back to the system, or a call would reuse it and seem to need none (glibc only)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident(name: str) -> float:
    """A size from the kernel's account of this process, in kilobytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1.024 * float(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")


def cost_table(
    methods: Mapping[str, Invert],
    images: Float[Tensor, "n 3 h w"],
    *,
    modules: Mapping[str, tuple[nn.Module, ...]],
    images_seen: Mapping[str, int],
    runs: int = 5,
) -> pd.DataFrame:
    """One row for each method: `parameters`, `ms_per_image`, `peak_mb`, `images_seen`, and `batch`, `runs`.

    Args:
        methods: each inverts a batch.
        images: one batch.
        modules: what each method was trained as, and is counted; nothing for optimisation.
        images_seen: in training.
        runs: turns that the median is over.
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
