"""`clcae convert`: a recognised file in this project's own format, checked before it takes its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from clcae_lib import checkpoints
from clcae_lib.editing.direction import directions_metadata, interfacegan_direction
from clcae_lib.files import atomic_path, sha256
from clcae_lib.formats import nvidia
from clcae_lib.formats._errors import FormatError, reading
from clcae_lib.formats._stored import require_finite
from clcae_lib.formats.contents import Contents, read_contents
from clcae_lib.formats.recognise import Recognised, recognise
from clcae_lib.formats.shapes import Tensors, generator_config, require_layout, under
from clcae_lib.models import Generator, PublishedEncoder, PublishedImageEncoder, PublishedLatentEncoder
from clcae_lib.models.arcface import ArcFace
from clcae_lib.models.published import CAR_HEIGHT

Parts = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors of a safetensors file, and its metadata."""


def convert_file(
    source: Path | str,
    target: Path | str,
    *,
    half: bool = False,
    force: bool = False,
    part: str | None = None,
) -> Path:
    """Write a weights file of a known layout as this project's safetensors, with a card; return its path.

    What was written is read again and compared before it takes the target's place.

    Args:
        source: StyleGAN2 `.pt` or `.pkl`, a CLCAE checkpoint, an encoder of alignment, IR-SE50, MoCo v2, an
            InterFaceGAN direction or GANSpace's components.
        target: a `.safetensors` file.
        half: store matrices as float16.
        force: replace a file that is there.
        part: of an inversion checkpoint, "encoder" (the default) or "generator".

    Raises:
        FileNotFoundError: there is no such source.
        FormatError: it is unsafe, damaged, or of a kind that is not converted; or the target is taken.
    """
    source, target = Path(source), Path(target)
    _require_target(source, target, force=force)
    contents = read_contents(source)
    with reading(source):
        tensors, metadata = _convert(contents, part)
        require_finite(tensors)
        if half:
            _require_range(tensors)
    digest = sha256(source)
    metadata |= {"converted_from": {"file": source.name, "sha256": digest}}
    with atomic_path(target) as partial:
        checkpoints.save_weights(partial, tensors, metadata=metadata, half=half)
        _verify(partial, tensors, metadata, half=half)
    checkpoints.write_card(
        target, {"kind": metadata["kind"], "converted_from": {"file": source.name, "sha256": digest}}
    )
    return target


def _require_target(source: Path, target: Path, *, force: bool) -> None:
    if target.suffix != ".safetensors":
        raise FormatError(f"{target}: the target's name must end in .safetensors")
    if target.exists() and source.exists() and target.samefile(source):
        raise FormatError(f"{target} is the source itself; give another target")
    taken = [path for path in (target, target.with_suffix(".json")) if path.exists()]
    if taken and not force:
        raise FormatError(f"{taken[0]} exists; give another target, or replace it with --force")


def _require_range(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.ndim > 1 and not bool(torch.isfinite(tensor.half()).all()):
            raise FormatError(f"has numbers in {name} that exceed half precision; leave --half out")


def _convert(contents: Contents, part: str | None) -> Parts:
    found = recognise(contents)
    if found.kind.key not in _CONVERTERS:
        raise FormatError(f"is {found.kind.title}, which is not converted; it fits {found.kind.fits}")
    if part is not None and found.kind.key != "inversion_checkpoint":
        raise FormatError(f"is {found.kind.title} and has no parts; leave --part out")
    if part not in (None, "encoder", "generator"):
        raise FormatError(f'has the parts "encoder" and "generator", not {part!r}')
    if part == "generator":
        return _generator(contents, found, prefix="decoder.")
    return _CONVERTERS[found.kind.key](contents, found)


def _load(tensors: Tensors) -> dict[str, Tensor]:
    loaded = {name: tensor.load() for name, tensor in tensors.items()}
    return {name: t.float() if t.is_floating_point() else t for name, t in loaded.items()}


def _generator(contents: Contents, found: Recognised, prefix: str = "") -> Parts:
    """A StyleGAN2 `.pt`, or the decoder of an inversion checkpoint, whose mean code is then measured."""
    stored = under(found.tensors, prefix)
    config = generator_config(stored)
    with torch.device("meta"):
        require_layout(Generator(**config), stored)
    generator = Generator(**config).requires_grad_(False).eval()
    checkpoints.load_into(generator, _load(stored), source=contents.path)
    generator.measure_w()
    mean = contents.tensors.get("latent_avg")
    if mean is not None and not prefix:
        generator.w_avg.copy_(mean.load().float().flatten())
        return _with_statistics(generator, "from the file")
    return _with_statistics(generator, "measured")


def _with_statistics(generator: Generator, origin: str) -> Parts:
    tensors = {**generator.state_dict(), "w_avg": generator.w_avg, "w_std": generator.w_std}
    return tensors, {"kind": "generator", "config": generator.config, "w_avg": origin}


def _snapshot(contents: Contents, found: Recognised) -> Parts:
    network = nvidia.find_generator(contents.tree)
    tensors, metadata = _with_statistics(nvidia.to_generator(network), "from the file")
    return tensors, metadata | {"nvidia": nvidia.facts(network)}


def _inversion(contents: Contents, found: Recognised) -> Parts:
    config = found.facts["config"]
    if found.facts.get("domain") == "cars":
        config = config | {"height": CAR_HEIGHT * min(config["resolution"], 256) // 256}
    with torch.device("meta"):
        encoder = PublishedEncoder(**config)
    stored = under(found.tensors, "encoder.")
    require_layout(encoder, stored)
    said = {name: found.facts[name] for name in ("domain", "steps") if name in found.facts}
    return _load(stored), {"kind": "inversion", "preset": "published", "config": config, **said}


def _plain(kind: str, network: type[nn.Module] | None = None) -> Callable[[Contents, Recognised], Parts]:
    """A converter of networks that keep their names, compared with the network that reads them."""

    def convert(contents: Contents, found: Recognised) -> Parts:
        config = found.facts["config"]
        if network is not None:
            with torch.device("meta"):
                require_layout(network(**config), found.tensors)
        return _load(found.tensors), {"kind": kind, "config": config}

    return convert


def _moco(contents: Contents, found: Recognised) -> Parts:
    """The query encoder under torchvision's names; the key encoder and the queue serve training only."""
    return _load(under(found.tensors, "encoder_q.")), {"kind": "moco", "config": found.facts["config"]}


def _direction(contents: Contents, found: Recognised) -> Parts:
    direction = interfacegan_direction(contents.tree.load(), contents.path)
    directions = {direction.name: direction}
    return {direction.name: direction.vector}, directions_metadata(directions)


def _components(contents: Contents, found: Recognised) -> Parts:
    tensors = _load({name: found.tensors[name] for name in ("mean", "comp", "std")})
    return tensors, {"kind": "components"}


_CONVERTERS: dict[str, Callable[..., Parts]] = {
    "generator": _generator,
    "nvidia": _snapshot,
    "nvidia_tensorflow": _snapshot,
    "inversion_checkpoint": _inversion,
    "contrastive_image": _plain("contrastive_image", PublishedImageEncoder),
    "contrastive_latent": _plain("contrastive_latent", PublishedLatentEncoder),
    "arcface": _plain("arcface", ArcFace),
    "moco": _moco,
    "direction": _direction,
    "components": _components,
}


def _verify(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any], *, half: bool) -> None:
    """Read a written file again and compare every number.

    Raises:
        FormatError: something differs.
    """
    said = checkpoints.read_metadata(path)
    with safetensors.safe_open(path, framework="pt") as file:
        same = set(file.keys()) == tensors.keys() and said == _through_json(metadata)
        for name, tensor in tensors.items():
            narrow = half and tensor.is_floating_point() and tensor.ndim > 1
            if not same or not torch.equal(file.get_tensor(name), tensor.half() if narrow else tensor):
                raise FormatError(f"{path}: {name} was not written as it should be; check the disk")


def _through_json(value: Any) -> Any:
    """A value as JSON gives it back: keys become texts, tuples lists."""
    if isinstance(value, dict):
        return {str(key): _through_json(item) for key, item in value.items()}
    return [_through_json(item) for item in value] if isinstance(value, (list, tuple)) else value
