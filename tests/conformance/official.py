"""The official inversion network: encoder and generator in one, in the layout of its checkpoints (AFPSP)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from clcae_lib.images import CAR_HEIGHT, CAR_ROWS
from clcae_lib.models import Codes, Generator, PublishedEncoder


class PublishedInversion(nn.Module):
    """Encoder and decoder; names start with `encoder.` and `decoder.`.

    Args:
        encoder: encoder of preset `published`.
        decoder: generator.
        domain: `faces` or `cars`. Images of cars lose rows above and below what a car's photograph shows.
    """

    def __init__(self, encoder: PublishedEncoder, decoder: Generator, *, domain: str = "faces") -> None:
        super().__init__()
        self.encoder, self.decoder, self.domain = encoder, decoder, domain

    def decode(
        self,
        codes: Codes,
        space: str,
        *,
        before: Float[Tensor, "n l d"] | None = None,
        blend: float = 1.0,
        side: int | None = 256,
    ) -> Float[Tensor, "n 3 h w"]:
        """Return the images of codes.

        Args:
            codes: codes of the encoder.
            space: `w`, `w_plus`, or `f`, W+ with F inserted.
            before: W+ before an edit, whose effect on the generator's activation F then follows.
            blend: share of F, 0 to 1.
            side: side that images are average-pooled to; None leaves them as they are.
        """
        feature = codes.feature if space == "f" else None
        if feature is not None and before is not None:
            activation = self.decoder.activation
            feature = feature + activation(codes.w_plus) - activation(before)
        w = codes.w if space == "w" else codes.w_plus
        image = self.decoder.synthesis(w, feature=feature, feature_blend=blend)
        image = image if side is None else adaptive_avg_pool2d(image, side)
        # The official code cuts the rows of 256 pixels out of images of every size.
        return image if self.domain == "faces" else image[:, :, CAR_ROWS]


def build_inversion(size: int, *, domain: str = "faces") -> PublishedInversion:
    """Return the official network, untrained, for a generator of 1024 pixels (`faces`) or 512 (`cars`)."""
    encoder = PublishedEncoder(size, height=CAR_HEIGHT if domain == "cars" else None)
    return PublishedInversion(encoder, Generator(size), domain=domain)
