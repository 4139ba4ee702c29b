"""Makes torchvision importable beside a CPU build of torch, once, before anything needs it.

The cause. Linux wheels of torchvision on PyPI are built against CUDA. Beside a CPU build of torch their
compiled extension cannot be loaded; torchvision goes on without it, and then fails where it registers shapes
for two of the missing operators: "operator torchvision::nms does not exist". Whatever imports torchvision,
as lpips and torchmetrics do, fails with it.

The repair. Nothing this project uses lives in the extension, so declaring those two operators is enough:
models, transforms, `make_grid`, lpips and torchmetrics then work; `torchvision.ops.nms` and
`torchvision.io.read_image` still need the extension. On a build that imports by itself nothing is declared,
for a second declaration of an operator is an error.

Call `ensure_torchvision()` before importing torchvision, torchmetrics or lpips.
"""

import importlib
import sys
from types import ModuleType

_MISSING = "operator torchvision::"
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list = []  # torch forgets an operator when the library object that declared it is collected


def ensure_torchvision() -> ModuleType:
    """Imports torchvision, declaring the operators its extension lacks if that is what is wrong.

    Calling it again costs nothing.

    Returns:
        The torchvision module, fully imported.

    Raises:
        ImportError: torchvision is absent, or fails to import for another reason than the known one.
    """
    if _usable(sys.modules.get("torchvision")):
        return sys.modules["torchvision"]
    _forget("torchvision")
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise ImportError("torchvision is not installed; `make install` brings it") from error
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise ImportError(_explain(error)) from error
    return _repair()


def _repair() -> ModuleType:
    """Declares the operators, then imports torchvision and whatever had failed with it afresh."""
    for package in ("torchvision", "torchmetrics", "lpips"):
        _forget(package)
    _declare()
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise ImportError(_explain(error)) from error


def _declare() -> None:
    """Declares the schemas of those operators that do not exist yet."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _declared.append(library)


def _usable(module: ModuleType | None) -> bool:
    """Whether a module is torchvision imported to its end: its last import is `utils`."""
    return module is not None and hasattr(module, "utils")


def _forget(package: str) -> None:
    """Removes a package and its modules from the import cache."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def _explain(error: Exception) -> str:
    """The message for a failure that the repair does not know."""
    return (
        f"torchvision does not import beside this build of torch ({error}). Install the pair that "
        "constraints.txt pins, both from the same index: pip install -c constraints.txt torch torchvision"
    )
