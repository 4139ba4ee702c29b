"""Directions, inverters, measures and the explorer on the device."""

import pytest
import torch

from tests.device.drivers import Uses

NAMES = list(Uses(torch.device("cpu")).checks())
WORST = 0.02
"""Largest difference of an inverter's reconstruction from the CPU's, in [-1, 1]; a byte is 0.008."""


@pytest.fixture(scope="module")
def uses(device):
    return {"here": Uses(torch.device("cpu")), "there": Uses(device)}


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_inverters_reconstruct_as_on_the_cpu(name, uses):
    there = uses["there"].checks()[name]()
    if isinstance(there, torch.Tensor):
        here = uses["here"].checks()[name]()
        difference = (here - there).abs()
        assert float(difference.max()) < WORST, float(difference.mean())
