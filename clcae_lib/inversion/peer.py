"""Base of the trained peers, the methods that CLCAE is compared with: one pass of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import World, get_world


class PeerInverter:
    """An inverter of one of the peers.

    Args:
        encoder: trained encoder.
        generator: generator that the encoder was trained with.
    """

    encoders: ClassVar[dict[str, Callable[..., nn.Module]]] = {}
    """Network of each method of this class, by the method's name."""

    def __init__(self, encoder: nn.Module, generator: Generator) -> None:
        self.encoder, self.generator = encoder.eval(), generator

    @classmethod
    def load(
        cls,
        world: str | World,
        *,
        device: torch.device | str = "auto",
        generator: Generator | None = None,
        path: Path | str | None = None,
        method: str | None = None,
    ) -> PeerInverter:
        """Return the inverter of a weights file.

        Args:
            world: world, or its name.
            device: "auto", "cpu", "cuda", ...
            generator: the world's own generator, if it is loaded already.
            path: weights file; by default `peer_<method>.safetensors` of the world.
            method: one of the class's methods; by default the first, or any that the given file has.

        Raises:
            WorldError: the world has no such weights; the message has the command that trains them.
            ValueError: the weights do not fit.
        """
        device, world = resolve_device(device), get_world(world)
        methods = [method] if method else list(cls.encoders)
        if path is None:
            command = f"clcae train peer --world {world.name} --set method={methods[0]}"
            path = world.require(f"peer_{methods[0]}", command=command)
        tensors, metadata = checkpoints.load_weights(path, kind="peer")
        if metadata["method"] not in methods:
            raise ValueError(f"{path}: holds {metadata['method']!r}; wanted is {' or '.join(methods)}")
        generator = generator if generator is not None else world.generator(device)
        kind = cls.encoders[metadata["method"]]
        encoder = checkpoints.build(lambda: kind(**metadata["config"]), tensors, source=path)
        encoder.attach(generator)
        return cls(encoder.to(device), generator)

    @torch.no_grad()
    def invert(self, images: Float[Tensor, "n 3 h w"], *, batch_size: int = 64) -> Inversion:
        """Return the codes of images in [-1, 1], on the generator's device."""
        images = images.to(self.generator.w_avg.device)
        starts = range(0, len(images), batch_size)
        return Inversion.cat([self._encode(images[start : start + batch_size]) for start in starts])

    def _encode(self, images: Float[Tensor, "n 3 h w"]) -> Inversion:
        return Inversion.from_codes(self.encoder(images))
