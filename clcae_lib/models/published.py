"""The official code's inversion network, with its arithmetic and parameter names (preset `published`).

It differs from the paper (arXiv 2211.11448): every attention block has a single key. Its softmax is always 1,
so queries, keys and heads have no effect, and W+ and F are linear maps of pooled vectors with a residual.
Preset `foundation` follows the paper; this network reproduces the published numbers with the published
weights. Sizes are arguments, with the official ones as defaults.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu

from clcae_lib.models._ops import EqualLinear
from clcae_lib.models.backbone import ENCODER_SIDE, Codes, upsample_add
from clcae_lib.models.config import configured
from clcae_lib.models.foundation import level_of
from clcae_lib.models.irse import UNITS, WIDTHS, IrBackbone
from clcae_lib.models.stylegan2 import Generator
from clcae_lib.spaces import num_layers

FEATURE_SIDE = 16
MIN_SIDE = 64
"""Minimum side of images; the coarsest map of smaller ones has no pixel."""


def resize_as_pil(images: Float[Tensor, "n 3 h w"], height: int, width: int) -> Float[Tensor, "n 3 h2 w2"]:
    """Return resized photographs, in [-1, 1], as the official transform resizes: by PIL's bilinear filter.

    The filter is wider for stronger reductions. Values are rounded to 8 bits after the columns and after the
    rows.
    """
    levels = _round_to_levels((images.float() + 1) * 127.5)
    for size in ((images.shape[-2], width), (height, width)):
        levels = _round_to_levels(interpolate(levels, size, mode="bilinear", antialias=True))
    return levels / 127.5 - 1


def _round_to_levels(levels: Tensor) -> Tensor:
    return (levels.clamp(0, 255) + 0.5).floor()


def to_published_side(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h2 w2"]:
    """Return photographs with at most 256 pixels on their longer side; smaller ones are not resized."""
    height, width = images.shape[-2:]
    factor = max(height, width) / ENCODER_SIDE
    return images if factor <= 1 else resize_as_pil(images, round(height / factor), round(width / factor))


@torch.no_grad()
def mean_image(generator: Generator, height: int | None = None) -> Float[Tensor, "1 3 h w"]:
    """Return the image of the mean code at the encoder's size, x_avg in the official code.

    Args:
        height: height of the encoder's images if they are not square. The image is resized to it, as in the
            official code, which crops only photographs of cars.
    """
    image = generator.synthesis(generator.w_avg[None])
    side = min(image.shape[-1], ENCODER_SIDE)
    size = (side if height is None else height, side)
    return image if image.shape[-2:] == size else resize_as_pil(image, *size)


class PublishedStyleBlock(nn.Module):
    """Map a feature map to one vector: stride-2 convolutions with LeakyReLU 0.01, then an EqualLinear."""

    def __init__(self, inputs: int, outputs: int, *, side: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or outputs
        sizes = [inputs] + [hidden] * int(math.log2(side))
        self.convs = _convolutions(sizes, stride=2)
        self.linear = EqualLinear(hidden, outputs)

    def forward(self, level: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o"]:
        """Return one vector per map."""
        return self.linear(self.convs(level).flatten(1))


class ContentLayer(nn.Module):
    """The last layers of F: stride-2 convolutions down to 16x16, or one of stride 1 on a 16x16 map."""

    def __init__(self, inputs: int, outputs: int, *, side: int) -> None:
        super().__init__()
        count = int(math.log2(side // FEATURE_SIDE))
        sizes = [inputs] * max(1, count) + [outputs]
        self.convs = _convolutions(sizes, stride=2 if count else 1)

    def forward(self, level: Float[Tensor, "n i h w"]) -> Float[Tensor, "n o 16 16"]:
        """Return F."""
        return self.convs(level)


def _convolutions(sizes: Sequence[int], *, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)


class PublishedAttention(nn.Module):
    """A post-norm decoder block without self-attention; `norm1` is part of the layout but unused."""

    def __init__(self, dim: int, *, heads: int = 4, hidden: int | None = None, drop: float = 0.1) -> None:
        super().__init__()
        hidden = hidden or 2 * dim
        self.drop = nn.Dropout(drop)
        self.multihead_attn = nn.MultiheadAttention(dim, heads, dropout=drop, batch_first=True)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self, queries: Float[Tensor, "n q d"], keys: Float[Tensor, "n t d"]
    ) -> Float[Tensor, "n q d"]:
        """Return the block's output."""
        seen = self.multihead_attn(queries, keys, keys, need_weights=False)[0]
        x = self.norm2(queries + self.drop(seen))
        return self.norm3(x + self.drop(self.linear2(self.drop(relu(self.linear1(x))))))


class PublishedEncoder(IrBackbone):
    """Map images to w, W+ and F, as the official code does.

    Args:
        resolution: side of the generator's images (a power of two); the encoder sees at most 256 pixels.
        style_dim: length D of a code, and the width of pyramid and attention.
        widths: channels of the IR-SE backbone; the last must be `style_dim`.
        style_hidden: channels inside the style blocks, `style_dim` if not given.
        hidden: width of the attention blocks' feed-forward layer, `2 * style_dim` if not given.
        heads: number of heads of the attention blocks; it affects only dropout.
        height: height of the encoder's images if they are not square: 192 for cars, whose width is 256.

    Attributes:
        w_avg: mean of W, `[D]`; not in the state_dict.
        average: image of the mean code at the encoder's side, subtracted from every input; not in the
            state_dict.

    Raises:
        ValueError: the backbone does not end in `style_dim` channels.
    """

    w_avg: Tensor
    average: Tensor

    @configured
    def __init__(
        self,
        resolution: int,
        *,
        style_dim: int = 512,
        feature_channels: int = 512,
        widths: Sequence[int] = WIDTHS,
        units: Sequence[int] = UNITS,
        style_hidden: int | None = None,
        hidden: int | None = None,
        heads: int = 4,
        height: int | None = None,
    ) -> None:
        if widths[-1] != style_dim:
            raise ValueError(f"widths={tuple(widths)} must end in style_dim={style_dim}, as c3 does")
        if height not in (None, *range(1, ENCODER_SIDE + 1)):
            raise ValueError(f"height={height} is not a number of pixels from 1 to {ENCODER_SIDE}")
        super().__init__(widths=widths, units=units)
        self.n_latent = num_layers(resolution)
        sides = [min(resolution, 256) // shrink for shrink in (16, 8, 4)]

        def block(level: int) -> PublishedStyleBlock:
            return PublishedStyleBlock(style_dim, style_dim, side=sides[level], hidden=style_hidden)

        self.styles = nn.ModuleList([block(0)])
        self.content_layer = ContentLayer(style_dim, feature_channels, side=sides[2])
        self.feature_cross_attention = PublishedAttention(style_dim, heads=heads, hidden=hidden)
        self.styles_others = nn.ModuleList(block(level_of(j + 1)) for j in range(self.n_latent - 1))
        self.cross_attention = nn.ModuleList(
            PublishedAttention(style_dim, heads=heads, hidden=hidden) for _ in range(self.n_latent)
        )
        self.latlayer1 = nn.Conv2d(widths[3], style_dim, 1)
        self.latlayer2 = nn.Conv2d(widths[2], style_dim, 1)
        self.register_buffer("w_avg", torch.zeros(style_dim), persistent=False)
        self.register_buffer("average", torch.zeros(1, 3, 1, 1), persistent=False)
        _initialise(self, style_dim)

    @torch.no_grad()
    def attach(self, generator: Generator) -> None:
        """Set the mean code to that of the generator, and the average to its image."""
        self.w_avg.copy_(generator.w_avg)
        self.average = mean_image(generator, self.config["height"]).to(self.w_avg)

    def forward(
        self,
        images: Float[Tensor, "n 3 h w"],
        *,
        edit: Float[Tensor, "#n d"] | None = None,
        average: Float[Tensor, "#n 3 h2 w2"] | None = None,
    ) -> Codes:
        """Return the codes of images.

        Args:
            average: replacement of the encoder's average; one for all images, or one for each.

        Raises:
            ValueError: the images have another shape than the average.
        """
        return self.derive(*self.read(images, average=average), edit=edit)

    def read(
        self,
        images: Float[Tensor, "n 3 h w"],
        *,
        average: Float[Tensor, "#n 3 h2 w2"] | None = None,
    ) -> tuple[Float[Tensor, "n l d"], Float[Tensor, "n d h3 w3"]]:
        """Return what an edit does not change: one vector per layer (first w minus its mean), and map p1.

        Raises:
            ValueError: the images have another shape than the average.
        """
        small, average = to_published_side(images), self.average if average is None else average
        if average.shape[-2:] not in {(1, 1), small.shape[-2:]}:
            wanted, found = tuple(average.shape[-2:]), tuple(images.shape[-2:])
            raise ValueError(f"images are {found}; this encoder reads images of {wanted} or of that shape")
        c1, c2, c3 = self.maps(small - average)
        p2 = upsample_add(c3, self.latlayer1(c2))
        p1 = upsample_add(p2, self.latlayer2(c1))
        vectors = [self.styles[0](c3)]
        vectors += [block((c3, p2, p1)[level_of(j + 1)]) for j, block in enumerate(self.styles_others)]
        return torch.stack(vectors, dim=1), p1

    def derive(
        self,
        vectors: Float[Tensor, "n l d"],
        fine: Float[Tensor, "n d h w"],
        *,
        edit: Float[Tensor, "#n d"] | None = None,
    ) -> Codes:
        """Return the codes for the output of `read`."""
        offset = vectors[:, 0] if edit is None else vectors[:, 0] + edit
        keys = torch.cat([offset[:, None], vectors[:, 1:]], dim=1)
        rows = [block(offset[:, None], keys[:, k : k + 1]) for k, block in enumerate(self.cross_attention)]
        w = offset + self.w_avg
        w_plus = torch.cat(rows, dim=1) + w[:, None]
        return Codes(w, w_plus, self._feature(fine, offset))

    def _feature(self, fine: Tensor, offset: Tensor) -> Float[Tensor, "n c 16 16"]:
        height, width = fine.shape[-2:]
        pixels = self.feature_cross_attention(fine.flatten(2).transpose(1, 2), offset[:, None])
        level = pixels.transpose(1, 2).unflatten(2, (height, width))
        spare = width - height  # a car's map is 48x64; rows of zeros make it square
        return self.content_layer(pad(level, (0, 0, spare // 2, spare - spare // 2)) if spare else level)


def _initialise(network: nn.Module, dim: int) -> None:
    """Set the published initial weights: normal with sd 0.02, gains around 1, biases 0.

    0.02 is for 512 channels. Narrower layers without BatchNorm get a larger sd, else the signal would vanish.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02 * math.sqrt(512 / dim))
        elif isinstance(module, EqualLinear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.normal_(module.weight, mean=1.0, std=0.02)
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(module.bias)
    for block in network.modules():
        if isinstance(block, (PublishedStyleBlock, ContentLayer)):
            for conv in block.convs[::2]:
                nn.init.normal_(conv.weight, std=0.02 * math.sqrt(512 / conv.in_channels))
