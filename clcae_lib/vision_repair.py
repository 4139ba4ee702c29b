"""Make torchvision importable with a CPU build of torch.

The cause: Linux wheels of torchvision on PyPI are built against CUDA. With a CPU build of torch their
compiled extension cannot be loaded. torchvision continues without it, and then fails where it registers
shapes for two of the missing operators: "operator torchvision::nms does not exist". Packages that import
torchvision, such as lpips and torchmetrics, fail too.

The repair: this project uses nothing of the extension, so declaring those two operators is enough. Models,
transforms, `make_grid`, lpips and torchmetrics then work; `torchvision.ops.nms` and
`torchvision.io.read_image` still need the extension. If torchvision can be imported unchanged, nothing
is declared, because a second declaration of an operator is an error.
"""

import importlib
import sys
from types import ModuleType

_MISSING = "operator torchvision::"
_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list = []  # torch forgets an operator when the library object that declared it is collected


def ensure_torchvision() -> ModuleType:
    """Return torchvision, imported completely, after declaring its missing operators if necessary.

    Call it before importing torchvision, torchmetrics or lpips; further calls cost nothing. An ImportError
    says that torchvision is missing, or that its import fails for another reason.
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
        f"torchvision cannot be imported with this build of torch ({error}). Install the pair that "
        "constraints.txt pins, both from the same index: pip install -c constraints.txt torch torchvision"
    )
