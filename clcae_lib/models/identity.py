"""The official identity networks: IR-SE50 (ArcFace, arXiv 1801.07698) and MoCo v2 (arXiv 2003.04297).

The paper (arXiv 2211.11448, section 3.3) compares cars in MoCo's features; the official code uses the face
network for cars too. The input of the face network is the middle of the face at 112 pixels.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from clcae_lib import vision_repair
from clcae_lib.models.backbone import to_encoder_side
from clcae_lib.models.irse import UNITS, WIDTHS, IrBackbone

ARCFACE_SIDE, MOCO_SIDE = 112, 224
ROWS, COLUMNS = slice(35, 223), slice(32, 220)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Embedding(nn.Module):
    """A network that maps images to unit vectors."""

    def similarity(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the cosine of each pair of images, 1 for the same identity."""
        return (self(x) * self(y)).sum(dim=1)


def face_crop(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 112 112"]:
    """Return rows 35 to 223 and columns 32 to 220 of images of 256 pixels, averaged down to 112x112.

    Larger images are first averaged down to 256; images with fewer rows give fewer rows.
    """
    return adaptive_avg_pool2d(to_encoder_side(images)[:, :, ROWS, COLUMNS], ARCFACE_SIDE)


class ArcFace(IrBackbone, Embedding):
    """Map images to unit vectors that differ between people, for the identity loss."""

    def __init__(
        self, dim: int = 512, *, widths: Sequence[int] = WIDTHS, units: Sequence[int] = UNITS
    ) -> None:
        super().__init__(widths=widths, units=units)
        last, body = widths[-1], self._modules.pop("body")  # `body` is last in the layout
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(last * (ARCFACE_SIDE // 16) ** 2, dim),
            nn.BatchNorm1d(dim),
        )
        self.body = body

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Return unit vectors of images in [-1, 1], cropped by `face_crop`."""
        return normalize(self.output_layer(self.maps(face_crop(images))[-1]).float(), dim=1)


class MocoFeatures(Embedding):
    """Map images to unit vectors of 2048 numbers: torchvision's ResNet-50 without a projection head.

    As in its training, images have 224 pixels and are standardised by ImageNet's mean and deviation.
    """

    def __init__(self) -> None:
        super().__init__()
        vision_repair.ensure_torchvision()
        from torchvision.models import resnet50

        self.net = resnet50(weights=None)
        self.net.fc = nn.Identity()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2048"]:
        """Return unit vectors of images in [-1, 1]."""
        size = (MOCO_SIDE, MOCO_SIDE)  # in float32: torch cannot downsample bfloat16 on a CPU
        small = interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)
        mean, deviation = (small.new_tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
        return normalize(self.net(((small + 1) / 2 - mean) / deviation).float(), dim=1)
