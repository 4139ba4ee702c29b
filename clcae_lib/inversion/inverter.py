"""The protocol of inverters, a base class for those with an encoder, and CLCAE's inverter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.inversion.inversion import Editing, Inversion, Plain
from clcae_lib.models import Generator, PublishedEncoder
from clcae_lib.weights import load_feature_editor, load_inversion
from clcae_lib.worlds import World, get_world


@runtime_checkable
class Inverter(Protocol):
    """Anything that finds codes for images."""

    generator: Generator

    def invert(self, images: Float[Tensor, "n 3 h w"]) -> Inversion:
        """Return the codes of images in [-1, 1]."""


class EncoderInverter:
    """One forward pass of a trained encoder.

    Args:
        generator: generator that the encoder was trained with.
        view: function from images to the encoder's input; by default the images themselves.
    """

    def __init__(
        self, encoder: nn.Module, generator: Generator, *, view: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.encoder, self.generator, self.view = encoder.eval(), generator, view or (lambda images: images)

    @torch.no_grad()
    def invert(self, images: Float[Tensor, "n 3 h w"], *, batch_size: int = 64) -> Inversion:
        """Return the codes of images in [-1, 1], on the generator's device."""
        device, starts = self.generator.w_avg.device, range(0, len(images), batch_size)
        batches = (images[start : start + batch_size].to(device) for start in starts)
        return Inversion.cat([self._encode(self.view(batch)) for batch in batches])

    def _encode(self, images: Float[Tensor, "n 3 h w"]) -> Inversion:
        return Inversion.from_codes(self.encoder(images))


class ClcaeInverter(EncoderInverter):
    """CLCAE, with an encoder of preset `foundation` or `published`.

    Args:
        decoder: decoder of the inversions, which adapts F to edits; by default by the formula.
    """

    def __init__(
        self, encoder: nn.Module, generator: Generator, *, decoder: Plain | None = None, **options: Any
    ) -> None:
        super().__init__(encoder, generator, **options)
        self.decoder = decoder or Plain()

    @property
    def preset(self) -> str:
        """The preset of the encoder."""
        return "published" if isinstance(self.encoder, PublishedEncoder) else "foundation"

    @classmethod
    def load(
        cls,
        world: str | World,
        preset: str = "foundation",
        device: torch.device | str = "auto",
        *,
        generator: Generator | None = None,
        path: Path | str | None = None,
        feature_editor: bool = False,
    ) -> ClcaeInverter:
        """Return the inverter of a world.

        Args:
            preset: `foundation` or `published`.
            generator: the world's own generator, if it is loaded already; an official checkpoint has its own
                copy, which replaces it.
            path: weights file, instead of the world's: trained here, or an official checkpoint.
            feature_editor: whether the world's feature editor, if there is one for this F, adapts F to edits
                instead of the formula of section 3.4.

        Raises:
            WorldError: the world has no such weights; the message has the command that trains them.
            ValueError: the weights do not fit.
        """
        device, world = resolve_device(device), get_world(world)
        if path is None:
            command = f"clcae train inversion --world {world.name} --set preset={preset}"
            path = world.inversion(preset) or world.require(f"inversion_{preset}", command=command)
        generator = generator if generator is not None else world.generator(device)
        domain = "faces" if world.published_height is None else "cars"
        encoder, own = load_inversion(path, generator, domain=domain, device=device)
        published = isinstance(encoder, PublishedEncoder)
        decoder = None
        if feature_editor and own is generator and world.has("feature_editor"):
            network = load_feature_editor(world.weights("feature_editor"), generator, device=device)
            fits = network.config["side"] == encoder.config.get("feature_side", 16)
            decoder = Editing(network) if fits else None
        return cls(encoder, own, view=world.published_view if published else None, decoder=decoder)

    def _encode(self, images: Float[Tensor, "n 3 h w"]) -> Inversion:
        return replace(super()._encode(images), decoder=self.decoder)
