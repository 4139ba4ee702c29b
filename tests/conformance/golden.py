"""Reading the golden numbers, and comparing with them."""

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

FOLDER = Path(__file__).parent
TOLERANCE = 3e-4  # of the root mean square: ten times the noise of float32, a hundredth of any mistake


def fixture(name: str) -> dict[str, NDArray]:
    """Return the arrays of a fixture."""
    with np.load(FOLDER / "fixtures" / f"{name}.npz") as arrays:
        return dict(arrays)


def manifest(name: str) -> dict[str, list]:
    """Return key → [shape, dtype, "parameter" or "buffer"], in the order of the `state_dict`."""
    return json.loads((FOLDER / "manifests" / f"{name}.json").read_text())


def layout(module: nn.Module) -> dict[str, list]:
    """Return a network's own manifest."""
    parameters = dict(module.named_parameters())
    return {
        key: [
            list(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            "parameter" if key in parameters else "buffer",
        ]
        for key, tensor in module.state_dict().items()
    }


def distance(actual: Tensor | NDArray, expected: NDArray) -> float:
    """Return the largest difference, in units of the root mean square of what is expected.

    Integers, flags and arrays of zeros have no such unit: there it is the difference itself. Infinite where
    either has numbers that are not finite.
    """
    found = np.asarray(actual.detach() if isinstance(actual, Tensor) else actual)
    assert found.shape == expected.shape
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return math.inf
    largest = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
    whole = expected.dtype.kind in "biu" or not expected.any()
    return largest if whole else largest / float(np.sqrt(np.square(expected.astype(np.float64)).mean()))


def assert_golden(actual: Tensor, expected: NDArray) -> None:
    """Fail unless every number agrees within `TOLERANCE`."""
    found = distance(actual, expected)
    assert found <= TOLERANCE, f"differs by {found:.2e} of the rms; at most {TOLERANCE:.0e} is allowed"
