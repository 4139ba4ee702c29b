"""Where a computation runs: one device by name, or a Lightning Fabric for training.

Nothing here changes a setting of the process. Whether GPUs may multiply in TF32 (10 bits of mantissa in place
of 23) is decided by the environment's NVIDIA_TF32_OVERRIDE, which the `clcae` command and the Makefile set to
0 unless it is set already.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from clcae_lib.errors import ClcaeError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Capability = tuple[int, int]
"""A CUDA card's compute capability, such as (8, 0)."""

BFLOAT16: Capability = (8, 0)
"""The first cards with bfloat16 in hardware; older ones emulate it, many times slower."""


class DeviceError(ClcaeError, ValueError):
    """A device does not exist here, or this build of torch cannot use it; the message names it."""


def resolve_device(name: torch.device | str = "auto") -> torch.device:
    """Return the device called `name`; "auto" means the first usable CUDA card, else the CPU.

    Apple's MPS is used only if it is named: it has no float64, which directions and measures need.

    Raises:
        DeviceError: `name` is not a device, or not one that this machine and this build of torch can use.
    """
    if isinstance(name, torch.device):
        return name
    if name == "auto":
        cards = range(len(_capabilities()))
        for index in cards:
            if not _problem(index):
                return torch.device(f"cuda:{index}" if index else "cuda")
        if cards:
            print_once(f"device=auto: {_problem(0)}; using the CPU")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(
            f"device={name!r} is not a valid device; use auto, cpu, cuda, cuda:1, mps, ..."
        ) from error
    problem = _problem(device.index or 0) if device.type == "cuda" else ""
    if device.type == "mps" and not torch.backends.mps.is_available():
        problem = "this torch finds no MPS device"
    if problem:
        raise DeviceError(f"device={name!r}: {problem}; use device=auto or device=cpu")
    return device


def _problem(index: int) -> str:
    """Return why the CUDA card of this index cannot be used; an empty text if it can."""
    cards, architectures = _capabilities(), torch.cuda.get_arch_list()
    if not cards:
        return f"torch {torch.__version__} finds no CUDA device"
    if index >= len(cards):
        return f"torch finds {len(cards)} CUDA device(s), from cuda:0 on"
    if has_kernels(cards[index], architectures):
        return ""
    return (
        f"torch {torch.__version__} has no code for a GPU of compute capability {_dotted(cards[index])} "
        f"(it has {', '.join(architectures)})"
    )


def _capabilities() -> list[Capability]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_capability(index) for index in range(count)]


def has_kernels(capability: Capability, architectures: Sequence[str]) -> bool:
    """Return whether a build of torch, by the names of `torch.cuda.get_arch_list`, has code for a card.

    Machine code (sm_86) runs on cards of its major version from its minor one on; PTX (compute_90) is
    translated for every newer card. A build that lists neither (ROCm) is trusted.
    """
    built = [name.split("_") for name in architectures if name.startswith(("sm_", "compute_"))]
    versions = [(kind, divmod(int(number.rstrip("af")), 10)) for kind, number in built]
    return not versions or any(
        version <= capability and (kind == "compute" or version[0] == capability[0])
        for kind, version in versions
    )


def check_devices(device: str, devices: int = 1) -> torch.device:
    """Return the device for a training run on `devices` devices of one kind.

    Raises:
        DeviceError: an unknown device, an index together with several devices, or more GPUs than there are.
    """
    chosen = resolve_device(device)
    if chosen.index is not None and devices > 1:
        raise DeviceError(f"device={device!r} names one device but devices={devices}; leave out the index")
    if chosen.type == "cuda" and devices > len(_capabilities()):
        raise DeviceError(f"devices={devices}: torch finds {len(_capabilities())} CUDA device(s)")
    return chosen


def make_fabric(device: str = "auto", *, devices: int = 1, precision: str = "32-true") -> Fabric:
    """Return a Fabric for devices of one kind; several mean one process each (gloo on CPUs, NCCL on GPUs).

    Devices and errors are those of `check_devices`; an index ("cuda:1") selects that one device. `precision`
    has Fabric's names, such as "bf16-mixed", which `usable_precision` may replace by "32-true".
    """
    from lightning_fabric import Fabric  # here, because the import takes seconds

    chosen = check_devices(device, devices)
    if chosen.type == "cuda":
        precision = usable_precision(precision, _capabilities()[chosen.index or 0])
    wanted = devices if chosen.index is None or chosen.type == "cpu" else [chosen.index]
    strategy = "ddp" if devices > 1 else "auto"
    with _without_line_on_precision():
        return Fabric(accelerator=chosen.type, devices=wanted, strategy=strategy, precision=precision)


@contextmanager
def _without_line_on_precision() -> Iterator[None]:
    """Drop Fabric's line "Using bfloat16 Automatic Mixed Precision (AMP)", which notebooks would show."""
    log = logging.getLogger("lightning_fabric.utilities.rank_zero")

    def keep(record: logging.LogRecord) -> bool:
        return "Automatic Mixed Precision" not in record.getMessage()

    log.addFilter(keep)
    try:
        yield
    finally:
        log.removeFilter(keep)


def usable_precision(precision: str, capability: Capability) -> str:
    """Return the precision to train in on a card: "32-true" where "bf16-mixed" would be emulated."""
    if precision != "bf16-mixed" or capability >= BFLOAT16:
        return precision
    card = f"a GPU of compute capability {_dotted(capability)}"
    print_once(f"precision=bf16-mixed: {card} only emulates bfloat16; training in float32")
    return "32-true"


def device_label(device: torch.device | str = "cpu") -> str:
    """Return the name of a device for people: the GPU's product name or the CPU's model."""
    device = torch.device(device)
    if device.type != "cpu":
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def _dotted(capability: Capability) -> str:
    return ".".join(map(str, capability))


def to_device(value: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return a copy of a CPU tensor on a device, without waiting until it is copied."""
    device = torch.device(device)
    if device.type in ("cpu", "mps") or value.device.type != "cpu":  # MPS has no pinned memory
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


@cache
def print_once(line: str) -> None:
    """Print a line, once in a process."""
    print(line, flush=True)
