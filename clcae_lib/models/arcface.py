"""IR-SE50 for faces, the official code's identity network (ArcFace, arXiv 1801.07698).

It sees the middle of the face at 112 pixels. The official code uses it for cars too, whose images have
fewer rows than the crop asks for; the crop then ends where the image does.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, normalize

from clcae_lib.models.backbone import to_encoder_side
from clcae_lib.models.irse import IR_SE50, IrBackbone

SIDE = 112
ROWS, COLUMNS = slice(35, 223), slice(32, 220)


def face_crop(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 112 112"]:
    """Return rows 35 to 223 and columns 32 to 220 of images of 256 pixels, averaged down to 112x112.

    Larger images are averaged down to 256 first; the rows of flatter ones end with the image.
    """
    return adaptive_avg_pool2d(to_encoder_side(images)[:, :, ROWS, COLUMNS], SIDE)


class ArcFace(IrBackbone):
    """Map images to unit vectors that differ between people, for the identity loss.

    Args:
        dim: length of the vectors.
        widths: channels of the IR-SE backbone.
        units: units of its stages.
    """

    def __init__(
        self,
        dim: int = 512,
        *,
        widths: Sequence[int] = IR_SE50.widths,
        units: Sequence[int] = IR_SE50.units,
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

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return unit vectors of images in [-1, 1], cropped by `face_crop`."""
        return normalize(self.output_layer(self.maps(face_crop(images))[-1]).float(), dim=1)

    def similarity(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the cosine of each pair, 1 for the same face."""
        return (self(x) * self(y)).sum(dim=1)
