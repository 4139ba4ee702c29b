"""Stand-ins for the names in a pickle: classes that only store their arguments.

A file can call these classes and set the state of their instances. It cannot change the classes, because
setting the state of a class is an error.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clcae_lib.weights.checkpoints import UnsafeFileError

_STORAGES = {
    **{"FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16},
    **{"DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8},
    "BoolStorage": torch.bool,
}
_NUMPY = {
    f"{kind[0]}{size}": getattr(torch, f"{kind}{8 * size}")
    for kind, sizes in {"float": (2, 4, 8), "int": (1, 2, 4, 8), "uint": (1, 2, 4, 8)}.items()
    for size in sizes
} | {"b1": torch.bool}


class Inert:
    """Base class of the stand-ins."""

    def __setstate__(self, state: Any) -> None:
        raise UnsafeFileError("it sets the state of something without one")


class Mapping(dict):
    """A dictionary of any class; its attributes and factory are dropped."""

    def __init__(self, *args: Any) -> None:
        super().__init__(args[0] if args and isinstance(args[0], (dict, list)) else ())

    def __setstate__(self, state: Any) -> None:
        pass


class Record(Inert):
    """An object that is not used: its arguments and its state."""

    def __new__(cls, *args: Any) -> "Record":
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Plain(Inert):
    """A parameter, a size or a set, reduced to its first argument."""

    def __new__(cls, data: Any = (), *_: Any) -> Any:
        return data


class Bytes(Inert):
    """Bytes, which protocol 2 stores as text."""

    def __new__(cls, text: Any = "", encoding: Any = "latin1") -> Any:
        if not isinstance(text, str) or encoding != "latin1":
            raise UnsafeFileError("it encodes something other than bytes")
        return text.encode("latin1")


class Storage:
    """Numbers of one type; their bytes may follow later."""

    def __init__(self, dtype: Any, count: Any, data: memoryview | None = None) -> None:
        if not isinstance(dtype, torch.dtype) or type(count) is not int or count < 0:
            raise UnsafeFileError("it refers to an object that is not a storage of numbers")
        self.dtype, self.count, self.size = dtype, count, count * dtype.itemsize
        self.data = data

    def attach(self, data: memoryview) -> None:
        """Set the bytes; their number must be that of the storage."""
        if len(data) != self.size:
            raise UnsafeFileError("it gives a false size of its data, or is cut short")
        self.data = data


class View(Inert):
    """A tensor in a file: a view that is checked to be inside its storage; its numbers are not read."""

    storage: Storage | None = None

    def __new__(cls, storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> "View":
        if not isinstance(storage, Storage):
            raise UnsafeFileError("it makes a tensor of something that is not a storage")
        for sizes in ((offset,), shape, stride):
            listed = isinstance(sizes, (tuple, list)) and len(sizes) <= 16
            if not listed or any(type(n) is not int or not 0 <= n < 1 << 48 for n in sizes):
                raise UnsafeFileError("a tensor has a shape that is not a list of sizes")
        made = super().__new__(cls)
        made.storage, made.offset, made.shape, made.stride = storage, offset, tuple(shape), tuple(stride)
        steps = zip(made.shape, made.stride, strict=True)
        made.span = 1 + sum((size - 1) * step for size, step in steps) if 0 not in made.shape else 0
        if offset + made.span > storage.count:
            raise UnsafeFileError(f"a tensor of shape {list(shape)} claims more than its storage holds")
        return made

    @property
    def nbytes(self) -> int:
        """The size of the tensor's numbers in bytes."""
        return math.prod(self.shape) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """Return the tensor; its numbers stay in the file, or in the pickle, until they are used."""
        dtype = self.storage.dtype
        if not self.span:
            return torch.empty(self.shape, dtype=dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the bytes of a pickle are read-only
            read = torch.uint8 if dtype == torch.bool else dtype
            start = self.offset * dtype.itemsize
            flat = torch.frombuffer(self.storage.data, dtype=read, count=self.span, offset=start)
        view = flat.as_strided(self.shape, self.stride)
        return view != 0 if dtype == torch.bool else view


class Dtype(Record):
    """A numpy type."""

    @property
    def torch(self) -> torch.dtype | None:
        """The equal torch type, if there is one."""
        known = not (self.state and ">" in self.state)
        return _NUMPY.get(str(self.args[0])[-2:]) if known else None


class Array(View):
    """A numpy array in C order, with its shape and numbers as state; without storage for other data."""

    def __new__(cls, *_: Any) -> "Array":
        return Inert.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        dtype = kind.torch
        if dtype is None:
            return
        if fortran or len(shape) > 16 or math.prod(shape) * dtype.itemsize != len(data):
            raise UnsafeFileError("an array gives a false size or order")
        stride = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        self.__dict__ |= View(Storage(dtype, math.prod(shape), memoryview(data)), 0, shape, stride).__dict__


class Scalar(Inert):
    """A numpy number, as an array without dimensions."""

    def __new__(cls, kind: Any, data: Any) -> Any:
        made = Array()
        made.__setstate__((1, (), kind, False, data))
        return made


class Module(Inert):
    """A network in a snapshot: its tensors and sub-networks by name, and its settings.

    The official loader executes the source code of the network's class, which is in the file; here it is
    ignored.
    """

    def __new__(cls, meta: Any = None, *_: Any) -> "Module":
        made = super().__new__(cls)
        made.children, made.settings = {}, {}
        if meta is not None:
            state = meta["state"]
            for group in ("_parameters", "_buffers", "_modules"):
                made.children |= state.get(group) or {}
            made.settings = {name: _number(v) for name, v in state.items() if not name.startswith("_")}
        return made


class Network(Module):
    """A network of the TensorFlow code: its variables and components, and its settings."""

    def __setstate__(self, state: Any) -> None:
        self.children = dict(state.get("variables") or ()) | dict(state.get("components") or ())
        self.settings = dict(state.get("static_kwargs") or {})


def _number(value: Any) -> Any:
    return value.tensor().item() if isinstance(value, View) and value.storage and not value.shape else value


class Call(Inert):
    """A function that a file may call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


_CORES, _BUILTINS = ("numpy.core", "numpy._core"), ("builtins", "__builtin__")
NAMES: dict[str, Any] = {
    **dict.fromkeys((f"collections.{name}" for name in ("OrderedDict", "Counter", "defaultdict")), Mapping),
    **dict.fromkeys(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), View),
    **dict.fromkeys((f"torch._utils._rebuild_parameter{end}" for end in ("", "_with_state")), Plain),
    **dict.fromkeys(("torch.Size", *(f"{module}.set" for module in _BUILTINS)), Plain),
    **dict.fromkeys(("_codecs.encode", *(f"{module}.bytes" for module in _BUILTINS)), Bytes),
    **dict.fromkeys(f"{m}.{name}" for m in _BUILTINS for name in ("int", "list", "dict")),
    **dict.fromkeys(
        ("torch.device", "argparse.Namespace", "pathlib.PosixPath", "pathlib.WindowsPath"), Record
    ),
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **{str(dtype): dtype for dtype in _STORAGES.values()},
    **{"numpy.dtype": Dtype, "numpy.ndarray": None},
    **dict.fromkeys((f"{core}.multiarray.scalar" for core in _CORES), Scalar),
    **dict.fromkeys((f"{core}.multiarray._reconstruct" for core in _CORES), Array),
    **{"torch_utils.persistence._reconstruct_persistent_obj": Module, "dnnlib.util.EasyDict": Mapping},
    "dnnlib.tflib.network.Network": Network,
}
"""The names that a file may use, each with its stand-in: a class, a function, or a value."""
