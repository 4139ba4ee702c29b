"""The official code's inversion network, with its arithmetic and parameter names (preset `published`).

It departs from the paper (arXiv 2211.11448) in that every attention block sees a single key: its softmax is
always 1, so that queries, keys and heads have no effect, and W+ and F are linear maps of pooled vectors with
a residual. `foundation` repairs this; here it is kept, so that published weights give published numbers.
Sizes are arguments: the defaults are the official ones, a small world passes its own.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import dropout, interpolate, pad, relu

from clcae_lib.models._ops import EqualLinear
from clcae_lib.models.backbone import ENCODER_SIDE, upsample_add
from clcae_lib.models.codes import Codes
from clcae_lib.models.irse import IrBody
from clcae_lib.models.stylegan2 import Generator
from clcae_lib.spaces import num_layers

FEATURE_SIDE = 16
MIN_SIDE = 64
"""Images that are smaller leave nothing of the coarsest map."""
CAR_ROWS = slice(32, 224)
CAR_HEIGHT = CAR_ROWS.stop - CAR_ROWS.start


def resize_as_pil(
    images: Float[Tensor, "batch 3 height width"], height: int, width: int
) -> Float[Tensor, "batch 3 h w"]:
    """Photographs in [-1, 1] of another size, as the official transform makes them: by PIL's bilinear filter.

    It widens with the reduction, and rounds to 8 bits after the columns and again after the rows.
    """
    levels = _round_to_levels((images.float() + 1) * 127.5)
    for size in ((images.shape[-2], width), (height, width)):
        levels = _round_to_levels(interpolate(levels, size, mode="bilinear", antialias=True))
    return levels / 127.5 - 1


def _round_to_levels(levels: Tensor) -> Tensor:
    return (levels.clamp(0, 255) + 0.5).floor()


def to_published_side(
    images: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, "batch 3 h w"]:
    """Photographs with at most 256 pixels on their longer side; smaller ones as they are."""
    height, width = images.shape[-2:]
    factor = max(height, width) / ENCODER_SIDE
    return images if factor <= 1 else resize_as_pil(images, round(height / factor), round(width / factor))


@torch.no_grad()
def mean_picture(generator: Generator, height: int | None = None) -> Float[Tensor, "1 3 h w"]:
    """The picture of the mean code, as a photograph that the encoder reads; the official code's x_avg.

    Args:
        generator: whose.
        height: of what the encoder sees where that is not square. The picture is squeezed to it, as the
            official code does; it crops photographs of cars alone.
    """
    picture = generator.synthesis(generator.w_avg[None])
    side = min(picture.shape[-1], ENCODER_SIDE)
    size = (side if height is None else height, side)
    return picture if picture.shape[-2:] == size else resize_as_pil(picture, *size)


class PublishedStyleBlock(nn.Module):
    """A map to one vector by stride-2 convolutions, each followed by LeakyReLU 0.01, and an EqualLinear."""

    def __init__(self, inputs: int, outputs: int, *, side: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or outputs
        sizes = [inputs] + [hidden] * int(math.log2(side))
        self.convs = _convolutions(sizes, stride=2)
        self.linear = EqualLinear(hidden, outputs)

    def forward(self, level: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs"]:
        """One vector a map."""
        return self.linear(self.convs(level).flatten(1))


class ContentLayer(nn.Module):
    """The last step to F: stride-2 convolutions down to 16x16, or one of stride 1 on a map of that side."""

    def __init__(self, inputs: int, outputs: int, *, side: int) -> None:
        super().__init__()
        count = int(math.log2(side // FEATURE_SIDE))
        sizes = [inputs] * max(1, count) + [outputs]
        self.convs = _convolutions(sizes, stride=2 if count else 1)

    def forward(self, level: Float[Tensor, "batch inputs h w"]) -> Float[Tensor, "batch outputs 16 16"]:
        """F."""
        return self.convs(level)


def _convolutions(sizes: Sequence[int], *, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers)


class PublishedAttention(nn.Module):
    """A post-norm decoder block without self-attention; `norm1` exists in the layout and is unused."""

    def __init__(self, dim: int, *, heads: int = 4, hidden: int | None = None, drop: float = 0.1) -> None:
        super().__init__()
        hidden = hidden or 2 * dim
        self.drop = drop
        self.multihead_attn = nn.MultiheadAttention(dim, heads, dropout=drop, batch_first=True)
        self.linear1 = nn.Linear(dim, hidden)
        self.linear2 = nn.Linear(hidden, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self, queries: Float[Tensor, "batch queries dim"], keys: Float[Tensor, "batch keys dim"]
    ) -> Float[Tensor, "batch queries dim"]:
        """The block's output, whose size its last LayerNorm sets."""
        seen = self.multihead_attn(queries, keys, keys, need_weights=False)[0]
        x = self.norm2(queries + self._drop(seen))
        return self.norm3(x + self._drop(self.linear2(self._drop(relu(self.linear1(x))))))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.drop, self.training)


class PublishedEncoder(IrBody):
    """Image to w, W+ and F, as the official code computes them.

    Args:
        resolution: side of the generator's pictures (a power of two); the encoder sees at most 256 pixels.
        style_dim: length D of a code, and the width of pyramid and attention.
        feature_channels: channels of F.
        widths: channels of the IR-SE body; the last must be `style_dim`.
        units: of the body's stages.
        style_hidden: channels inside the style blocks, `style_dim` if not given.
        hidden: width of the attention blocks' feed-forward layer, `2 * style_dim` if not given.
        heads: of the attention blocks. It has no effect but on dropout.
        height: of the pictures that the encoder sees where they are not square: 192 for cars, whose side is
            256.

    Attributes:
        w_avg: mean of W `[D]`, added once; not in the state_dict.
        average: the picture of the mean code at the encoder's side, taken from every input; not in the
            state_dict.

    Raises:
        ValueError: the body does not end in `style_dim` channels.
    """

    w_avg: Tensor
    average: Tensor

    def __init__(
        self,
        resolution: int,
        *,
        style_dim: int = 512,
        feature_channels: int = 512,
        widths: Sequence[int] = (64, 64, 128, 256, 512),
        units: Sequence[int] = (3, 4, 14, 3),
        style_hidden: int | None = None,
        hidden: int | None = None,
        heads: int = 4,
        height: int | None = None,
    ) -> None:
        if widths[-1] != style_dim:
            raise ValueError(f"widths={tuple(widths)} must end in style_dim={style_dim}, as c3 does")
        super().__init__(widths=widths, units=units)
        self.config = {
            "resolution": resolution,
            "style_dim": style_dim,
            "feature_channels": feature_channels,
            "widths": list(widths),
            "units": list(units),
            "style_hidden": style_hidden,
            "hidden": hidden,
            "heads": heads,
            "height": height,
        }
        self.n_latent = num_layers(resolution)
        sides = [min(resolution, 256) // shrink for shrink in (16, 8, 4)]

        def block(level: int) -> PublishedStyleBlock:
            return PublishedStyleBlock(style_dim, style_dim, side=sides[level], hidden=style_hidden)

        self.styles = nn.ModuleList([block(0)])
        self.content_layer = ContentLayer(style_dim, feature_channels, side=sides[2])
        self.feature_cross_attention = PublishedAttention(style_dim, heads=heads, hidden=hidden)
        self.styles_others = nn.ModuleList(block(_level_of_other(j)) for j in range(self.n_latent - 1))
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
        """Take the mean code, and its picture, from the generator."""
        self.w_avg.copy_(generator.w_avg)
        self.average = mean_picture(generator, self.config["height"]).to(self.w_avg)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        *,
        edit: Float[Tensor, "#batch dim"] | None = None,
        average: Float[Tensor, "#batch 3 rows columns"] | None = None,
    ) -> Codes:
        """Return the codes of images.

        Args:
            images: in [-1, 1].
            edit: added to w before attention, and so moves W+ and F.
            average: taken from the images in the place of the encoder's own average; one for all images, or
                one each.

        Raises:
            ValueError: the images have another shape than the average.
        """
        return self.derive(*self.read(images, average=average), edit=edit)

    def read(
        self,
        images: Float[Tensor, "batch 3 height width"],
        *,
        average: Float[Tensor, "#batch 3 rows columns"] | None = None,
    ) -> tuple[Float[Tensor, "batch layers dim"], Float[Tensor, "batch dim h w"]]:
        """What an edit leaves as it is: one vector a layer (the first is w, less the mean), and the map p1.

        Raises:
            ValueError: the images have another shape than the average.
        """
        small, average = to_published_side(images), self.average if average is None else average
        if average.shape[-2:] not in {(1, 1), small.shape[-2:]}:
            wanted, found = tuple(average.shape[-2:]), tuple(images.shape[-2:])
            raise ValueError(f"images are {found}; this encoder reads pictures of {wanted} or of that shape")
        c1, c2, c3 = self.maps(small - average)
        p2 = upsample_add(c3, self.latlayer1(c2))
        p1 = upsample_add(p2, self.latlayer2(c1))
        vectors = [self.styles[0](c3)]
        vectors += [block((c3, p2, p1)[_level_of_other(j)]) for j, block in enumerate(self.styles_others)]
        return torch.stack(vectors, dim=1), p1

    def derive(
        self,
        vectors: Float[Tensor, "batch layers dim"],
        fine: Float[Tensor, "batch dim h w"],
        *,
        edit: Float[Tensor, "#batch dim"] | None = None,
        feature: bool = True,
    ) -> Codes:
        """The codes of what `read` gives; without `feature`, F is None."""
        offset = vectors[:, 0] if edit is None else vectors[:, 0] + edit
        keys = torch.cat([offset[:, None], vectors[:, 1:]], dim=1)
        rows = [block(offset[:, None], keys[:, k : k + 1]) for k, block in enumerate(self.cross_attention)]
        w = offset + self.w_avg
        w_plus = torch.cat(rows, dim=1) + w[:, None]
        return Codes(w, w_plus, self._feature(fine, offset) if feature else None)

    def _feature(self, fine: Tensor, offset: Tensor) -> Float[Tensor, "batch channels 16 16"]:
        height, width = fine.shape[-2:]
        pixels = self.feature_cross_attention(fine.flatten(2).transpose(1, 2), offset[:, None])
        level = pixels.transpose(1, 2).unflatten(2, (height, width))
        spare = width - height  # a car's map is 48x64: rows of zeros make it square
        return self.content_layer(pad(level, (0, 0, spare // 2, spare - spare // 2)) if spare else level)


def _level_of_other(index: int) -> int:
    """The level (c3, p2, p1) that `styles_others[index]` reads."""
    return 0 if index < 2 else 1 if index < 6 else 2


def _initialise(network: nn.Module, dim: int) -> None:
    """The published start: everything normal of 0.02, gains around 1, biases 0.

    0.02 suits 512 channels. Narrower layers that no BatchNorm follows start wider by the root of what they
    lack, or the signal would vanish in them.
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
