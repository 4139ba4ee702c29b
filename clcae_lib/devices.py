"""Where a computation runs: one device by name, or a Lightning Fabric for training."""

from __future__ import annotations

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, Strategy

__all__ = ["TF32", "device_label", "make_fabric", "resolve_device", "set_tf32"]

TF32 = "CLCAE_TF32"
"""The environment's switch: 1 lets GPUs multiply with 10 bits of mantissa in place of 23."""


def resolve_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU, whichever is there first.

    TF32 is set on the way as `CLCAE_TF32` says; see `set_tf32`.

    Raises:
        ValueError: `name` is no device, or none that this machine has.
    """
    set_tf32()
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


def set_tf32(allowed: bool | None = None) -> bool:
    """Let GPUs multiply and convolve float32 in TF32, or not; returns which.

    It is off unless asked for: torch's own default has it on for convolutions, whose pictures then differ
    from a CPU's by a thousandth, more than what is measured here may differ. Training runs in bfloat16 and
    gains nothing by it.

    Args:
        allowed: None takes the environment's `CLCAE_TF32`, 1 or 0 (the default).

    Raises:
        ValueError: `CLCAE_TF32` is something else.
    """
    if allowed is None:
        said = os.environ.get(TF32, "0")
        if said not in ("0", "1"):
            raise ValueError(f"{TF32}={said!r}: write 1 (faster) or 0 (as exact as a CPU)")
        allowed = said == "1"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    return allowed


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
