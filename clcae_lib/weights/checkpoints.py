"""Read and write this project's weights, cards and training states.

Weights are safetensors files: numbers and one JSON text, no code. The text has the network's `kind` and
`config`, its constructor's arguments, so that the file is enough to rebuild the network. A card in the same
folder records the training and the digests of the files that it was trained on. The state of an unfinished
training is a torch file, read with `weights_only=True`, which refuses everything except tensors and plain
containers. (The published code's format is a pickle.)

Functions that read a file raise FileNotFoundError if it is missing, and `WeightsError` if it is damaged or
does not fit.
"""

import errno
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clcae_lib.errors import ClcaeError, MissingFileError
from clcae_lib.files import atomic_path, sha256, write_text

KEY = "clcae"
#: Errors that libraries raise for a damaged file.
DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError),
    *(TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile),
)
Network = TypeVar("Network", bound=nn.Module)
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.randn)
_MADE = 10
"""Largest number of created tensors per tensor of the file; this project's networks create 1 to 2."""


class WeightsError(ClcaeError, ValueError):
    """A file of weights, a card or a state is damaged or does not fit; the message names it."""


class UnsafeFileError(WeightsError):
    """A file needs more than data, or more memory than its size justifies; no code in it was run."""


def _narrow(name: str, tensor: Tensor, path: Path | str) -> Tensor:
    """Return tensors of two or more dimensions in half precision, and vectors, which are small, unchanged."""
    if not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    narrow = tensor.half()
    if not torch.equal(torch.isfinite(narrow), torch.isfinite(tensor)):
        raise WeightsError(f"{path}: {name} exceeds the range of half precision; save it with half=False")
    return narrow


def save_weights(
    path: Path | str, tensors: dict[str, Tensor], *, metadata: dict[str, Any], half: bool = True
) -> Path:
    """Write tensors and metadata as one safetensors file, completely or not at all, and return its path.

    Args:
        metadata: JSON values, usually including `kind` and `config`.
        half: whether tensors of two or more dimensions are stored as float16.

    Raises:
        ValueError: a value does not fit half precision.
    """
    ready = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        ready[name] = (_narrow(name, tensor, path) if half else tensor).contiguous().clone()
    with atomic_path(path) as partial:  # `save_file` would create a file that only its owner may read
        partial.write_bytes(safetensors.torch.save(ready, metadata={KEY: json.dumps(metadata)}))
    return Path(path)


def load_weights(path: Path | str, *, kind: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a safetensors file, in float32, and its metadata.

    Args:
        kind: required kind in its metadata; None accepts any.
    """
    tensors, metadata = read_safetensors(path)
    found = metadata.get("kind")
    if kind is not None and found != kind:
        held = f'{path} holds the weights of "{str(found)[:80]}"'
        raise WeightsError(f'{held}, not of "{kind}"; give another file')
    return {k: t.float() if t.is_floating_point() else t for k, t in tensors.items()}, metadata


def read_metadata(path: Path | str) -> dict[str, Any]:
    """Return the metadata of a safetensors file; empty if `save_weights` did not write it."""
    return read_safetensors(path, tensors=False)[1]


def read_safetensors(path: Path | str, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a safetensors file, in their stored types, and its metadata."""
    _require(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(KEY, "{}"))
            names = file.keys() if tensors else ()
            found = {name: file.get_tensor(name) for name in names}
    except (safetensors.SafetensorError, json.JSONDecodeError, RecursionError) as error:
        raise WeightsError(
            f"{path} is not a safetensors file or is damaged ({error}); fetch it again"
        ) from error
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path} is damaged (its metadata are not a dictionary); fetch it again")
    return found, metadata


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path | str) -> None:
    """Copy tensors into a module whose names and shapes must agree exactly.

    Raises:
        ValueError: tensors are missing, unexpected, of another shape, integers instead of weights, or not
            finite; the message names them, and the module does not change.
    """
    _require_fit(module, tensors, source=source)
    module.load_state_dict(tensors)


def _require_fit(module: nn.Module, tensors: Mapping[str, Tensor], *, source: Path | str) -> None:
    """Raise an error for tensors that a module, which may be on the device `meta`, cannot load."""
    own = module.state_dict()
    differing = [
        f"{name}: {_shape(tensors.get(name))} in the file, {_shape(own.get(name))} expected"
        for name in sorted(own.keys() | tensors.keys())
        if _shape(own.get(name)) != _shape(tensors.get(name))
    ]
    if differing:
        more = f"; and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise WeightsError(
            f"{source} has {len(differing)} tensor(s) that do not fit {type(module).__name__}: "
            f"{'; '.join(differing[:8])}{more}"
        )
    for name, tensor in tensors.items():
        if own[name].is_floating_point() and not tensor.is_floating_point():
            kind = f"{source} has integers ({tensor.dtype}) in {name}"
            raise WeightsError(f"{kind} instead of weights; save them in float32")
    require_finite(tensors, source=source)


def require_finite(tensors: Mapping[str, Tensor], *, source: Path | str) -> None:
    """Raise an error for tensors with values that are not finite; it names `source` and the tensor."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{source} has values that are not finite in {name}; use another file")


def _shape(tensor: Tensor | None) -> str:
    return "none" if tensor is None else str(list(tensor.shape))


def build(make: Callable[[], Network], tensors: Mapping[str, Tensor], *, source: Path | str) -> Network:
    """Return the network that `make` builds, with copies of these tensors, frozen, in evaluation mode.

    It is first built on the device `meta` and compared with the tensors, so that a file cannot cause the
    allocation of more memory than its tensors have, or of many more layers. No initial weights are drawn, so
    the random state of the process does not change.

    Args:
        make: function that builds the network on the default device.
        source: origin of the tensors, for messages.

    Raises:
        ValueError: the tensors do not fit, see `load_into`, or the file's configuration builds no network.
    """
    with Undrawn():
        try:
            with torch.device("meta"), _FewTensors(_MADE * (len(tensors) + 10)):
                plan = make()
        except DAMAGE as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            message = f"{source} has a config that builds no network ({reason[:200]}); fetch it again"
            raise WeightsError(message) from error
        _require_fit(plan, tensors, source=source)
        network = make()
    network.load_state_dict(tensors)
    return network.requires_grad_(False).eval()


class _FewTensors(TorchFunctionMode):
    """Refuses networks that create more tensors than `limit`, since a config could have a million layers."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.left = limit

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.left -= func in _FACTORIES
        if func in _FACTORIES and self.left < 0:  # not at other calls, such as the end of torch.no_grad
            raise ValueError("it has many more layers than the file")
        return func(*args, **(kwargs or {}))


class Undrawn(TorchFunctionMode):
    """Returns zeros instead of random numbers, in this thread only.

    Uninitialised memory is not enough: `trunc_normal_` draws again until all numbers are within its bounds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn:
            return torch.zeros(*args, **kwargs)
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0].zero_()
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def save_state(path: Path | str, state: dict[str, Any]) -> Path:
    """Write a training's state (tensors, numbers, texts and containers of them) completely or not at all.

    Raises:
        OSError: for example, the disk is full; the message names the file, which is unchanged.
    """
    with atomic_path(path) as partial:
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
        except RuntimeError as error:  # torch's writer fails a second time when it is closed
            if isinstance(disk := error.__context__, OSError):
                raise OSError(disk.errno, disk.strerror, str(path)) from error
            raise
    return Path(path)


def load_state(path: Path | str) -> dict[str, Any]:
    """Return a state that `save_state` wrote, on the CPU.

    In contrast to torch, this function verifies the checksums of the archive.
    """
    _require(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type for member in archive.infolist()):
                raise zipfile.BadZipFile("it is compressed")
            if name := archive.testzip():
                raise zipfile.BadZipFile(f"{name} has another checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"it is a {type(state).__name__}")
        return state
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a negative position
            raise
        refusal = f"{path} is damaged or holds more than plain data; delete it to start from scratch"
        raise WeightsError(f"{refusal} ({str(error).partition(chr(10))[0][:200]})") from error


def _card_path(weights_path: Path | str) -> Path:
    return Path(weights_path).with_suffix(".json")


def write_card(weights_path: Path | str, card: dict[str, Any]) -> Path:
    """Write the card of a weights file to its folder, with the file's digest added, and return its path.

    `card["trained_on"]` maps the names of the files that this one was trained on to their digests, which
    `check_chain` verifies.
    """
    _require(weights_path)
    path = _card_path(weights_path)
    text = json.dumps({**card, "sha256": sha256(weights_path)}, indent=2, sort_keys=True)
    return write_text(path, text + "\n")


def read_card(weights_path: Path | str) -> dict[str, Any]:
    """Return the card of a weights file."""
    path = _card_path(weights_path)
    _require(path)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not valid JSON ({error}); write it again with write_card") from error
    if not isinstance(card, dict) or not isinstance(card.get("trained_on", {}), dict):
        raise WeightsError(f"{path} is not a card, a JSON object; write it again with write_card")
    if any(len(name) > 100 or Path(name).name != name for name in card.get("trained_on", {})):
        raise WeightsError(f"{path}: trained_on has an invalid file name; write it again with write_card")
    return card


def trained_on(card: dict[str, Any]) -> dict[str, str]:
    """Return the digests of the files that a card's weights were trained on, by file name.

    Older cards name this project's files without `.safetensors`.
    """
    parents = card.get("trained_on", {})
    return {name if Path(name).suffix else f"{name}.safetensors": digest for name, digest in parents.items()}


def check_chain(folder: Path | str) -> list[str]:
    """Return the faults of the cards of a folder's weights; empty if there are none.

    Every `.safetensors` file needs a card with its digest. Every file in the card's `trained_on` must exist
    with the given digest, in the folder or in that of the networks that worlds share.
    """
    problems = []
    for weights in sorted(Path(folder).glob("*.safetensors")):
        try:
            problems += _faults(weights)
        except (WeightsError, OSError) as error:  # the other cards are still checked
            problems.append(str(error))
    return problems


def _faults(weights: Path) -> Iterator[str]:
    """Yield the faults of the card of a weights file."""
    _require(weights)
    if not _card_path(weights).is_file():
        yield f"{weights.name} has no card"
        return
    card = read_card(weights)
    if card.get("sha256") != sha256(weights):
        yield f"{weights.name} is not the file its card describes"
    for name, digest in trained_on(card).items():
        places = [place for place in _places(weights.parent, name) if place.is_file()]
        if not places:
            yield f"{weights.name} was trained on {name}, which is missing"
        elif digest not in map(sha256, places):
            yield f"{weights.name} was trained on another {name}; train it again"


def _places(folder: Path, name: str) -> list[Path]:
    """Return the possible paths of a file that weights in `folder` were trained on."""
    if (folder / name).is_file():
        return [folder / name]
    if name.endswith(".safetensors"):  # an older card's "stylegan2" is stylegan2.pt
        return [folder / f"{Path(name).stem}{suffix}" for suffix in (".pt", ".pth")]
    shared = [folder / "contrastive", *sorted(folder.parent.iterdir())]
    return [place / name for place in shared]


def _require(path: Path | str) -> None:
    if not Path(path).is_file():
        raise MissingFileError(f"{path} does not exist; give the path of a file, or train or fetch it first")
