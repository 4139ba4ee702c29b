"""ReStyle: an encoder corrects its own reconstruction in several steps (arXiv 2104.02699, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.inversion.e4e import E4eEncoder
from clcae_lib.inversion.inversion import Inversion
from clcae_lib.inversion.psp import PeerInverter, PspEncoder
from clcae_lib.models import Generator
from clcae_lib.models.backbone import Codes, to_encoder_side

STEPS = 3


class RestyleInverter(PeerInverter):
    """ReStyle with the encoder of pSp or e4e, from the mean face.

    Args:
        encoder: encoder of image and reconstruction, joined in the channels.
        steps: number of corrections; the paper uses five in training and up to ten in inference.
    """

    encoders: ClassVar[dict[str, Callable[..., nn.Module]]] = {
        "restyle_psp": PspEncoder,
        "restyle_e4e": E4eEncoder,
    }

    def __init__(
        self, encoder: nn.Module, generator: Generator, *, steps: int = STEPS, **options: Any
    ) -> None:
        super().__init__(encoder, generator, **options)
        self.steps = steps

    def _encode(self, images: Float[Tensor, "n 3 h w"]) -> Inversion:
        codes = list(refine(self.encoder, self.generator, images, steps=self.steps))[-1]
        return Inversion.from_codes(codes)


def refine(
    encoder: nn.Module,
    generator: Generator,
    images: Float[Tensor, "n 3 h w"],
    *,
    steps: int,
    noise: str = "fixed",
) -> Iterator[Codes]:
    """Yield the codes after each correction; no gradient flows to earlier corrections.

    Each adds `E(image, reconstruction)` to the current codes, which start at the mean code.

    Args:
        encoder: encoder of images and reconstructions, joined in the channels.
        noise: noise of the reconstructions, as in `Generator.synthesis`; by default as in `Inversion.decode`.
    """
    images = to_encoder_side(images)
    w, w_plus = generator.w_avg[None], generator.w_avg[None, None]
    for _ in range(steps):
        with torch.no_grad():
            rows = w_plus.expand(len(w_plus), generator.n_latent, -1)
            made = generator.synthesis(rows.detach(), noise=noise).to(images)
            made = to_encoder_side(made)
            spare = (made.shape[-2] - images.shape[-2]) // 2  # the black rows of cars
            made = made[:, :, spare : spare + images.shape[-2]].expand_as(images)
        change = encoder(torch.cat([images, made], dim=1))
        w = change.w - encoder.w_avg + w.detach()
        w_plus = change.w_plus - encoder.w_avg + w_plus.detach()
        yield Codes(w, w_plus, None)
