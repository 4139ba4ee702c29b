"""MoCo v2's ResNet-50 as the identity network where there are no faces (arXiv 2003.04297).

CLCAE's paper (arXiv 2211.11448, section 3.3) compares cars in its features; the published code compares them
with the face network instead.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from clcae_lib import vision_repair

SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class MocoFeatures(nn.Module):
    """Map images to unit vectors of 2048 numbers: the network below its projection head, torchvision's names.

    It sees images as in its training: at 224 pixels, standardised by ImageNet's mean and deviation.
    """

    def __init__(self) -> None:
        super().__init__()
        vision_repair.ensure_torchvision()
        from torchvision.models import resnet50

        self.net = resnet50(weights=None)
        self.net.fc = nn.Identity()

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2048"]:
        """Return unit vectors of images in [-1, 1]."""
        images = images.float()  # torch cannot downsample bfloat16 on a CPU
        small = interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        mean, deviation = (small.new_tensor(v).view(3, 1, 1) for v in (MEAN, DEVIATION))
        return normalize(self.net(((small + 1) / 2 - mean) / deviation).float(), dim=1)

    def similarity(self, x: Float[Tensor, "n 3 h w"], y: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Return the cosine of each pair."""
        return (self(x) * self(y)).sum(dim=1)
