"""Reading the official code's weights, in the layouts that its README lists.

Every file is a torch pickle of tensors and plain data, and is read as that: nothing in it is run. Names and
shapes must agree with the network's exactly; an error lists what is missing, left over or of another shape.

| function | file | what is taken from it |
|---|---|---|
| `load_official_generator` | StyleGAN2 `.pt` | `g_ema`, `latent_avg` |
| `load_official_inversion` | CLCAE inversion checkpoint | `state_dict` (`encoder.*`, `decoder.*`) |
| `load_official_contrastive` | the contrastive pair | two state dicts, bare or under `state_dict` |
| `load_arcface` | IR-SE50 | a bare state dict |
| `load_moco` | MoCo v2 ResNet-50 | `state_dict`, `module.encoder_q.*` |

InterFaceGAN's directions and GANSpace's components are read by `clcae_lib.editing`.
"""

import argparse
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcae_lib import checkpoints
from clcae_lib.checkpoints import WeightsError
from clcae_lib.models.arcface import ArcFace
from clcae_lib.models.moco import MocoFeatures
from clcae_lib.models.published import CAR_HEIGHT, PublishedEncoder, PublishedInversion, mean_picture
from clcae_lib.models.published_contrastive import PublishedImageEncoder, PublishedLatentEncoder
from clcae_lib.models.stylegan2 import Generator


def build_inversion(size: int, *, domain: str = "faces") -> PublishedInversion:
    """The official inversion network, untrained.

    Args:
        size: side of the generator's pictures, 1024 for the published faces, 512 for cars.
        domain: `faces`, whose encoder reads 256x256 pixels, or `cars`, whose reads 192x256.

    Raises:
        ValueError: there is no such domain.
    """
    encoder = PublishedEncoder(size, height=CAR_HEIGHT if domain == "cars" else None)
    return PublishedInversion(encoder, Generator(size), domain=domain)


def load_official_inversion(
    path: Path | str,
    *,
    stylegan: Path | str | None = None,
    size: int | None = None,
    domain: str = "faces",
    latent_avg: Tensor | None = None,
) -> PublishedInversion:
    """The network of an official inversion checkpoint, frozen, in evaluation mode, its mean code attached.

    The checkpoint holds encoder and generator, not the mean code: the StyleGAN2 file has that.

    Args:
        path: the checkpoint.
        stylegan: the StyleGAN2 file that it was trained with, for its `latent_avg`.
        size: side of the pictures; read off the checkpoint if None.
        domain: `faces` or `cars`.
        latent_avg: the mean code `[D]`, in the place of a StyleGAN2 file.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, holds more than plain data, or does not fit; or there is no mean code.
    """
    tensors = state_dict_of(path)
    size = _size_of(tensors, path) if size is None else size
    if latent_avg is None:
        if stylegan is None:
            raise WeightsError(f"{path} has no mean code: give stylegan=, the StyleGAN2 file it goes with")
        latent_avg = _latent_avg(read_official(stylegan), stylegan)
        if latent_avg is None:
            raise WeightsError(f"{stylegan} has no latent_avg, without which {path} gives other pictures")
    network = assemble(lambda: build_inversion(size, domain=domain), tensors, source=path)
    _set_statistics(network.decoder, latent_avg)
    network.encoder.attach(network.decoder)
    return network


def load_official_generator(path: Path | str, *, size: int | None = None) -> Generator:
    """The generator of a StyleGAN2 `.pt` file (`g_ema`), frozen, in evaluation mode.

    `w_avg` is the file's `latent_avg`, or measured where it has none; `w_std` is measured.

    Args:
        path: the file.
        size: side of the pictures; read off the file if None.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged, holds something else, or does not fit.
    """
    content = read_official(path)
    if "g_ema" not in content:
        raise WeightsError(f'{path}: expected a dictionary with "g_ema", has {_names(content)}')
    tensors = _tensors(content["g_ema"], f"{path}: g_ema")
    if size is None:
        size = 4 << sum(
            name.startswith("to_rgbs.") and name.endswith(".bias") for name in tensors if _is_outer(name)
        )
    generator = assemble(lambda: Generator(size), tensors, source=path)
    _set_statistics(generator, _latent_avg(content, path))
    return generator


def load_official_contrastive(
    image_path: Path | str, latent_path: Path | str
) -> tuple[PublishedImageEncoder, PublishedLatentEncoder]:
    """The contrastive pair: image encoder (it owns the temperature, `logit_scale`) and latent encoder.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged, holds something else, or does not fit.
    """
    image = assemble(PublishedImageEncoder, state_dict_of(image_path), source=image_path)
    return image, assemble(PublishedLatentEncoder, state_dict_of(latent_path), source=latent_path)


class OfficialImageEncoder(nn.Module):
    """The official image encoder with the interface of `ImageEncoder`: the mean code's picture is its own.

    It was trained on squares of 256 pixels, of cars too; the inversion shows it cars of 192x256, as they are.
    """

    average: Tensor

    def __init__(self, encoder: PublishedImageEncoder, average: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("average", average, persistent=False)

    @property
    def body(self) -> nn.Module:
        """What an inversion encoder of the same layout can start from."""
        return self.encoder.encoder

    def forward(self, images: Tensor) -> Tensor:
        """Unit vectors of images in [-1, 1]."""
        return self.encoder(images, self.average)


class OfficialLatentEncoder(nn.Module):
    """The official latent encoder with the interface of `LatentEncoder`: the mean code is its own."""

    w_avg: Tensor

    def __init__(self, encoder: PublishedLatentEncoder, w_avg: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("w_avg", w_avg, persistent=False)

    def forward(self, w: Tensor) -> Tensor:
        """Unit vectors of codes."""
        return self.encoder(w, self.w_avg[None])


@torch.no_grad()
def load_official_alignment(
    folder: Path | str, generator: Generator, *, height: int | None = None
) -> tuple[OfficialImageEncoder, OfficialLatentEncoder, float]:
    """The contrastive pair of a folder as a training takes it: two frozen encoders and their scale.

    The pair is told apart by its content: the image encoder's file has the temperature, `logit_scale`.

    Args:
        folder: with the two files.
        generator: its mean code's picture is what the image encoder subtracts.
        height: of what the training shows of a picture where that is not square: 192 for cars.

    Raises:
        ValueError: the folder does not hold just one file of each; or a file does not fit.
    """
    files = sorted(path for path in Path(folder).iterdir() if path.suffix in (".pt", ".pth"))
    found: dict[str, list[Path]] = {"logit_scale": [], "pos_embedding": []}
    for path in files:
        names = state_dict_of(path)
        for mark, paths in found.items():
            paths += [path] if mark in names else []
    if any(len(paths) != 1 for paths in found.values()):
        raise WeightsError(
            f"{folder} has to hold the official image encoder and latent encoder, one .pt each; it has "
            f"{', '.join(path.name for path in files) or 'none'}"
        )
    image, latent = load_official_contrastive(*(paths[0] for paths in found.values()))
    average = mean_picture(generator, height).cpu()
    w_avg = generator.w_avg.detach().cpu().clone()
    scale = float(image.logit_scale.exp())
    return OfficialImageEncoder(image, average).eval(), OfficialLatentEncoder(latent, w_avg).eval(), scale


def load_arcface(path: Path | str) -> ArcFace:
    """The identity network IR-SE50.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged, holds something else, or does not fit.
    """
    return assemble(ArcFace, state_dict_of(path), source=path)


def load_moco(path: Path | str) -> MocoFeatures:
    """The features of MoCo v2's ResNet-50, whose projection head and key encoder are left behind.

    Raises:
        FileNotFoundError, ValueError: the file is missing, damaged, holds something else, or does not fit.
    """
    prefix = "module.encoder_q."
    tensors = state_dict_of(path, strip=False)
    others = ("module.encoder_k.", "module.queue", f"{prefix}fc.")
    if not any(name.startswith(prefix) for name in tensors):
        raise WeightsError(f"{path}: expected names that begin with {prefix!r}, has {_names(tensors)}")
    kept = {
        f"net.{name.removeprefix(prefix)}": value
        for name, value in tensors.items()
        if not name.startswith(others)
    }
    return assemble(MocoFeatures, kept, source=path)


def assemble(
    make: Callable[[], nn.Module], tensors: Mapping[str, Tensor], *, source: Path | str
) -> nn.Module:
    """The network that `make` builds, with these tensors as its own, frozen, in evaluation mode.

    It is built on no device, so that no initial weights are drawn and no memory is taken twice. Buffers that
    are no part of its `state_dict` start at zero.

    Raises:
        ValueError: names or shapes differ; every difference is listed.
    """
    with torch.device("meta"):
        network = make()
    checkpoints.load_into(network, dict(tensors), source=source, assign=True)
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                module.register_buffer(name, torch.zeros(buffer.shape, dtype=buffer.dtype), persistent=False)
    return network.requires_grad_(False).eval()


def read_official(path: Path | str) -> dict[str, Any]:
    """What an official `.pt` or `.pth` file holds: tensors and plain data, on the CPU; nothing in it is run.

    Options kept as an `argparse.Namespace`, beside plain data the one class let through, come as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds more than plain data, or is no dictionary.
    """
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # of pickles by other protocols than its own
        content = checkpoints.read_plain(path)
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: expected a dictionary, found {type(content).__name__}")
    return dict(content)


def state_dict_of(path: Path | str, *, strip: bool = True) -> dict[str, Tensor]:
    """The network in an official file, in float32: its `state_dict`, or the whole file where it is one.

    Args:
        path: the file.
        strip: drop the `module.` that training on several devices puts before every name.

    Raises:
        FileNotFoundError, ValueError: as `read_official`; or it holds something else than tensors.
    """
    content = read_official(path)
    tensors = _tensors(content.get("state_dict", content), path)
    if strip and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _tensors(content: Any, source: Path | str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{source}: expected a dictionary of tensors, found {type(content).__name__}")
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise WeightsError(f"{source}: expected tensors alone; {', '.join(sorted(others)[:5])} are none")
    return {name: v.float() if v.is_floating_point() else v for name, v in content.items()}


def _size_of(tensors: Mapping[str, Tensor], path: Path | str) -> int:
    """Side of the pictures, from the number of attention blocks, one a layer."""
    parts = [name.split(".") for name in tensors if name.startswith("encoder.cross_attention.")]
    layers = len({part[2] for part in parts})
    if layers < 4 or layers % 2:
        raise WeightsError(
            f"{path} is no inversion checkpoint of the official code: its names begin {_names(tensors)}"
        )
    return 1 << (layers + 2) // 2


def _latent_avg(content: Mapping[str, Any], path: Path | str) -> Tensor | None:
    """The mean code `[D]`; one row where the file repeats it for every layer."""
    value = content.get("latent_avg")
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.ndim > 2:
        raise WeightsError(f"{path}: latent_avg is no vector [D] or [L, D]")
    rows = value.float().reshape(-1, value.shape[-1])
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise WeightsError(f"{path}: latent_avg has rows that differ; one mean code is expected")
    return rows[0]


def _set_statistics(generator: Generator, latent_avg: Tensor | None) -> None:
    """Measure mean and spread of w; the mean is the file's where it has one."""
    if latent_avg is not None and latent_avg.shape != generator.w_avg.shape:
        raise WeightsError(
            f"latent_avg is {list(latent_avg.shape)}; the generator has codes {list(generator.w_avg.shape)}"
        )
    generator.measure_w()
    if latent_avg is not None:
        generator.w_avg.copy_(latent_avg)


def _is_outer(name: str) -> bool:
    return name.count(".") == 2


def _names(content: Mapping[str, Any]) -> str:
    return ", ".join(sorted(map(str, content))[:5]) or "nothing"
