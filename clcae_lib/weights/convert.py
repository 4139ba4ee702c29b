"""Inspect weights files, and convert networks and published directions to this project's own format.

Published directions are InterFaceGAN's arrays and GANSpace's components.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from clcae_lib.files import atomic_path, sha256
from clcae_lib.models import ArcFace, PublishedImageEncoder, PublishedLatentEncoder
from clcae_lib.weights import checkpoints, nvidia
from clcae_lib.weights.build import encoder_of, generator_of
from clcae_lib.weights.checkpoints import WeightsError
from clcae_lib.weights.layouts import Recognised, recognise, under
from clcae_lib.weights.read import Contents, naming, read_weights

Parts = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors of a safetensors file, and its metadata."""


def inspect_file(path: Path | str) -> dict[str, Any]:
    """Return a description of a weights file in JSON values; nothing in it is run, no number is read.

    `kind` is a name for programs, `what` the same for people, `container` the format of the file, and `fits`
    the commands and functions that use it. `resolution` is the side of the images in pixels, `style_dim` the
    length of a code, if it has one; `details` are the settings and sizes of its kind.

    Raises:
        FileNotFoundError, WeightsError: see `read_weights`.
    """
    contents = read_weights(path)
    with naming(path):
        found = recognise(contents)
    facts = dict(found.facts)
    return {
        "file": str(path),
        "kind": found.kind,
        "what": found.title,
        "container": contents.container,
        "tensors": len(contents.tensors),
        "parameters": sum(math.prod(tensor.shape) for tensor in contents.tensors.values()),
        "bytes": contents.path.stat().st_size,
        "sha256": sha256(path),
        "resolution": facts.pop("resolution", None),
        "style_dim": facts.pop("style_dim", None),
        "fits": found.fits,
        "details": facts,
    }


def convert_file(
    source: Path | str,
    target: Path | str,
    *,
    half: bool = False,
    force: bool = False,
    part: str | None = None,
) -> Path:
    """Write a weights file of a known layout as this project's safetensors, with a card; return its path.

    The new file is read again and compared before it takes the target's place.

    Args:
        source: StyleGAN2 `.pt` or `.pkl`, a CLCAE checkpoint, an encoder of alignment, IR-SE50, MoCo v2, an
            InterFaceGAN direction or GANSpace's components.
        target: `.safetensors` file.
        half: whether matrices are stored as float16.
        force: whether an existing file is replaced.
        part: part of an inversion checkpoint, "encoder" (the default) or "generator".

    Raises:
        FileNotFoundError: there is no such source.
        WeightsError: it is unsafe, damaged, or of a kind that is not converted; or the target is taken.
    """
    source, target = Path(source), Path(target)
    _require_target(source, target, force=force)
    contents = read_weights(source)
    with naming(source):
        contents.verify()
        tensors, metadata = _convert(contents, part)
        for name, tensor in tensors.items() if half else ():
            if tensor.is_floating_point() and tensor.ndim > 1 and not bool(tensor.half().isfinite().all()):
                raise WeightsError(f"has numbers in {name} that exceed half precision; leave --half out")
    origin = {"converted_from": {"file": source.name, "sha256": sha256(source)}}
    with atomic_path(target) as partial:
        checkpoints.save_weights(partial, tensors, metadata=metadata | origin, half=half)
        _verify(partial, tensors, half=half)
    checkpoints.write_card(target, {"kind": metadata["kind"], **origin})
    return target


def _require_target(source: Path, target: Path, *, force: bool) -> None:
    if target.suffix != ".safetensors":
        raise WeightsError(f"{target}: the target's name must end in .safetensors")
    if target.exists() and source.exists() and target.samefile(source):
        raise WeightsError(f"{target} is the source itself; give another target")
    taken = [path for path in (target, target.with_suffix(".json")) if path.exists()]
    if taken and not force:
        raise WeightsError(f"{taken[0]} exists; give another target, or replace it with --force")


def _verify(path: Path, tensors: dict[str, Tensor], *, half: bool) -> None:
    """Read a written file again and compare every number."""
    with safetensors.safe_open(path, framework="pt") as file:
        for name, tensor in tensors.items():
            narrow = half and tensor.is_floating_point() and tensor.ndim > 1
            if not torch.equal(file.get_tensor(name), tensor.half() if narrow else tensor):
                raise WeightsError(f"{path}: {name} was not written as it should be; check the disk")


def _convert(contents: Contents, part: str | None) -> Parts:
    found = recognise(contents)
    if found.kind not in _CONVERTERS:
        raise WeightsError(f"is {found.title}, which is not converted; it fits {found.fits}")
    if part is not None and found.kind != "inversion_checkpoint":
        raise WeightsError(f"is {found.title} and has no parts; leave --part out")
    if part not in (None, "encoder", "generator"):
        raise WeightsError(f'has the parts "encoder" and "generator", not {part!r}')
    return (_generator if part == "generator" else _CONVERTERS[found.kind])(contents, found)


def _generator(contents: Contents, found: Recognised) -> Parts:
    generator, snapshot = generator_of(contents), nvidia.find_generator(contents.tree)
    tensors = {**generator.state_dict(), "w_avg": generator.w_avg, "w_std": generator.w_std}
    known = snapshot is not None or (found.kind == "generator" and "latent_avg" in contents.tensors)
    metadata = {"kind": "generator", "config": generator.config}
    metadata |= {"w_avg": "from the file" if known else "measured"}
    return tensors, metadata | ({} if snapshot is None else {"nvidia": nvidia.facts(snapshot)})


def _inversion(contents: Contents, found: Recognised) -> Parts:
    encoder = encoder_of(found, found.facts.get("domain", "faces"), source=contents.path)
    said = {name: found.facts[name] for name in ("domain", "steps") if name in found.facts}
    metadata = {"kind": "inversion", "preset": "published", "config": encoder.config, **said}
    return encoder.state_dict(), metadata


def _plain(network: Any) -> Callable[[Contents, Recognised], Parts]:
    """Return a converter of networks that keep their names."""

    def convert(contents: Contents, found: Recognised) -> Parts:
        config = found.facts["config"]
        made = checkpoints.build(lambda: network(**config), found.tensors, source=contents.path)
        return made.state_dict(), {"kind": found.kind, "config": config}

    return convert


def _moco(contents: Contents, found: Recognised) -> Parts:
    """Return the query encoder under torchvision's names; key encoder and queue serve training only."""
    tensors = {name: tensor.float() for name, tensor in under(found.tensors, "encoder_q.").items()}
    checkpoints.require_finite(tensors, source=contents.path)
    return tensors, {"kind": "moco", "config": found.facts["config"]}


def _direction(contents: Contents, _: Recognised) -> Parts:
    vector = direction_of(contents)
    details = direction_details(contents.path, vector)
    return {details["name"]: vector}, {"kind": "directions", "directions": {details["name"]: details}}


def load_direction(path: Path | str) -> tuple[Tensor, dict[str, Any]]:
    """Return InterFaceGAN's direction in a file, `[D]` or `[L, D]`, and the other fields of a `Direction`.

    Raises:
        FileNotFoundError, WeightsError: the file is missing, unsafe, damaged or holds something else.
    """
    contents = read_weights(path)
    with naming(path):
        vector = direction_of(contents)
    return vector, direction_details(path, vector)


def load_components(path: Path | str) -> dict[str, Tensor]:
    """Return GANSpace's `mean [1, D]`, `comp [K, 1, D]` and `std [K]`, of a published or converted file.

    Raises:
        FileNotFoundError, WeightsError: the file is missing, unsafe, damaged or holds something else.
    """
    contents = read_weights(path)
    with naming(path):
        return components_of(contents)


def direction_of(contents: Contents) -> Tensor:
    """Return the direction of an array `[1, D]` or `[1, L, D]`; equal rows become one vector.

    The published code reads row 0 only, which is then the same.
    """
    contents.verify()
    array = contents.tensors.get("")
    if array is None or array.ndim not in (2, 3) or len(array) != 1 or not array.numel():
        raise WeightsError("does not hold an array [1, D] or [1, L, D], the layout of InterFaceGAN")
    vector = array[0].float().clone()
    checkpoints.require_finite({"the direction": vector}, source=contents.path)
    return vector[0] if vector.ndim == 2 and bool((vector == vector[0]).all()) else vector


def direction_details(path: Path | str, vector: Tensor) -> dict[str, Any]:
    """Return the fields of an `editing.Direction` but its vector, for one of InterFaceGAN's."""
    provenance = {"method": "interfacegan", "file": Path(path).name}
    space = "w" if vector.ndim == 1 else "w_plus"
    return {"name": Path(path).stem, "space": space, "unit": 1.0, "layers": None, "provenance": provenance}


def components_of(contents: Contents) -> dict[str, Tensor]:
    """Return GANSpace's components in a file's contents."""
    contents.verify()
    names = ("mean", "comp", "std")
    if not set(names) <= contents.tensors.keys() or contents.metadata.get("kind") not in (None, "components"):
        raise WeightsError('does not hold "mean", "comp" and "std", as GANSpace publishes')
    tensors = {name: contents.tensors[name].float().clone() for name in names}
    checkpoints.require_finite(tensors, source=contents.path)
    if tensors["comp"].numel() != tensors["std"].numel() * tensors["mean"].numel():
        raise WeightsError("has components whose mean, directions and deviations differ in size")
    return tensors


_CONVERTERS: dict[str, Callable[[Contents, Recognised], Parts]] = {
    **dict.fromkeys(("generator", "nvidia", "nvidia_tensorflow", "nvidia_stylegan3"), _generator),
    "inversion_checkpoint": _inversion,
    "contrastive_image": _plain(PublishedImageEncoder),
    "contrastive_latent": _plain(PublishedLatentEncoder),
    "arcface": _plain(ArcFace),
    "moco": _moco,
    "direction": _direction,
    "components": lambda contents, _: (components_of(contents), {"kind": "components"}),
}
