"""The two inversion encoders under their presets' names, and how one is read from a file."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from clcae_lib.models.contrastive import ImageEncoder, LatentEncoder
from clcae_lib.models.foundation import FoundationEncoder
from clcae_lib.models.published import PublishedEncoder
from clcae_lib.models.stylegan2 import Generator
from clcae_lib.weights import checkpoints

ENCODERS: dict[str, type[nn.Module]] = {"foundation": FoundationEncoder, "published": PublishedEncoder}


def build_encoder(preset: str, config: dict[str, Any]) -> FoundationEncoder | PublishedEncoder:
    """A fresh inversion encoder of a preset.

    Raises:
        ValueError: there is no preset of that name.
    """
    if preset not in ENCODERS:
        raise ValueError(f"preset={preset!r} is not one of {', '.join(map(repr, ENCODERS))}")
    return ENCODERS[preset](**config)


def load_encoder(
    path: Path | str, generator: Generator, *, device: torch.device | str = "cpu"
) -> FoundationEncoder | PublishedEncoder:
    """The inversion encoder in a weights file, frozen, in evaluation mode and attached to its generator.

    Raises:
        FileNotFoundError, ValueError: the file is missing, holds something else, or does not fit.
    """
    tensors, metadata = checkpoints.load_weights(path, kind="inversion")
    encoder = checkpoints.build(
        lambda: build_encoder(metadata["preset"], metadata["config"]), tensors, source=path
    )
    if encoder.config["style_dim"] != generator.style_dim or encoder.n_latent != generator.n_latent:
        raise checkpoints.WeightsError(
            f"{path} was trained for another generator: its codes have another shape"
        )
    encoder = encoder.to(device)
    encoder.attach(generator)
    return encoder


def save_alignment(
    path: Path | str, images: ImageEncoder, codes: LatentEncoder, *, scale: float, metadata: dict[str, Any]
) -> Path:
    """Write both encoders of an alignment as one file, with the scale that they were trained to."""
    tensors = {f"image_encoder.{name}": value for name, value in images.state_dict().items()}
    tensors |= {f"latent_encoder.{name}": value for name, value in codes.state_dict().items()}
    config = {"image_encoder": images.config, "latent_encoder": codes.config, "scale": scale}
    metadata = {**metadata, "kind": "alignment", "config": config}
    return checkpoints.save_weights(path, tensors, metadata=metadata)


def load_alignment(
    path: Path | str, *, device: torch.device | str = "cpu"
) -> tuple[ImageEncoder, LatentEncoder, float]:
    """The image encoder, the latent encoder (both frozen, in evaluation mode) and the scale of an alignment.

    Raises:
        FileNotFoundError, ValueError: the file is missing, holds something else, or does not fit.
    """
    tensors, metadata = checkpoints.load_weights(path, kind="alignment")
    config = metadata["config"]
    kinds = {"image_encoder": ImageEncoder, "latent_encoder": LatentEncoder}

    def make() -> nn.ModuleDict:
        return nn.ModuleDict({name: kind(**config[name]) for name, kind in kinds.items()})

    both = checkpoints.build(make, tensors, source=path).to(device)
    return both["image_encoder"], both["latent_encoder"], float(config["scale"])


def save_generator(path: Path | str, generator: Generator, metadata: dict[str, Any]) -> None:
    """Write a generator with its arguments and the statistics of w, measuring those where nobody has."""
    if not generator.w_avg.any():
        generator.measure_w()
    tensors = {**generator.state_dict(), "w_avg": generator.w_avg, "w_std": generator.w_std}
    details = {**metadata, "kind": "generator", "config": generator.config}
    checkpoints.save_weights(path, tensors, metadata=details)
