"""Build networks from weights files of all known layouts, and write files in this project's layout.

Networks are frozen and in evaluation mode. Sizes are read from the tensors and checked on the device `meta`
before memory is allocated. Functions that read raise FileNotFoundError or `WeightsError` if a file is
missing, unsafe, damaged, or does not fit.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcae_lib.images import CAR_HEIGHT
from clcae_lib.models import (
    ArcFace,
    FeatureEditor,
    Generator,
    MocoFeatures,
    PublishedEncoder,
    PublishedImageEncoder,
    PublishedLatentEncoder,
)
from clcae_lib.models.contrastive import ImageEncoder, LatentEncoder
from clcae_lib.models.foundation import FoundationEncoder
from clcae_lib.models.published import mean_image
from clcae_lib.spaces import num_layers
from clcae_lib.weights import checkpoints, nvidia
from clcae_lib.weights._inert import Module
from clcae_lib.weights.checkpoints import WeightsError, build, require_finite
from clcae_lib.weights.layouts import (
    KINDS,
    Recognised,
    Tensors,
    find_network,
    generator_config,
    recognise,
    under,
)
from clcae_lib.weights.read import Contents, naming, read_weights

_log = logging.getLogger(__name__)
ENCODERS: dict[str, type[nn.Module]] = {"foundation": FoundationEncoder, "published": PublishedEncoder}
"""The class of the inversion encoder of each preset."""


def load_generator(path: Path | str, device: torch.device | str = "cpu") -> Generator:
    """Return the StyleGAN2 generator of a file, with the mean `w_avg` and the spread `w_std` of its codes.

    Both are read from the file, or measured if it has none.

    Args:
        path: this project's safetensors, a file in the PyTorch layout, a snapshot of NVIDIA's, or a CLCAE
            checkpoint, which contains a generator.
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
    inside = {} if found is None else under(found.tensors, "decoder.")
    tensors = inside or dict(require(contents, "generator").tensors)
    own = {name: tensors.pop(name) for name in ("w_avg", "w_std") if name in tensors}
    if "latent_avg" in contents.tensors:
        own["w_avg"] = mean_code(contents.tensors["latent_avg"])
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
    _require_supported(tensors)
    config = generator_config(tensors)
    if not under(tensors, "noises."):
        _log.warning("%s has no noise maps; they are made from a fixed seed, at the file's strengths", source)
        tensors = {**tensors, **_noise_maps(config["size"])}
    generator = build(lambda: Generator(**config, **options), tensors, source=source)
    require_finite(statistics, source=source)
    for name, value in statistics.items():
        if value.shape != generator.w_avg.shape:
            raise WeightsError(f"has {name} {list(value.shape)}, which is not a code [{generator.style_dim}]")
    if len(statistics) < 2:
        generator.measure_w()
    for name, value in statistics.items():
        getattr(generator, name).copy_(value)
    return generator


def _require_supported(tensors: Tensors) -> None:
    """Raise an error for kinds of generators that this project does not have; the message names the kind."""
    channels, (height, width) = tensors["to_rgb1.bias"].numel(), tensors["input.input"].shape[-2:]
    if channels != 3:
        kind = {1: "grey images (1 channel)", 4: "RGBA images (4 channels)"}.get(
            channels, f"{channels} channels"
        )
        raise WeightsError(f"holds a generator of {kind}; only generators of RGB images are used here")
    if height != width:
        raise WeightsError(
            f"holds a generator whose images are not square (they begin with {width} x {height} pixels); "
            "only square ones are used here"
        )


def _noise_maps(size: int) -> dict[str, Tensor]:
    """Return noise maps of a fixed seed, for a file without; they change only fine details of images."""
    draw = torch.Generator().manual_seed(0)
    sides = [4 << (index + 1) // 2 for index in range(num_layers(size) - 1)]
    return {f"noises.noise_{i}": torch.randn(1, 1, n, n, generator=draw) for i, n in enumerate(sides)}


def mean_code(value: Tensor) -> Tensor:
    """Return the mean code `[D]`; a file may repeat it for every layer."""
    rows = value.float().reshape(-1, value.shape[-1])
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise WeightsError("has a latent_avg with rows that differ; one mean code is expected")
    return rows[0]


def require(contents: Contents, kind: str) -> Recognised:
    """Return the network of an official layout; raise an error if it is of another kind."""
    found = find_network(contents)
    if found is None or found.kind != kind:
        title = (found or recognise(contents)).about.title
        if title == "unknown":
            title += f" (tensors: {', '.join(sorted(contents.tensors)[:3]) or 'none'})"
        raise WeightsError(f"is {title}; give a file of this kind: {KINDS[kind].title}")
    return found


def load_inversion(
    path: Path | str, generator: Generator, *, domain: str = "faces", device: torch.device | str = "cpu"
) -> tuple[nn.Module, Generator]:
    """Return the inversion encoder of a file, attached to its generator, and that generator.

    A CLCAE checkpoint contains its generator without the mean code; the mean code of `generator` is used.

    Args:
        path: weights that were trained here, or a CLCAE checkpoint.
        domain: "faces", with square encoder input, or "cars", with input of 4:3.
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
    """Return the encoder of an inversion checkpoint, without an attached generator."""
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
    """Return the contrastive pair in a folder, for training: two encoders and their scale.

    Args:
        folder: folder with the two files, which may have any name.
        height: height of the encoder's input if that is not square: 192 for cars.
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
            f"{folder} must hold the official image encoder and latent encoder, one file each; it has "
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


def load_encoder(
    path: Path | str, generator: Generator, *, device: torch.device | str = "cpu"
) -> FoundationEncoder | PublishedEncoder:
    """Return the inversion encoder in a weights file of this project, attached to its generator."""
    tensors, metadata = checkpoints.load_weights(path, kind="inversion")
    encoder = build(lambda: ENCODERS[metadata["preset"]](**metadata["config"]), tensors, source=path)
    if encoder.config["style_dim"] != generator.style_dim or encoder.n_latent != generator.n_latent:
        raise WeightsError(f"{path} was trained for another generator: its codes have another shape")
    encoder = encoder.to(device)
    encoder.attach(generator)
    return encoder


def load_feature_editor(
    path: Path | str, generator: Generator, *, device: torch.device | str = "cpu"
) -> FeatureEditor:
    """Return the feature editor of a world; raise an error if its F is not that of this generator."""
    tensors, metadata = checkpoints.load_weights(path, kind="feature_editor")
    network = build(lambda: FeatureEditor(**metadata["config"]), tensors, source=path)
    if network.config["channels"] != generator.channels.get(network.config["side"]):
        raise WeightsError(f"{path} was trained for another generator: its F has another shape")
    return network.to(device)


def save_alignment(
    path: Path | str, images: ImageEncoder, codes: LatentEncoder, *, scale: float, metadata: dict[str, Any]
) -> Path:
    """Write both encoders of an alignment and their trained scale as one file."""
    tensors = {f"image_encoder.{name}": value for name, value in images.state_dict().items()}
    tensors |= {f"latent_encoder.{name}": value for name, value in codes.state_dict().items()}
    config = {"image_encoder": images.config, "latent_encoder": codes.config, "scale": scale}
    metadata = {**metadata, "kind": "alignment", "config": config}
    return checkpoints.save_weights(path, tensors, metadata=metadata)


def load_alignment(
    path: Path | str, *, device: torch.device | str = "cpu"
) -> tuple[ImageEncoder, LatentEncoder, float]:
    """Return the image encoder, the latent encoder and the scale of an alignment."""
    tensors, metadata = checkpoints.load_weights(path, kind="alignment")
    kinds = {"image_encoder": ImageEncoder, "latent_encoder": LatentEncoder}

    def make() -> nn.ModuleDict:
        return nn.ModuleDict({name: kind(**metadata["config"][name]) for name, kind in kinds.items()})

    with naming(path):
        both = build(make, tensors, source=path).to(device)
        scale = float(metadata["config"]["scale"])
        if not math.isfinite(scale):
            raise WeightsError(f"has the scale {scale}; use another file")
    return both["image_encoder"], both["latent_encoder"], scale


def export_generator(path: Path | str, generator: Generator) -> Path:
    """Write a generator as a torch file in the PyTorch (rosinality) layout: `g_ema` and `latent_avg`.

    The layout has no `lr_mlp`, and its readers assume 0.01, so the mapping network is scaled to that value.
    """
    gain = generator.config["lr_mlp"] / 0.01
    tensors = {
        name: tensor.detach().cpu() * (gain if name.startswith("style.") else 1)
        for name, tensor in generator.state_dict().items()
    }
    return checkpoints.save_state(path, {"g_ema": tensors, "latent_avg": generator.w_avg.cpu()})


def save_generator(path: Path | str, generator: Generator, metadata: dict[str, Any]) -> None:
    """Write a generator with its arguments and the statistics of w, which are measured if there are none."""
    if not generator.w_avg.any():
        generator.measure_w()
    tensors = {**generator.state_dict(), "w_avg": generator.w_avg, "w_std": generator.w_std}
    details = {**metadata, "kind": "generator", "config": generator.config}
    checkpoints.save_weights(path, tensors, metadata=details)
