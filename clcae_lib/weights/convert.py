"""Inspect weights files, and convert networks and published directions to this project's format.

Published directions are InterFaceGAN's arrays, SeFa's factors and GANSpace's components.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from clcae_lib.files import atomic_path, sha256
from clcae_lib.models import (
    ArcFace,
    PublishedHfgi,
    PublishedImageEncoder,
    PublishedLatentEncoder,
    PublishedPeer,
)
from clcae_lib.weights import checkpoints, nvidia
from clcae_lib.weights.build import encoder_of, generator_of, mean_code
from clcae_lib.weights.checkpoints import WeightsError
from clcae_lib.weights.layouts import HFGI, Recognised, peer_encoder, recognise, under
from clcae_lib.weights.read import Contents, naming, read_weights

Parts = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors of a safetensors file, and its metadata."""


def inspect_file(path: Path | str) -> dict[str, Any]:
    """Return a description of a weights file in JSON values, without running code or reading its numbers.

    `kind` is the kind's name for programs and `what` its name for people, `container` the format of the file,
    and `fits` the commands and functions that use it. `resolution` is the side of the images in pixels and
    `style_dim` the length of a code, if the kind has them; `details` has other settings and sizes.
    """
    contents = read_weights(path)
    found = recognise(contents)
    facts = dict(found.facts)
    return {
        "file": str(path),
        "kind": found.kind,
        "what": found.about.title,
        "container": contents.container,
        "tensors": len(contents.tensors),
        "parameters": sum(math.prod(tensor.shape) for tensor in contents.tensors.values()),
        "bytes": contents.path.stat().st_size,
        "sha256": sha256(path),
        "resolution": facts.pop("resolution", None),
        "style_dim": facts.pop("style_dim", None),
        "fits": found.about.fits,
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

    The new file is read again and compared before it replaces the target.

    Args:
        source: StyleGAN2 `.pt` or `.pkl`, a CLCAE checkpoint, an encoder of alignment, IR-SE50, MoCo v2, or
            directions of InterFaceGAN, SeFa or GANSpace.
        half: whether matrices are stored as float16.
        part: part of a checkpoint with an encoder and a generator: "encoder" (the default) or "generator".

    Raises:
        FileNotFoundError: the source does not exist.
        WeightsError: it is unsafe, damaged, or of a kind that is not converted; or the target exists.
    """
    source, target = Path(source), Path(target)
    _require_target(source, target, force=force)
    contents = read_weights(source)
    with naming(source):
        contents.verify()
        tensors, metadata = _convert(contents, part)
        checkpoints.require_finite(tensors, source=source)
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
    """Read a written file again, and raise an error if a number differs."""
    with safetensors.safe_open(path, framework="pt") as file:
        for name, tensor in tensors.items():
            narrow = half and tensor.is_floating_point() and tensor.ndim > 1
            if not torch.equal(file.get_tensor(name), tensor.half() if narrow else tensor):
                raise WeightsError(f"{path}: {name} was not written correctly; check the disk")


def _convert(contents: Contents, part: str | None) -> Parts:
    found = recognise(contents)
    if found.kind not in _CONVERTERS:
        raise WeightsError(f"is {found.about.title}, which is not converted; it fits {found.about.fits}")
    parts = _CONVERTERS[found.kind]
    part = next(iter(parts)) if part is None else part
    if part not in parts:
        raise WeightsError(f"is {found.about.title} and has no part {part!r}; leave --part out")
    return parts[part](contents, found)


def _generator(contents: Contents, found: Recognised) -> Parts:
    generator, snapshot = generator_of(contents), nvidia.find_generator(contents.tree)
    tensors = {**generator.state_dict(), "w_avg": generator.w_avg, "w_std": generator.w_std}
    known = snapshot is not None or "latent_avg" in contents.tensors
    metadata = {"kind": "generator", "config": generator.config}
    metadata |= {"w_avg": "from the file" if known else "measured"}
    return tensors, metadata | ({} if snapshot is None else {"nvidia": nvidia.facts(snapshot)})


def _inversion(contents: Contents, found: Recognised) -> Parts:
    """Return CLCAE's encoder of an official checkpoint, without its generator."""
    encoder = encoder_of(found, found.facts.get("domain", "faces"), source=contents.path)
    training = {name: found.facts[name] for name in ("domain", "steps") if name in found.facts}
    metadata = {"kind": "inversion", "preset": "published", "config": encoder.config, **training}
    return encoder.state_dict(), metadata


def _peer(contents: Contents, found: Recognised) -> Parts:
    """Return the encoder of an official pSp, e4e, ReStyle or HFGI, with the mean code."""
    if "config" not in found.facts:
        raise WeightsError(
            "has an encoder whose backbone is neither IR-SE nor a ResNet; only its generator is used here"
        )
    if "latent_avg" not in contents.tensors:
        raise WeightsError("has no latent_avg, the mean code of its encoder; use a complete checkpoint")
    tensors = peer_encoder(found.tensors) | {"w_avg": mean_code(contents.tensors["latent_avg"])}
    config, kind = found.facts["config"], PublishedPeer
    if found.facts["method"] == "hfgi":
        kind, tensors = PublishedHfgi, {f"base.{name}": tensor for name, tensor in tensors.items()}
        tensors |= {name: t for name, t in found.tensors.items() if name.startswith(HFGI)}
    made = checkpoints.build(lambda: kind(**config), tensors, source=contents.path)
    first = [round(float(number), 4) for number in found.tensors["decoder.input.input"].flatten()[:8]]
    metadata = {"kind": "peer", "preset": "published", "method": found.facts["method"], "config": made.config}
    return made.state_dict(), metadata | {"generator_begins": first}


def _plain(network: Any) -> Callable[[Contents, Recognised], Parts]:
    """Return a converter of networks that keep their names."""

    def convert(contents: Contents, found: Recognised) -> Parts:
        config = found.facts["config"]
        made = checkpoints.build(lambda: network(**config), found.tensors, source=contents.path)
        return made.state_dict(), {"kind": found.kind, "config": config}

    return convert


def _moco(contents: Contents, found: Recognised) -> Parts:
    """Return the query encoder in torchvision's names; key encoder and queue are only for training."""
    tensors = {name: tensor.float() for name, tensor in under(found.tensors, "encoder_q.").items()}
    return tensors, {"kind": "moco", "config": found.facts["config"]}


def _directions(contents: Contents, found: Recognised) -> Parts:
    """Return directions `[D]` or `[L, D]` with the other fields of an `editing.Direction`.

    Equal rows become one vector. The published code of InterFaceGAN reads only row 0, so its result is the
    same.
    """
    rows = {
        name: tensor.float().reshape(-1, tensor.shape[-1]).clone() for name, tensor in found.tensors.items()
    }
    vectors = {name: v[0] if bool((v == v[0]).all()) else v for name, v in rows.items()}
    method = "sefa" if found.kind == "sefa" else "interfacegan"
    facts = {"unit": 1.0, "layers": None, "provenance": {"method": method, "file": contents.path.name}}
    details = {n: {"name": n, "space": "w" if v.ndim == 1 else "w_plus", **facts} for n, v in vectors.items()}
    return vectors, {"kind": "directions", "directions": details}


def _components(contents: Contents, found: Recognised) -> Parts:
    _require_components(found.tensors)
    tensors = {name: tensor.float().clone() for name, tensor in found.tensors.items()}
    return tensors, {"kind": "components"}


def _require_components(tensors: Mapping[str, Tensor]) -> None:
    mean, comp, std = (tensors[name].numel() if name in tensors else 0 for name in ("mean", "comp", "std"))
    if not comp or comp != std * mean:
        raise WeightsError("has components whose mean, directions and deviations differ in size")


def read_as(path: Path | str, kind: str) -> Parts:
    """Return the content of a file, converted as by `clcae convert` to this kind, such as "directions".

    Floating-point tensors are in float32.

    Raises:
        FileNotFoundError: the file does not exist.
        WeightsError: it is unsafe, damaged or of another kind, or has numbers that are not finite.
    """
    contents = read_weights(path)
    with naming(path):
        contents.verify()
        own = "kind" in contents.metadata
        tensors, metadata = (contents.tensors, contents.metadata) if own else _convert(contents, None)
        if metadata["kind"] != kind:
            raise WeightsError(f"holds {str(metadata['kind'])[:80]!r}, not {kind!r}; give another file")
        if kind == "components":
            _require_components(tensors)
        tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
        checkpoints.require_finite(tensors, source=path)
    return tensors, metadata


_WHOLE = {"generator": _generator}
_CONVERTERS: dict[str, dict[str | None, Callable[[Contents, Recognised], Parts]]] = {
    **dict.fromkeys(("generator", "nvidia", "nvidia_tensorflow", "nvidia_stylegan3"), _WHOLE),
    "inversion_checkpoint": {"encoder": _inversion, **_WHOLE},
    "peer_checkpoint": {"encoder": _peer, **_WHOLE},
    "contrastive_image": {None: _plain(PublishedImageEncoder)},
    "contrastive_latent": {None: _plain(PublishedLatentEncoder)},
    "arcface": {None: _plain(ArcFace)},
    "moco": {None: _moco},
    **{kind: {None: _directions} for kind in ("direction", "sefa")},
    "components": {None: _components},
}
"""The parts of each kind of file, by name, the default first; a file of one part has no name for it."""
