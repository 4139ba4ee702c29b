"""The provenance of numbers: commit, versions and device, which are stored with each number."""

import importlib.metadata
import platform
import subprocess
from functools import cache

from clcae_lib import paths

_PACKAGES = ("torch", "torchvision", "numpy", "torchmetrics", "lpips", "lightning-fabric")


@cache
def commit() -> str:
    """Return the current commit, followed by "+" if files of the code differ from it; "" outside git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = head and _git("status", "--porcelain", "--untracked-files=no", "--", "clcae_lib", "notebooks")
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=paths.root(), capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


@cache
def versions() -> str:
    """Return the versions of Python and the numerical packages: "python 3.11.7, torch 2.13.0+cpu, ..."."""
    found = {package: version(package) for package in _PACKAGES}
    parts = [f"{package} {number}" for package, number in found.items() if number]
    return ", ".join([f"python {platform.python_version()}", *parts])


def version(package: str) -> str | None:
    """Return the installed version of a package, None where it is absent."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def device_text(name: str) -> str:
    """Return the device that a notebook's `device` parameter means here, such as "cuda: NVIDIA H200"."""
    from clcae_lib.devices import device_label, resolve_device

    device = resolve_device(name)
    return f"{device}: {device_label(device)}"
