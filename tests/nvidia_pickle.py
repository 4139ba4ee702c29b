"""Write pickles in the layout of NVIDIA's repositories, from tensors by name.

Their classes are stood in for by modules that exist while a pickle is written, and not when it is read.
"""

import io
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SOURCE = "raise SystemExit('the source in a pickle was executed')\n"
PRIVATE = ("_backward_hooks", "_forward_hooks", "_state_dict_hooks")


@contextmanager
def nvidia_modules() -> Iterator[types.SimpleNamespace]:
    """The names of NVIDIA's code, importable inside the block; none of them does anything."""
    names = {
        "persistence": "torch_utils.persistence",
        "util": "dnnlib.util",
        "network": "dnnlib.tflib.network",
    }
    modules = {key: types.ModuleType(name) for key, name in names.items()}

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("called")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    modules["persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    modules["util"].EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    modules["network"].Network = type("Network", (), {"__module__": "dnnlib.tflib.network"})
    found = {names[key]: module for key, module in modules.items()}
    found |= {name: types.ModuleType(name) for name in ("torch_utils", "dnnlib", "dnnlib.tflib")}
    before = {name: sys.modules.get(name) for name in found}
    sys.modules.update(found)
    try:
        yield types.SimpleNamespace(
            rebuild=_reconstruct_persistent_obj,
            easy_dict=modules["util"].EasyDict,
            network=modules["network"].Network,
        )
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


class _Persistent:
    """A network that pickles itself the way `persistent_class` does."""

    def __init__(self, stand_ins: types.SimpleNamespace, name: str, state: dict[str, Any]) -> None:
        self.stand_ins, self.name, self.state = stand_ins, name, state

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.name}
        return self.stand_ins.rebuild, (self.stand_ins.easy_dict(meta, state=self.state),)


def network(
    stand_ins: types.SimpleNamespace, tensors: dict[str, Tensor], name: str = "", **settings: Any
) -> _Persistent:
    """A network of the tensors whose names start with `name`, with its sub-networks."""
    own = {key: tensor for key, tensor in tensors.items() if "." not in key}
    buffers = ("resample_filter", "noise_const", "w_avg", "transform")
    children = dict.fromkeys(key.partition(".")[0] for key in tensors if "." in key)
    for child in children:
        inner = {k.partition(".")[2]: t for k, t in tensors.items() if k.partition(".")[0] == child}
        children[child] = network(stand_ins, inner, child, **_settings_of(child, inner))
    state = {
        "training": False,
        "_parameters": OrderedDict((k, nn.Parameter(t)) for k, t in own.items() if k not in buffers),
        "_buffers": OrderedDict((k, t) for k, t in own.items() if k in buffers),
        "_non_persistent_buffers_set": set(),
        **{hooks: OrderedDict() for hooks in PRIVATE},
        "_modules": OrderedDict(children),
        "_init_args": (),
        "_init_kwargs": stand_ins.easy_dict(settings),
        **settings,
    }
    return _Persistent(stand_ins, _class_of(name), state)


def _class_of(name: str) -> str:
    known = {"": "Generator", "synthesis": "SynthesisNetwork", "mapping": "MappingNetwork"}
    return known.get(name, "SynthesisBlock" if name.startswith("b") else "SynthesisLayer")


def _settings_of(name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if name.startswith("fc"):
        return {"bias_gain": 0.01, "weight_gain": np.float64(0.01) / np.sqrt(512), "activation": "lrelu"}
    if name == "mapping":
        return {"num_layers": sum(key.endswith(".weight") for key in tensors), "w_avg_beta": 0.995}
    return {"architecture": "skip", "conv_clamp": 256} if name.startswith("b") else {}


def write_snapshot(
    path: Path, tensors: dict[str, Tensor], *, protocol: int = 4, whole: bool = False, **settings: Any
) -> Path:
    """A snapshot with G_ema; `whole` adds a G and a discriminator, and keeps G_ema last."""
    with nvidia_modules() as stand_ins:
        other = network(stand_ins, {"b4.fc.weight": torch.randn(3, 4)}) if whole else None
        snapshot = {
            "training_set_kwargs": stand_ins.easy_dict(class_name="x.ImageFolderDataset", resolution=64),
            "G": network(stand_ins, tensors, **settings) if whole else None,
            "D": other,
            "G_ema": network(stand_ins, tensors, **settings),
            "augment_pipe": None,
        }
        path.write_bytes(pickle.dumps(snapshot, protocol=protocol))
    return path


def write_legacy(path: Path, tensors: dict[str, Tensor], *, protocol: int = 4, **settings: Any) -> Path:
    """A snapshot as the TensorFlow code wrote it: three networks, the last with these tensors."""
    groups: dict[str, list] = {"": [("lod", np.float32(0.0))], "synthesis": [], "mapping": []}
    for name, tensor in tensors.items():
        if not name.endswith("resample_filter"):
            group, own, array = _legacy(name, tensor.numpy())
            groups[group].append((own, np.ascontiguousarray(array)))
    with nvidia_modules() as stand_ins:

        def make(name, **inner):
            made = stand_ins.network()
            state = {"version": 4, "name": name, "static_kwargs": stand_ins.easy_dict(settings)}
            state |= {"components": stand_ins.easy_dict(inner), "build_module_src": SOURCE}
            made.__dict__ |= {**state, "build_func_name": name, "variables": groups.get(name, [])}
            return made

        groups["Gs"] = groups[""]
        parts = {name: make(name) for name in ("synthesis", "mapping")}
        path.write_bytes(pickle.dumps((make("G"), make("D"), make("Gs", **parts)), protocol=protocol))
    return path


def _legacy(name: str, array: np.ndarray) -> tuple[str, str, np.ndarray]:
    """The group, name and layout of a tensor in a TensorFlow snapshot."""
    parts = name.split(".")
    if name == "mapping.w_avg":
        return "", "dlatent_avg", array
    if parts[0] == "mapping":
        return "mapping", f"Dense{parts[1][2:]}/{parts[2]}", array.T
    side = int(parts[1][1:])
    folder = f"{side}x{side}"
    if parts[2] == "const":
        return "synthesis", f"{folder}/Const/const", array[None]
    layer = {"conv0": "Conv0_up", "conv1": "Conv1" if side > 4 else "Conv", "torgb": "ToRGB"}[parts[2]]
    rest = ".".join(parts[3:])
    if rest == "noise_const":
        first = 2 * int(np.log2(side)) - 5
        return "synthesis", f"noise{first + (parts[2] == 'conv1')}", array[None, None]
    if rest == "weight":
        turned = array[:, :, ::-1, ::-1] if parts[2] == "conv0" else array
        return "synthesis", f"{folder}/{layer}/weight", turned.transpose(2, 3, 1, 0)
    if rest == "affine.weight":
        return "synthesis", f"{folder}/{layer}/mod_weight", array.T
    if rest == "affine.bias":
        return "synthesis", f"{folder}/{layer}/mod_bias", array - 1
    return "synthesis", f"{folder}/{layer}/{rest}", array


def small_tensors(size: int = 16, width: int = 6, dim: int = 8, layers: int = 2) -> dict[str, Tensor]:
    """Random weights of a little StyleGAN2 under NVIDIA's names."""
    draw = torch.Generator().manual_seed(0)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    tensors = {"synthesis.b4.const": torch.randn(width, 4, 4, generator=draw)}
    for side in [4 << i for i in range(size.bit_length() - 2)]:
        block = f"synthesis.b{side}"
        tensors[f"{block}.resample_filter"] = torch.outer(line, line)
        for conv in ("conv0", "conv1") if side > 4 else ("conv1",):
            tensors[f"{block}.{conv}.weight"] = torch.randn(width, width, 3, 3, generator=draw)
            tensors[f"{block}.{conv}.noise_strength"] = torch.randn((), generator=draw)
            tensors[f"{block}.{conv}.noise_const"] = torch.randn(side, side, generator=draw)
            tensors[f"{block}.{conv}.bias"] = torch.randn(width, generator=draw)
            tensors[f"{block}.{conv}.resample_filter"] = torch.outer(line, line)
        tensors[f"{block}.torgb.weight"] = torch.randn(3, width, 1, 1, generator=draw)
        tensors[f"{block}.torgb.bias"] = torch.randn(3, generator=draw)
        for layer in ("conv0", "conv1", "torgb") if side > 4 else ("conv1", "torgb"):
            tensors[f"{block}.{layer}.affine.weight"] = torch.randn(width, dim, generator=draw)
            tensors[f"{block}.{layer}.affine.bias"] = torch.ones(width)
    for index in range(layers):
        tensors[f"mapping.fc{index}.weight"] = 100 * torch.randn(dim, dim, generator=draw)
        tensors[f"mapping.fc{index}.bias"] = torch.zeros(dim)
    return tensors | {"mapping.w_avg": 0.1 * torch.randn(dim, generator=draw)}


def storage_bytes(tensor: Tensor) -> bytes:
    """What a snapshot holds for a tensor's numbers."""
    stream = io.BytesIO()
    torch.save(tensor._typed_storage(), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()
