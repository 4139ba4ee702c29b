"""Where a computation runs: one device by name, or a Lightning Fabric for training."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, Strategy

__all__ = ["device_label", "make_fabric", "resolve_device"]


def resolve_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU, whichever is there first.

    Raises:
        ValueError: `name` is no device, or none that this machine has.
    """
    if name == "auto":
        return torch.device(_best())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device={name!r} is no device; use auto, cpu, cuda, cuda:1, mps, ...") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={name!r}: this torch finds no CUDA device; use device=auto or device=cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={name!r}: this torch finds no MPS device; use device=auto or device=cpu")
    return device


def make_fabric(device: str = "auto", *, devices: int = 1, precision: str = "32-true") -> Fabric:
    """A Fabric for `devices` devices of one kind; more than one means DDP (gloo on CPUs, NCCL on GPUs).

    Args:
        device: as in `resolve_device`; an index ("cuda:1") picks that one device.
        precision: Fabric's name, e.g. "32-true" or "bf16-mixed".

    Raises:
        ValueError: an unknown device, or an index together with several devices.
    """
    chosen = resolve_device(device)
    if chosen.index is not None and devices > 1:
        raise ValueError(f"device={device!r} names one device but devices={devices}; drop the index")
    wanted: int | list[int] = devices if chosen.index is None or chosen.type == "cpu" else [chosen.index]
    return Fabric(accelerator=chosen.type, devices=wanted, strategy=_strategy(devices), precision=precision)


def device_label(device: torch.device | str = "cpu") -> str:
    """The name people know a device by: the GPU's product name or the CPU's model."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() if device.type == "cpu" else device.type


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _strategy(devices: int) -> str | Strategy:
    # Early-exit generators leave layers unused in a step, which plain DDP takes for a hang.
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if devices > 1 else "auto"


def _processor() -> str:
    import platform
    from pathlib import Path

    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()
