"""IR-SE50 for faces, by which the official code judges identity (ArcFace, arXiv 1801.07698).

It sees the middle of the face at 112 pixels. The official code uses it for cars too, whose pictures have
fewer rows than the crop asks for; the crop then ends where the picture does.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

from clcae_lib.models.backbone import to_encoder_side
from clcae_lib.models.irse import IrBody

SIDE = 112
ROWS, COLUMNS = slice(35, 223), slice(32, 220)


def face_crop(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 112 112"]:
    """Rows 35 to 223 and columns 32 to 220 of pictures of 256 pixels, averaged down to 112x112.

    Larger pictures are averaged down to 256 first; the rows of flatter ones end with the picture.
    """
    return adaptive_avg_pool2d(to_encoder_side(images)[:, :, ROWS, COLUMNS], SIDE)


class ArcFace(IrBody):
    """Pictures to unit vectors that tell people apart; what the identity loss embeds with.

    Args:
        dim: length of the vectors.
        widths: channels of the IR-SE body.
        units: of its stages. The defaults are IR-SE50.
    """

    def __init__(
        self,
        dim: int = 512,
        *,
        widths: Sequence[int] = (64, 64, 128, 256, 512),
        units: Sequence[int] = (3, 4, 14, 3),
    ) -> None:
        super().__init__(widths=widths, units=units)
        last, body = widths[-1], self._modules.pop("body")  # the layout has the body last
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(last * (SIDE // 16) ** 2, dim),
            nn.BatchNorm1d(dim),
        )
        self.body = body

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Unit vectors of images in [-1, 1], at most 256 pixels of which are seen, cropped by `face_crop`."""
        return normalize(self.output_layer(self.maps(face_crop(images))[-1]).float(), dim=1)

    def similarity(
        self, x: Float[Tensor, "batch 3 height width"], y: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, " batch"]:
        """The cosine of each pair, 1 for the same face."""
        return (self(x) * self(y)).sum(dim=1)
