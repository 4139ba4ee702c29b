"""Pictures to codes: the protocol of every inverter, and CLCAE's own, one pass of an encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.devices import resolve_device
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.models.foundation import FoundationEncoder
from clcae_lib.models.published import PublishedEncoder
from clcae_lib.weights import load_inversion
from clcae_lib.worlds import World, get_world


@runtime_checkable
class Inverter(Protocol):
    """Anything that finds codes for pictures."""

    generator: Generator

    def invert(self, images: Float[Tensor, "batch 3 side side"]) -> Inversion:
        """The codes of images in [-1, 1]."""


class ClcaeInverter:
    """CLCAE: one forward pass of a trained encoder.

    Args:
        encoder: of preset `foundation` or `published`.
        generator: the one that the encoder was trained with.
        view: what the encoder is shown of a picture; the picture itself if None.
    """

    def __init__(
        self,
        encoder: FoundationEncoder | PublishedEncoder,
        generator: Generator,
        *,
        view: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.encoder, self.generator, self.view = encoder.eval(), generator, view or (lambda images: images)

    @classmethod
    def load(
        cls,
        world: str | World,
        preset: str = "foundation",
        device: torch.device | str = "auto",
        *,
        generator: Generator | None = None,
        path: Path | str | None = None,
    ) -> ClcaeInverter:
        """The inverter of a world.

        Args:
            world: or its name.
            preset: `foundation` or `published`.
            device: "auto", "cpu", "cuda", ...
            generator: the world's own generator, if it is loaded already; an official checkpoint brings its
                own copy, which is taken in its place.
            path: weights other than the world's: trained here, or an official checkpoint.

        Raises:
            WorldError: the world has no such weights; the message has the command that trains them.
            ValueError: the weights do not fit.
        """
        place = resolve_device(device) if isinstance(device, str) else device
        world = get_world(world)
        if path is None:
            command = f"clcae train inversion --world {world.name} --set preset={preset}"
            path = world.inversion(preset) or world.require(f"inversion_{preset}", command=command)
        generator = generator if generator is not None else world.generator(place)
        domain = "faces" if world.published_height is None else "cars"
        encoder, generator = load_inversion(path, generator, domain=domain, device=place)
        published = isinstance(encoder, PublishedEncoder)
        return cls(encoder, generator, view=world.published_view if published else None)

    @torch.no_grad()
    def invert(
        self,
        images: Float[Tensor, "batch 3 side side"],
        *,
        edit: Float[Tensor, "#batch dim"] | None = None,
        batch_size: int = 64,
    ) -> Inversion:
        """The codes of images in [-1, 1], on the encoder's device.

        Args:
            images: any number of them.
            edit: a step in W that is added before W+ and F are derived, as in section 3.4.
            batch_size: how many are encoded at once.
        """
        device, parts = self.generator.w_avg.device, []
        for start in range(0, len(images), batch_size):
            batch = self.view(images[start : start + batch_size].to(device))
            step = edit if edit is None or len(edit) == 1 else edit[start : start + batch_size]
            parts.append(Inversion.from_codes(self.encoder(batch, edit=step)))
        return Inversion.cat(parts)
