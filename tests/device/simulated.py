"""A simulated accelerator, the device `sim`, for tests on machines without a GPU.

Its tensors keep their values on the CPU and obey the rules of a GPU. As on CUDA, these raise an error:
operands on two devices, `numpy()` of a tensor on the device, a device index into a CPU tensor, and a CPU
generator for a draw on the device. Autograd, fused optimizers and resumed trainings run for real. Kernels,
speed, memory, autocast's choice of dtypes and nondeterminism are not simulated.

It also counts where the host would wait for the device: copies between CPU and device, and reads of values.

`install` registers the device for the whole process and cannot be undone, so use it in a process of its own.
It rests on torch's PrivateUse1 backend for Python, which torch marks as experimental: a new version of torch
may need changes here.
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils import _python_dispatch as python_dispatch
from torch.utils import backend_registration

HOST_WAITS: Counter[tuple[str, str]] = Counter()
"""Number of waits by kind ("copy" or "read") and by line of the library."""

# Operations that take a CPU scalar besides tensors of the device, though torch does not tag them pointwise.
_TAKE_SCALARS = {"where", "masked_fill", "masked_fill_", "fill_", "copy_", "index_put", "index_put_"}
_TAKE_SCALARS |= {"_index_put_impl_"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# Factories that draw on the CPU's generator legitimately, because they only take the shape of a tensor.
_SHAPED_LIKE = {f"{name}_like" for name in ("zeros", "ones", "empty", "full", "rand", "randn", "randint")}
_SHAPED_LIKE |= {"new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided"}
_TWO_DEVICES = "Expected all tensors to be on the same device, but found at least two devices, sim:0 and cpu!"


class SimulatedTensor(torch.Tensor):
    """A tensor on the device; `inner` is the CPU tensor with its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "SimulatedTensor":
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device("sim", 0),
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert sim:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def tolist(self):
        _count("read")
        return self.detach().inner.tolist()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)

    def __repr__(self, **kwargs) -> str:
        return f"SimulatedTensor({self.inner!r})"

    def __reduce_ex__(self, protocol):
        return self.inner.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict) -> "SimulatedTensor":
        if id(self) not in memo:
            with torch.no_grad():
                copy = self.detach().clone()
            copy.__dict__.update({name: value for name, value in self.__dict__.items() if name != "inner"})
            memo[id(self)] = copy.requires_grad_(self.requires_grad)
        return memo[id(self)]

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, value: "SimulatedTensor") -> None:
        torch._C.TensorBase.data.__set__(self, value)
        self.inner = value.inner


class SimulatedFabric:
    """What a training asks of Lightning's Fabric, on the simulated device."""

    world_size, global_rank, is_global_zero = 1, 0, True

    def __init__(self, precision: str = "bf16-mixed") -> None:
        self.device = torch.device("sim", 0)
        self.strategy = SimpleNamespace(precision=SimpleNamespace(precision=precision))

    def launch(self) -> None:
        """Do nothing: there is one process."""

    barrier = launch

    def autocast(self):
        """Return torch's autocast for the device, off for another precision than bf16-mixed."""
        mixed = self.strategy.precision.precision == "bf16-mixed"
        return torch.autocast("sim", dtype=torch.bfloat16, enabled=mixed)

    def setup_optimizers(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Return the optimizer as it is."""
        return optimizer

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients."""
        loss.backward()


class _Backend(backend_registration._DummyBackendModule):
    """What torch asks of the module `torch.sim`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed(self, seed: int) -> None:
        pass

    manual_seed_all = manual_seed

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_rng_state(self, device=None) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state, device=None) -> None:
        pass


class _Factories(python_dispatch.TorchDispatchMode):
    """Sends operations that take no tensor, such as `torch.zeros`, to the device they name."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


_INSTALLED: list[Any] = []


def install() -> None:
    """Give this process the device `sim`."""
    backend_registration._setup_privateuseone_for_python_backend("sim", backend_module=_Backend())
    autocast = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    autocast.fallback(torch.library.fallthrough_kernel)
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="sim") goes through the dispatcher
    torch.autograd.set_multithreading_enabled(False)
    mode = _Factories()
    mode.__enter__()
    _INSTALLED.extend([autocast, mode])
    run_thread, apply = threading.Thread.run, torch.nn.Module._apply

    def run_in_mode(thread: threading.Thread) -> None:
        torch.autograd.set_multithreading_enabled(False)
        with _Factories():
            run_thread(thread)

    def apply_and_swap(module, *args, **kwargs):  # parameters keep their identity, as on a real device
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return apply(module, *args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    threading.Thread.run, torch.nn.Module._apply = run_in_mode, apply_and_swap
    torch.Tensor.pin_memory = _pinned


def _count(kind: str) -> None:
    """Count one wait of the host under the innermost line of the library."""
    frame, inside = sys._getframe(1), f"{os.sep}clcae_lib{os.sep}"
    while frame is not None and inside not in frame.f_code.co_filename:
        frame = frame.f_back
    line = f"{frame.f_code.co_filename.rpartition(inside)[2]}:{frame.f_lineno}" if frame else "elsewhere"
    HOST_WAITS[kind, line] += 1


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy in memory from which a copy to the device can go on without the host."""
    copy = tensor.clone()
    copy.is_pinned_here = True
    return copy


def _is_sim(device: Any) -> bool:
    return device is not None and torch.device(device).type == "sim"


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, SimulatedTensor) else value


def _wrap(value: Any, base: Any = None) -> Any:
    if not isinstance(value, torch.Tensor) or isinstance(value, SimulatedTensor):
        return value
    if torch.is_inference_mode_enabled() and isinstance(base, torch.Tensor) and not base.is_inference():
        with torch.inference_mode(False):  # a view of a normal tensor is a normal tensor
            return SimulatedTensor(value)
    return SimulatedTensor(value)


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Yield the arguments of an operation, and those in its lists, faster than torch's pytree does."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _each(change: Callable[[Any], Any], value: Any) -> Any:
    """Return an argument or result changed; of a list, each of its values."""
    if isinstance(value, list | tuple):
        return type(value)([_each(change, part) for part in value])
    return change(value)


@cache
def _name(func) -> str:
    return func._schema.name.split("::")[1]


@cache
def _aliases(func) -> list[Any]:
    """Return what each result of an operation shares with an argument, or None."""
    return [returned.alias_info for returned in func._schema.returns]


def _on_cpu(value: Any) -> Any:
    return torch.device("cpu") if isinstance(value, torch.device) else _inner(value)


def _run(func, args: tuple, kwargs: dict) -> Any:
    """Run one operation of torch under the rules of the device."""
    flat = list(_leaves([*args, *kwargs.values()]))
    ours = [value for value in flat if isinstance(value, SimulatedTensor)]
    others = [v for v in flat if isinstance(v, torch.Tensor) and not isinstance(v, SimulatedTensor)]
    named = [value for value in flat if isinstance(value, torch.device)]
    device = kwargs.get("device") or (named[0] if named and not ours else None)
    if not ours and not _is_sim(device):
        return func(*args, **kwargs)
    name = _name(func)
    if name == "_to_copy":
        return _move(func, args, kwargs, from_sim=bool(ours))
    if name == "copy_" and others:
        _count("copy")
        _inner(args[0]).copy_(_inner(args[1]))
        return args[0]
    if name == "_local_scalar_dense":
        _count("read")
        return func(_inner(args[0]))
    if name not in _SHAPED_LIKE and any(isinstance(value, torch.Generator) for value in flat):
        raise RuntimeError("Expected a 'sim' device type for generator but found 'cpu'")
    if name in _INDEXING:
        _check_indices(func, name, args)
    elif ours and others:
        takes_scalars = (
            torch.Tag.pointwise in func.tags or name in _TAKE_SCALARS or name.startswith("_foreach")
        )
        if not takes_scalars or any(other.dim() > 0 for other in others):
            raise RuntimeError(f"{_TWO_DEVICES} ({func}, {[tuple(other.shape) for other in others]})")
    stays = kwargs.get("device") is None or _is_sim(kwargs["device"])
    inner_args = _each(_on_cpu, args)
    inner_kwargs = {key: _each(_on_cpu, value) for key, value in kwargs.items()}
    if inner_kwargs.get("device") is not None:
        inner_kwargs["device"] = torch.device("cpu")
    inner_kwargs.pop("pin_memory", None)
    out = func(*inner_args, **inner_kwargs)
    return _results(func, args, kwargs, out) if stays else out


def _move(func, args: tuple, kwargs: dict, *, from_sim: bool) -> Any:
    """Change the device or the dtype of a tensor."""
    options = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
    out = func(_inner(args[0]), *args[1:], **options)
    if kwargs.get("device") is None:
        return _wrap(out)
    to_sim = _is_sim(kwargs["device"])
    goes_on = kwargs.get("non_blocking") and hasattr(args[0], "is_pinned_here")
    if to_sim != from_sim and not goes_on:
        _count("copy")
    return _wrap(out) if to_sim else out


def _check_indices(func, name: str, args: tuple) -> None:
    indices = [index for index in _leaves(args[1]) if isinstance(index, torch.Tensor)]
    on_sim = isinstance(args[0], SimulatedTensor)
    if not on_sim and any(isinstance(index, SimulatedTensor) for index in indices):
        raise RuntimeError(
            "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
        )
    if any(not isinstance(index, SimulatedTensor) for index in indices):
        _count("copy")
    values = args[2] if name != "index" and len(args) > 2 else None
    if (
        isinstance(values, torch.Tensor)
        and isinstance(values, SimulatedTensor) != on_sim
        and values.dim() > 0
    ):
        raise RuntimeError(f"{_TWO_DEVICES} ({func})")


def _results(func, args: tuple, kwargs: dict, out: Any) -> Any:
    """Return results as tensors of the device; an argument that was written to is returned as itself."""
    aliases = _aliases(func)

    def result(place: int, value: Any) -> Any:
        alias = aliases[place]
        if alias is None or not alias.is_write:
            base = args[0] if alias is not None and args else None
            return _each(lambda x: _wrap(x, base), value)
        for index, argument in enumerate(func._schema.arguments):
            written = argument.alias_info
            if written is not None and written.is_write and written.before_set == alias.before_set:
                target = kwargs.get(argument.name, args[index] if index < len(args) else None)
                _follow_shape(target, value)
                return target
        return _wrap(value)

    if not aliases:
        return None
    if len(aliases) == 1:
        return result(0, out)
    return type(out)(result(place, value) for place, value in enumerate(out))


def _follow_shape(outer: Any, inner: torch.Tensor) -> None:
    """Give a tensor the shape of its values after an in-place operation such as `squeeze_`."""
    if isinstance(outer, SimulatedTensor) and outer.shape != inner.shape:
        keys = torch._C.DispatchKeySet(torch._C.DispatchKey.Python).add(
            torch._C.DispatchKey.PythonTLSSnapshot
        )
        with torch._C._ExcludeDispatchKeyGuard(keys), torch.no_grad():
            outer.as_strided_(inner.shape, inner.stride(), inner.storage_offset())
