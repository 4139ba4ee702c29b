"""ReStyle: an encoder looks at its own reconstruction and corrects it (arXiv 2104.02699, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.inversion.e4e import E4eEncoder
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.inversion.peer import PeerInverter
from clcae_lib.inversion.psp import PspEncoder
from clcae_lib.models import Generator
from clcae_lib.models.codes import Codes

STEPS = 3


class RestyleInverter(PeerInverter):
    """ReStyle over pSp's or e4e's encoder, from the mean face.

    Args:
        encoder: sees two pictures at once.
        generator: the one that the encoder was trained with.
        steps: corrections; the paper takes five in training and up to ten in use.
    """

    encoders: ClassVar[dict[str, Callable[..., nn.Module]]] = {
        "restyle_psp": PspEncoder,
        "restyle_e4e": E4eEncoder,
    }

    def __init__(self, encoder: nn.Module, generator: Generator, *, steps: int = STEPS) -> None:
        super().__init__(encoder, generator)
        self.steps = steps

    def _encode(self, images: Float[Tensor, "batch 3 side side"]) -> Inversion:
        codes = list(refine(self.encoder, self.generator, images, steps=self.steps))[-1]
        return Inversion.from_codes(codes)


def refine(
    encoder: nn.Module,
    generator: Generator,
    images: Float[Tensor, "batch 3 side side"],
    *,
    steps: int,
    noise: str = "fixed",
) -> Iterator[Codes]:
    """The codes after each correction; what one starts from carries no gradient from those before it.

    Each adds `E(picture, reconstruction)` to the code at hand, from the mean code and the mean face on.

    Args:
        encoder: sees images and reconstructions side by side.
        generator: decodes the reconstructions.
        images: in [-1, 1].
        steps: how many corrections.
        noise: of the reconstructions, as in `Generator.synthesis`; by default that of `Inversion.decode`.
    """
    w, w_plus = generator.w_avg[None], generator.w_avg[None, None]
    for _ in range(steps):
        with torch.no_grad():
            rows = w_plus.expand(len(w_plus), generator.n_latent, -1)
            made = generator.synthesis(rows.detach(), noise=noise).to(images).expand_as(images)
        change = encoder(torch.cat([images, made], dim=1))
        w = change.w - encoder.w_avg + w.detach()
        w_plus = change.w_plus - encoder.w_avg + w_plus.detach()
        yield Codes(w, w_plus, None)
