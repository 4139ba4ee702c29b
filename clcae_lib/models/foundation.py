"""The inversion encoder of preset `foundation` (arXiv 2211.11448, section 3.2): image to w, then W+, then F.

It first computes a feature pyramid T1, T2, T3 of the image. w is computed from T1; each layer of W+ from w by
attention to the tokens of its level; F from T3 by attention to T3 and to the tokens of W+. The query of a
layer is w + e, where e is a learned layer embedding. The switches give the variants of the ablations.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from clcae_lib.models.attention import CrossAttention, sine_positions
from clcae_lib.models.backbone import Codes, Pyramid, StyleBlock, make_backbone, to_encoder_side
from clcae_lib.models.config import configured
from clcae_lib.spaces import num_layers

Weights = dict[str, Tensor] | None
LEVELS = ("coarse", "medium", "fine")
WPLUS_ATTENTION = ("spatial", "single", "none")
FEATURE_ATTENTION = ("spatial", "single", "off")


def level_of(layer: int) -> int:
    """Return the pyramid level (0, 1, 2) of a layer of W+: T1 for the first three, T2 for the next four."""
    return 0 if layer < 3 else 1 if layer < 7 else 2


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a ValueError that names the parameter unless its value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}")


class FoundationEncoder(nn.Module):
    """Map images to w, W+ and F.

    Args:
        resolution: side of the generator's images (a power of two); the encoder sees at most 256 pixels.
        style_dim: length D of a code, and the width of pyramid and attention.
        feature_channels: channels of F, equal to those of the generator's activation at its side.
        feature_side: side of F and of the generator's activation that it replaces; 16 in the paper.
        wplus_attention: `spatial`: keys are the tokens of the layer's level; `single`: one pooled vector per
            layer, as published; `none`: that vector is added to w without attention, as in pSp.
        feature_attention: `spatial`: keys are T3's pixels and the tokens of W+; `single`: one key, w, as
            published; `off`: no F.

    Raises:
        ValueError: a switch has an unknown value.
    """

    w_avg: Tensor

    @configured
    def __init__(
        self,
        resolution: int,
        *,
        style_dim: int = 512,
        feature_channels: int = 512,
        feature_side: int = 16,
        body: str = "small",
        widths: Sequence[int] | None = None,
        heads: int = 4,
        wplus_attention: str = "spatial",
        feature_attention: str = "spatial",
    ) -> None:
        super().__init__()
        check_choice("wplus_attention", wplus_attention, WPLUS_ATTENTION)
        check_choice("feature_attention", feature_attention, FEATURE_ATTENTION)
        self.register_buffer("w_avg", torch.zeros(style_dim))
        self.n_latent = num_layers(resolution)
        self.body = make_backbone(body, widths=widths)
        self.pyramid = Pyramid(self.body.channels, style_dim)
        used = LEVELS[2:] if feature_attention == "spatial" else ()
        used = LEVELS if wplus_attention == "spatial" else used
        self.token_norms = nn.ModuleDict({level: nn.LayerNorm(style_dim) for level in used})
        if wplus_attention != "none" or feature_attention == "spatial":
            self.layer_embedding = nn.Parameter(torch.randn(self.n_latent, style_dim) * 0.1)
        sides = [min(resolution, 256) // shrink for shrink in (16, 8, 4)]
        self.to_w = StyleBlock(style_dim, style_dim, side=sides[0])
        if wplus_attention != "spatial":
            options = {"hidden": 3 * style_dim // 8}
            layers = [sides[level_of(k)] for k in range(self.n_latent)]
            blocks = [StyleBlock(style_dim, style_dim, side=side, **options) for side in layers]
            self.to_layers = nn.ModuleList(blocks)
        if wplus_attention != "none":
            self.wplus_blocks = nn.ModuleList(CrossAttention(style_dim, heads=heads) for _ in LEVELS)
            self.to_offset = nn.ModuleList(nn.Linear(style_dim, style_dim) for _ in LEVELS)
            for linear in self.to_offset:
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
        if feature_attention != "off":
            self.feature_block = CrossAttention(style_dim, heads=heads)
            self.to_feature = nn.Conv2d(style_dim, feature_channels, 1)

    def forward(
        self,
        images: Float[Tensor, "n 3 h w"],
        *,
        edit: Float[Tensor, "#n d"] | None = None,
    ) -> Codes:
        """Return the codes of images in [-1, 1]; `edit` is added to w before W+ and F are derived."""
        return self._encode(images, edit=edit)[0]

    def attention_maps(
        self, images: Float[Tensor, "n 3 h w"]
    ) -> tuple[Codes, dict[str, Float[Tensor, "n heads q t"]]]:
        """Return the codes, and the attention maps of each block.

        The maps are `coarse`, `medium` and `fine` (queries are the level's layers of W+, tokens its pixels,
        row by row) and `feature` (queries are the pixels of F, tokens T3's pixels, then the layers of
        W+). A block that a switch removes has no map.
        """
        return self._encode(images, need_weights=True)

    @torch.no_grad()
    def attach(self, generator: nn.Module) -> None:
        """Set the mean code to that of the generator."""
        self.w_avg.copy_(generator.w_avg)

    def _encode(
        self, images: Tensor, *, edit: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Codes, dict[str, Tensor]]:
        levels = self.pyramid(self.body(to_encoder_side(images)))
        tokens = {name: self._tokens(level, name) for name, level in zip(LEVELS, levels, strict=True)}
        offset = self.to_w(levels[0])
        offset = offset if edit is None else offset + edit
        maps: Weights = {} if need_weights else None
        wplus_offset = offset[:, None] + self._wplus(offset, levels, tokens, maps)
        feature = self._feature(offset, wplus_offset, levels[2], tokens["fine"], maps)
        return Codes(offset + self.w_avg, wplus_offset + self.w_avg, feature), maps or {}

    def _tokens(self, level: Tensor, name: str) -> Float[Tensor, "n t d"] | None:
        """Return the pixels of a level as keys, or None if no block needs them."""
        if name not in self.token_norms:
            return None
        positions = sine_positions(*level.shape[-2:], level.shape[1], level.device).to(level)
        return self.token_norms[name](level.flatten(2).transpose(1, 2)) + positions

    def _wplus(
        self, offset: Tensor, levels: list[Tensor], tokens: dict[str, Tensor | None], maps: Weights
    ) -> Float[Tensor, "n l d"]:
        """Return the differences of W+ from w, layer by layer."""
        switch = self.config["wplus_attention"]
        if switch != "spatial":
            pooled = torch.stack(
                [block(levels[level_of(k)]) for k, block in enumerate(self.to_layers)], dim=1
            )
            if switch == "none":
                return pooled
        queries = offset[:, None] + self.layer_embedding
        parts = []
        for index, block in enumerate(self.wplus_blocks):
            found = [k for k in range(self.n_latent) if level_of(k) == index]
            if not found:
                continue
            rows = slice(found[0], found[-1] + 1)  # a list would be copied to the device
            if switch == "single":
                out = self._attend_single(block, queries[:, rows], pooled[:, rows], LEVELS[index], maps)
            else:
                out = _attend(block, queries[:, rows], tokens[LEVELS[index]], LEVELS[index], maps)
            parts.append(self.to_offset[index](out))
        return torch.cat(parts, dim=1)

    @staticmethod
    def _attend_single(
        block: CrossAttention, queries: Tensor, keys: Tensor, name: str, maps: Weights
    ) -> Tensor:
        """Return the attention of every layer to its one vector; layers are handled as batch entries."""
        shape = queries.shape[:2]
        out = _attend(block, queries.flatten(0, 1)[:, None], keys.flatten(0, 1)[:, None], name, maps)
        if maps is not None:
            maps[name] = maps[name].unflatten(0, shape)[:, :, :, 0].transpose(1, 2)
        return out[:, 0].unflatten(0, shape)

    def _feature(
        self,
        offset: Tensor,
        wplus_offset: Tensor,
        fine: Tensor,
        tokens: Tensor | None,
        maps: Weights,
    ) -> Float[Tensor, "n c h w"] | None:
        switch = self.config["feature_attention"]
        if switch == "off":
            return None
        side = (self.config["feature_side"],) * 2
        grid = fine
        if fine.shape[-2:] != side:  # in float32: torch cannot downsample bfloat16 on a CPU
            grid = interpolate(fine.float(), side, mode="bilinear", antialias=True).to(fine)
        positions = sine_positions(*side, grid.shape[1], grid.device).to(grid)
        queries = grid.flatten(2).transpose(1, 2) + positions
        if switch == "single":
            keys = offset[:, None]
        else:
            keys = torch.cat([tokens, (wplus_offset + self.layer_embedding).to(tokens)], dim=1)
        out = _attend(self.feature_block, queries, keys, "feature", maps)
        return self.to_feature(out.transpose(1, 2).unflatten(2, side))


def _attend(block: CrossAttention, queries: Tensor, tokens: Tensor, name: str, maps: Weights) -> Tensor:
    """Return the block's output; store its weights in `maps`, if there is one."""
    if maps is None:
        return block(queries, tokens)
    out, maps[name] = block(queries, tokens, need_weights=True)
    return out
