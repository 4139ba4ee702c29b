"""Random numbers of a device that equal the CPU's, so that a step there can be compared with one here."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CPU = torch.device("cpu")


class DrawsOnCpu(TorchDispatchMode):
    """Draws on the CPU's generator what is drawn on a device, in the order that a CPU draws it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        flat = tree_flatten((args, kwargs))[0]
        devices = [
            v.device if isinstance(v, Tensor) else v for v in flat if isinstance(v, Tensor | torch.device)
        ]
        device = next((d for d in devices if d.type != "cpu"), None)
        if device is None or torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        if func.overloadpacket is torch.ops.aten.native_dropout:
            return _dropout(*args)
        args_here, kwargs_here = tree_map(_to_cpu, (args, kwargs))
        out = func(*args_here, **kwargs_here)
        if func.overloadpacket.__name__.endswith("_"):
            args[0].copy_(out)
            return args[0]
        return tree_map(lambda value: value.to(device) if isinstance(value, Tensor) else value, out)


def _dropout(x: Tensor, p: float, train: bool | None = True) -> tuple[Tensor, Tensor]:
    """Return the dropout of CUDA's fused kernel, with the mask that a CPU draws."""
    mask = torch.empty_like(x, device="cpu").bernoulli_(1 - p if train else 1.0).to(x.device)
    return x * mask / (1 - p if train else 1.0), mask.bool()


def _to_cpu(value):
    if isinstance(value, Tensor):
        return value.cpu()
    return CPU if isinstance(value, torch.device) else value
