"""Makes torchvision importable beside a CPU build of torch, once, before anything needs it.

The cause. Linux wheels of torchvision on PyPI are built against CUDA. Beside a CPU build of torch their
compiled extension cannot be loaded; torchvision goes on without it, and then fails where it registers shapes
for two of the missing operators: "operator torchvision::nms does not exist". Whatever imports torchvision,
as lpips and torchmetrics do, fails with it.

The repair. Nothing this project uses is in the extension, so declaring those two operators is enough:
models, transforms, `make_grid`, lpips and torchmetrics then work; `torchvision.ops.nms` and
`torchvision.io.read_image` still need the extension. On a build that imports by itself nothing is declared,
for a second declaration of an operator is an error.
"""

import importlib
import sys
from types import ModuleType

_MISSING = "operator torchvision::"
_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list = []  # torch forgets an operator when the library object that declared it is collected


def ensure_torchvision() -> ModuleType:
    """Return torchvision, imported in full, with its missing operators declared if that is what is wrong.

    Call it before importing torchvision, torchmetrics or lpips; calling it again costs nothing. An
    ImportError
    says that torchvision is absent, or fails to import for another reason than the known one.
    """
    if hasattr(sys.modules.get("torchvision"), "utils"):  # its last import
        return sys.modules["torchvision"]
    _forget("torchvision")
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        raise ImportError("torchvision is not installed; `make install` installs it") from error
    except RuntimeError as error:
        if _MISSING not in str(error):
            raise ImportError(_explain(error)) from error
    _forget("torchvision", "torchmetrics", "lpips")
    _declare()
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise ImportError(_explain(error)) from error


def _declare() -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SCHEMA)
    _declared.append(library)


def _forget(*packages: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def _explain(error: Exception) -> str:
    return (
        f"torchvision does not import beside this build of torch ({error}). Install the pair that "
        "constraints.txt pins, both from the same index: pip install -c constraints.txt torch torchvision"
    )
