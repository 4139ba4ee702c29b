"""What the trained peers share: one pass of an encoder, and reading it from a file."""

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

COMMAND = "clcae train peer --world {world} --set method={method}"


class PeerInverter:
    """An inverter of one of the methods that CLCAE is compared with.

    Args:
        encoder: trained.
        generator: the one that the encoder was trained with.
    """

    encoders: ClassVar[dict[str, Callable[..., nn.Module]]] = {}
    """The networks of the methods of this class, by the methods' names."""

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
        """The inverter in a weights file.

        Args:
            world: or its name.
            device: "auto", "cpu", "cuda", ...
            generator: the world's own, if it is loaded already.
            path: of the weights; `peer_<method>.safetensors` of the world if None.
            method: which of the class's methods, where it has several; of a file, any of them if None.

        Raises:
            WorldError: the world has no such weights; the message has the command that trains them.
            ValueError: the weights do not fit.
        """
        place = resolve_device(device) if isinstance(device, str) else device
        world = get_world(world)
        taken = [method] if method else list(cls.encoders)
        if path is None:
            command = COMMAND.format(world=world.name, method=taken[0])
            path = world.require(f"peer_{taken[0]}", command=command)
        tensors, metadata = checkpoints.load_weights(path, kind="peer")
        if metadata["method"] not in taken:
            raise ValueError(f"{path}: holds {metadata['method']!r}; wanted is {' or '.join(taken)}")
        generator = generator if generator is not None else world.generator(place)
        kind = cls.encoders[metadata["method"]]
        encoder = checkpoints.build(lambda: kind(**metadata["config"]), tensors, source=path)
        encoder.attach(generator)
        return cls(encoder.to(place), generator)

    @torch.no_grad()
    def invert(self, images: Float[Tensor, "batch 3 side side"], *, batch_size: int = 64) -> Inversion:
        """The codes of images in [-1, 1], on the generator's device."""
        images = images.to(self.generator.w_avg.device)
        starts = range(0, len(images), batch_size)
        return Inversion.cat([self._encode(images[start : start + batch_size]) for start in starts])

    def _encode(self, images: Float[Tensor, "batch 3 side side"]) -> Inversion:
        return Inversion.from_codes(self.encoder(images))
