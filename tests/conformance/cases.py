"""What each golden number is: from an array's name to the same quantity, computed by this project.

A family is a function that takes the bench, the array's name and what was expected (shapes say how much of a
quantity was kept), and returns the quantity, or None where the name is not one of its own.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.conformance import cases_judges, cases_networks, golden
from tests.conformance.bench import Bench

Value = Tensor | NDArray | None
Family = Callable[[Bench, str, Mapping[str, NDArray]], Value]
FAMILIES: tuple[Family, ...] = (
    cases_networks.inversion,
    cases_networks.generator,
    cases_networks.contrastive,
    cases_judges.arcface,
    cases_judges.lpips,
    cases_judges.losses,
    cases_judges.ganspace,
    cases_judges.sefa,
    cases_judges.ranger,
)


@dataclass(frozen=True)
class Row:
    """How one array compares: the distance in units of its root mean square, or why there is none."""

    name: str
    distance: float | None = None
    problem: str = ""
    skipped: bool = False

    @property
    def good(self) -> bool:
        return self.skipped or (self.distance is not None and self.distance <= golden.TOLERANCE)


@torch.no_grad()
def compare(bench: Bench, name: str, arrays: Mapping[str, NDArray]) -> Row:
    """The distance of this project's numbers from an array of a fixture."""
    for family in FAMILIES:
        try:
            value = family(bench, name, arrays)
        except cases_judges.NotHereError as reason:
            return Row(name, problem=str(reason), skipped=True)
        if value is not None:
            return _row(name, np.asarray(value), arrays[name])
    return Row(name, problem="unknown array: no case has this name")


def _row(name: str, found: NDArray, expected: NDArray) -> Row:
    kept = [found] if found.shape == expected.shape else _thinned(found, expected.shape)
    if not kept:
        return Row(name, problem=f"is {list(expected.shape)} in the file, {list(found.shape)} here")
    return Row(name, distance=min(golden.distance(part, expected) for part in kept))


def _thinned(image: NDArray, shape: tuple[int, ...]) -> list[NDArray]:
    """Return the image at every stride that leaves so many rows and columns."""
    if image.ndim != 4 or len(shape) != 4 or image.shape[:2] != shape[:2]:
        return []
    strides = range(1, max(image.shape) + 1)
    fitting = (s for s in strides if tuple(ceil(n / s) for n in image.shape[2:]) == shape[2:])
    return [image[:, :, ::s, ::s] for s in fitting]


def batch_of(arrays: Mapping[str, NDArray]) -> int:
    """Return the number of images of the inversion's numbers."""
    for name, array in arrays.items():
        if re.search(r"(latent_base|latent_refine|feature_offset|image_w|image_wplus)$", name) and array.ndim:
            return len(array)
    return 2
