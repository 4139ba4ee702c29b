"""Reading the pickles of NVIDIA's StyleGAN2-ADA and StyleGAN3 repositories, running nothing in them.

Each network is stored with the Python source of its class, which the official loader executes. Here a network
is its parameters, buffers, sub-networks and settings; the source is dropped unread.
"""

import io
from dataclasses import dataclass, field
from typing import Any

from clcae_lib.formats._errors import FormatError, UnsafeFileError
from clcae_lib.formats._machine import Budget, Machine, Maker, Stream, mapping, record
from clcae_lib.formats._stored import Storage, StoredTensor
from clcae_lib.formats._torch import STORAGES, basic_makers, number, read_stream


@dataclass(eq=False, repr=False)
class Module:
    """A network in a pickle: its class's name, its tensors and sub-networks by name, and its settings."""

    name: str
    children: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def at(self, *names: str) -> "Module":
        """The sub-network at a path.

        Raises:
            FormatError: there is none.
        """
        module = self
        for name in names:
            child = module.children.get(name)
            if not isinstance(child, Module):
                raise FormatError(f"has no network {'.'.join(names)}; give a StyleGAN2 pickle")
            module = child
        return module


def _module(budget: Budget, meta: Any) -> Module:
    """What `_reconstruct_persistent_obj` stands for; what it copies is counted as work."""
    state = meta.get("state") if isinstance(meta, dict) else None
    if not isinstance(state, dict) or meta.get("type") != "class":
        raise UnsafeFileError("it describes a network in an unknown way")
    children: dict[str, Any] = {}
    for group in ("_parameters", "_buffers", "_modules"):
        held = state.get(group) or {}
        if not isinstance(held, dict):
            raise UnsafeFileError(f"its network's {group} are no dictionary")
        budget.operate(len(held))
        children |= {str(k): v for k, v in held.items() if isinstance(v, (StoredTensor, Module))}
    budget.operate(len(state))
    settings = {str(k): number(v) for k, v in state.items() if not str(k).startswith("_")}
    return Module(str(meta.get("class_name")), children, settings)


def _makers(budget: Budget) -> dict[str, Maker | None]:
    def storage(data: Any) -> Storage:
        if not isinstance(data, bytes):
            raise UnsafeFileError("it reads a tensor from something other than bytes")
        mere_names = {**STORAGES, "collections OrderedDict": mapping}
        found = read_stream(memoryview(data), io.BytesIO(data), budget, mere_names)
        if not isinstance(found, Storage):
            raise UnsafeFileError("it has something other than numbers where a tensor's belong")
        return found

    return {
        **basic_makers(budget),
        "torch.storage _load_from_bytes": storage,
        "torch_utils.persistence _reconstruct_persistent_obj": lambda meta, *_: _module(budget, meta),
        "dnnlib.util EasyDict": mapping,
        "dnnlib.tflib.network Network": record("dnnlib.tflib.network.Network"),
    }


def read_pickle(view: memoryview, stream: Stream) -> Any:
    """What a snapshot holds: a dictionary with a `Module` under "G_ema" and others, or a tuple of records."""
    budget = Budget(len(view))
    return Machine(_makers(budget), budget).run(stream)
