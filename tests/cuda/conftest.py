"""The device of these tests: a CUDA card, or what CLCAE_TEST_DEVICE names to rehearse them without one.

`cpu` is the CPU with other kernels (oneDNN off), so that comparisons have rounding errors to bear. `sim` is
the simulated accelerator; it needs JAXTYPING_DISABLE=1 too, because its Fabric is none of Lightning's.
"""

import os
from contextlib import nullcontext

os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # as under make: float32 means float32

import pytest
import torch

from clcae_lib.devices import make_fabric

CHOSEN = os.environ.get("CLCAE_TEST_DEVICE", "cuda")


def pytest_collection_modifyitems(items):
    here = [item for item in items if "tests/cuda/" in item.path.as_posix()]
    missing = CHOSEN == "cuda" and not torch.cuda.is_available()
    for item in here:
        item.add_marker(pytest.mark.cuda)
        item.add_marker(pytest.mark.filterwarnings("default"))  # other versions of torch than the pinned one
        if missing:
            reason = f"torch {torch.__version__} finds no CUDA device; CLCAE_TEST_DEVICE=sim rehearses this"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def fabric_of():
    """A function that returns the fabric of the device under test, given a precision."""
    if CHOSEN != "sim":
        return lambda precision="32-true": make_fabric(CHOSEN, precision=precision)
    from tests.device import simulated

    simulated.install()
    return simulated.SimulatedFabric


@pytest.fixture(scope="session")
def device(fabric_of) -> torch.device:
    return fabric_of().device


@pytest.fixture
def other_kernels():
    """A context in which the CPU under test has other kernels than the CPU that it is compared with."""
    return lambda: torch.backends.mkldnn.flags(enabled=False) if CHOSEN == "cpu" else nullcontext()
