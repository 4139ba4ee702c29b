"""Networks from weights files of any layout that is known here, frozen, in evaluation mode.

Sizes are read off the tensors and checked on the device `meta` before a network takes memory. Each function
raises FileNotFoundError or `WeightsError` where a file is missing, unsafe, damaged, or does not fit.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcae_lib.images import CAR_HEIGHT
from clcae_lib.models import (
    ArcFace,
    Generator,
    MocoFeatures,
    PublishedEncoder,
    PublishedImageEncoder,
    PublishedLatentEncoder,
)
from clcae_lib.models.published import mean_image
from clcae_lib.weights import nvidia
from clcae_lib.weights._errors import WeightsError, naming
from clcae_lib.weights._inert import Module
from clcae_lib.weights.checkpoints import build, require_finite
from clcae_lib.weights.layouts import (
    TITLES,
    Recognised,
    Tensors,
    find_network,
    generator_config,
    recognise,
    under,
)
from clcae_lib.weights.networks import load_encoder
from clcae_lib.weights.read import Contents, read_weights


def load_generator(path: Path | str, device: torch.device | str = "cpu") -> Generator:
    """Return the StyleGAN2 generator of a file, with the mean `w_avg` and the spread `w_std` of its codes.

    Either is the file's own, or measured where it has none.

    Args:
        path: this project's safetensors, a file of the PyTorch layout, a snapshot of NVIDIA's, or a CLCAE
            checkpoint, which has a generator.
        device: where it runs.
    """
    contents = read_weights(path)
    with naming(path):
        return generator_of(contents).to(device)


def generator_of(contents: Contents) -> Generator:
    """Return the generator in a file's contents."""
    contents.verify()
    snapshot = nvidia.find_generator(contents.tree)
    if snapshot is not None:
        return to_generator(snapshot, source=contents.path)
    found = find_network(contents)
    if found is not None and found.kind == "inversion_checkpoint":
        return _generator(under(found.tensors, "decoder."), {}, source=contents.path)
    tensors = dict(require(contents, "generator").tensors)
    own = {name: tensors.pop(name) for name in ("w_avg", "w_std") if name in tensors}
    if "latent_avg" in contents.tensors:
        own["w_avg"] = _mean_code(contents.tensors["latent_avg"])
    config = contents.metadata.get("config")
    given = config if isinstance(config, dict) else {}
    options = {name: given[name] for name in ("lr_mlp", "blur_kernel") if name in given}
    return _generator(tensors, own, source=contents.path, **options)


def to_generator(network: Module, *, source: Path | str = "the snapshot") -> Generator:
    """Return the generator of a snapshot of NVIDIA's with its `w_avg`, and `w_std` measured."""
    tensors = nvidia.generator_tensors(network)
    own = {"w_avg": tensors.pop("w_avg")}
    return _generator(tensors, own, source=source, lr_mlp=nvidia.mapping_rate(network))


def _generator(
    tensors: Tensors, statistics: Mapping[str, Tensor], *, source: Path | str, **options: Any
) -> Generator:
    config = generator_config(tensors)
    generator = build(lambda: Generator(**config, **options), tensors, source=source)
    require_finite(statistics, source=source)
    for name, value in statistics.items():
        if value.shape != generator.w_avg.shape:
            raise WeightsError(f"has {name} {list(value.shape)}, which is no code [{generator.style_dim}]")
    if len(statistics) < 2:
        generator.measure_w()
    for name, value in statistics.items():
        getattr(generator, name).copy_(value)
    return generator


def _mean_code(value: Tensor) -> Tensor:
    """Return the mean code `[D]`; a file may repeat it for every layer."""
    rows = value.float().reshape(-1, value.shape[-1])
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise WeightsError("has a latent_avg with rows that differ; one mean code is expected")
    return rows[0]


def require(contents: Contents, kind: str) -> Recognised:
    """Return the network of an official layout, which must be of this kind."""
    found = find_network(contents)
    if found is None or found.kind != kind:
        title = (found or recognise(contents)).title
        if title == "unknown":
            title += f" (tensors: {', '.join(sorted(contents.tensors)[:3]) or 'none'})"
        raise WeightsError(f"is {title}; give a file of this kind: {TITLES[kind]}")
    return found


def load_inversion(
    path: Path | str, generator: Generator, *, domain: str = "faces", device: torch.device | str = "cpu"
) -> tuple[nn.Module, Generator]:
    """Return the inversion encoder of a file, attached to its generator, and that generator.

    A CLCAE checkpoint holds a generator of its own, without the mean code: that is taken from `generator`.

    Args:
        path: weights that were trained here, or a CLCAE checkpoint.
        generator: the world's generator.
        domain: "faces", whose encoder reads squares, or "cars", whose reads images of 4 to 3.
        device: where the encoder runs.
    """
    contents = read_weights(path)
    if contents.metadata.get("kind") == "inversion":
        return load_encoder(path, generator, device=device), generator
    with naming(path):
        contents.verify()
        found = require(contents, "inversion_checkpoint")
        encoder = encoder_of(found, domain, source=path)
        mean = {"w_avg": generator.w_avg.cpu()}
        decoder = _generator(under(found.tensors, "decoder."), mean, source=path)
        if decoder.size != generator.size:
            raise WeightsError(f"is for images of {decoder.size} pixels, not of {generator.size}")
    encoder, decoder = encoder.to(device), decoder.to(device)
    encoder.attach(decoder)
    return encoder, decoder


def encoder_of(found: Recognised, domain: str, *, source: Path | str) -> PublishedEncoder:
    """Return the encoder of an inversion checkpoint; no generator is attached to it yet."""
    config = found.facts["config"]
    if domain == "cars":
        config = config | {"height": CAR_HEIGHT * min(config["resolution"], 256) // 256}
    return build(lambda: PublishedEncoder(**config), under(found.tensors, "encoder."), source=source)


def _load(path: Path | str, kind: str, network: type[nn.Module]) -> Any:
    contents = read_weights(path)
    with naming(path):
        contents.verify()
        found = require(contents, kind)
        return build(lambda: network(**found.facts["config"]), found.tensors, source=path)


@torch.no_grad()
def load_contrastive(
    folder: Path | str, generator: Generator, *, height: int | None = None
) -> tuple[PublishedImageEncoder, PublishedLatentEncoder, float]:
    """Return the contrastive pair of a folder as a training takes it: two encoders and their scale.

    Args:
        folder: the folder with the two files, of any names.
        generator: its mean code's image is what the image encoder subtracts.
        height: height of what the training shows of an image where that is not square: 192 for cars.
    """
    kinds = {"contrastive_image": PublishedImageEncoder, "contrastive_latent": PublishedLatentEncoder}
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in (".pt", ".pth", ".safetensors"))
    found: dict[str, list[Path]] = {kind: [] for kind in kinds}
    for path in files:
        with naming(path):
            network = find_network(read_weights(path))
        if network is not None and network.kind in found:
            found[network.kind].append(path)
    if any(len(paths) != 1 for paths in found.values()):
        raise WeightsError(
            f"{folder} has to hold the official image encoder and latent encoder, one file each; it has "
            f"{', '.join(path.name for path in files) or 'none'}"
        )
    image, latent = (_load(found[kind][0], kind, network) for kind, network in kinds.items())
    image.average = mean_image(generator, height).cpu()
    latent.w_avg.copy_(generator.w_avg)
    return image, latent, float(image.logit_scale.exp())


def load_arcface(path: Path | str) -> ArcFace:
    """Return the identity network IR-SE50."""
    return _load(path, "arcface", ArcFace)


def load_moco(path: Path | str) -> MocoFeatures:
    """Return the features of MoCo v2's ResNet-50; its projection head and key encoder are left out."""
    contents = read_weights(path)
    with naming(path):
        contents.verify()
        converted = contents.metadata.get("kind") == "moco"
        tensors = contents.tensors if converted else under(require(contents, "moco").tensors, "encoder_q.")
        kept = {f"net.{name}": tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
        return build(MocoFeatures, kept, source=path)
