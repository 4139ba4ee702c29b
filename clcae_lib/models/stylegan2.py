"""StyleGAN2's skip generator (arXiv 1912.04958), with the codes W, W+ and F that CLCAE inverts into.

CLCAE (arXiv 2211.11448, section 3) writes an image as a foundation code `w`, one code per layer `w_plus`,
and a feature F that replaces the activation of one layer. `Generator.synthesis` takes all three. Parameter
names and arithmetic are those of the published PyTorch layout, so that its checkpoints load unchanged.

Activations are in torch's channels_last order, which is faster.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.models._discriminator import Widths, resolve_channels
from clcae_lib.models._ops import GAIN, SLOPE, EqualLinear, Filter, ModulatedConv2d, PixelNorm, upsample
from clcae_lib.models.config import configured
from clcae_lib.spaces import broadcast_w, feature_layer, num_layers

Noise = Literal["fixed", "random", "none"]


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias and activation."""

    def __init__(
        self, inputs: int, outputs: int, style_dim: int, *, taps: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(inputs, outputs, 3, style_dim, taps=taps)
        self.noise = nn.ParameterDict({"weight": torch.zeros(1)})
        self.activate = nn.ParameterDict({"bias": torch.zeros(outputs)})

    def forward(
        self,
        x: Float[Tensor, "n i h w"],
        w: Float[Tensor, "n d"],
        noise: Tensor | None,
        offset: Float[Tensor, "#n i"] | None = None,
    ) -> Float[Tensor, "n o h2 w2"]:
        """Return the activations; their gain is applied before leaky ReLU, with the same result."""
        if not torch.is_grad_enabled():
            return self._infer(x, w, noise, offset)
        x, factor = self.conv(x, w, offset)
        shift = self.activate.bias[:, None, None] * GAIN
        if noise is not None:
            shift = shift + noise * (self.noise.weight * GAIN)
        factor = (factor * GAIN).to(x.dtype)[:, :, None, None]
        return F.leaky_relu(torch.addcmul(shift.to(x.dtype), x, factor), SLOPE)

    def _infer(self, x: Tensor, w: Tensor, noise: Tensor | None, offset: Tensor | None) -> Tensor:
        """Return the output, computed in place: at 1024 pixels, allocation takes as long as arithmetic."""
        x = self.conv.infer(x, w, offset, gain=GAIN)
        x.add_((self.activate.bias * GAIN).to(x.dtype)[:, None, None])
        if noise is not None:
            x.add_((noise * (self.noise.weight * GAIN)).to(x.dtype))
        return F.leaky_relu_(x, SLOPE)


class ToRGB(nn.Module):
    """Add a layer's contribution to the upsampled image of the layers below."""

    def __init__(self, inputs: int, style_dim: int, *, taps: Sequence[float] | None = None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        if taps is not None:
            self.upsample = Filter(taps, gain=4.0)
        self.conv = ModulatedConv2d(inputs, 3, 1, style_dim, demodulate=False)

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        w: Float[Tensor, "n d"],
        rgb: Tensor | None,
        offset: Float[Tensor, "#n c"] | None = None,
    ) -> Tensor:
        """Return the image so far in float32, `[N, 3, H, W]`."""
        plain = self.conv(x, w, offset)[0] if torch.is_grad_enabled() else self.conv.infer(x, w, offset)
        out = plain.float() + self.bias
        return out if rgb is None else out + upsample(rgb, self.upsample.kernel)


class Generator(nn.Module):
    """Map a latent z `[N, D]` to w `[N, D]`, and codes to images `[N, 3, S, S]`, nominally in [-1, 1].

    Args:
        size: side S of the images, a power of two of at least 8.
        style_dim: width D of z and w.
        channels: width at each resolution from 4 to `size`; default, the published widths. The resolutions
            may be strings, as in JSON.
        lr_mlp: learning-rate multiplier of the mapping network.

    Attributes:
        n_latent: number L of codes in W+, `2 * log2(size) - 2`.
        w_avg, w_std: mean and standard deviation of w, `[D]`; not in the `state_dict`.

    Raises:
        ValueError: `size` is not a power of two of at least 8, or a width is missing.
    """

    @configured
    def __init__(
        self,
        size: int,
        style_dim: int = 512,
        n_mlp: int = 8,
        *,
        channels: Widths | None = None,
        lr_mlp: float = 0.01,
        blur_kernel: Sequence[float] = (1, 3, 3, 1),
    ) -> None:
        super().__init__()
        self.channels = widths = resolve_channels(size, channels)
        self.size, self.style_dim, self.n_latent = size, style_dim, num_layers(size)
        self.config["channels"] = widths
        layers = [EqualLinear(style_dim, style_dim, lr_mul=lr_mlp, activate=True) for _ in range(n_mlp)]
        self.style = nn.Sequential(PixelNorm(), *layers)
        self.input = nn.ParameterDict({"input": torch.randn(1, widths[4], 4, 4)})
        self.conv1 = StyledConv(widths[4], widths[4], style_dim)
        self.to_rgb1 = ToRGB(widths[4], style_dim)
        self.convs, self.to_rgbs, self.noises = nn.ModuleList(), nn.ModuleList(), nn.Module()
        for side in list(widths)[1:]:
            self.convs.append(StyledConv(widths[side // 2], widths[side], style_dim, taps=blur_kernel))
            self.convs.append(StyledConv(widths[side], widths[side], style_dim))
            self.to_rgbs.append(ToRGB(widths[side], style_dim, taps=blur_kernel))
        for index in range(self.n_latent - 1):
            side = 4 << ((index + 1) // 2)
            self.noises.register_buffer(f"noise_{index}", torch.randn(1, 1, side, side))
        self.register_buffer("w_avg", torch.zeros(style_dim), persistent=False)
        self.register_buffer("w_std", torch.ones(style_dim), persistent=False)

    def mapping(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the codes w of latents z, which are drawn from a standard normal distribution."""
        with torch.autocast(z.device.type, enabled=False):
            return self.style(z.float())

    def sample_w(self, n: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "n d"]:
        """Return codes of `n` random latents, drawn on the CPU from `generator` so that devices agree."""
        return self.mapping(torch.randn(n, self.style_dim, generator=generator).to(self.w_avg.device))

    @property
    def uses_noise(self) -> bool:
        """Whether the noise strength of any layer is not 0."""
        return any(bool(layer.noise.weight.any()) for layer in (self.conv1, *self.convs))

    @torch.no_grad()
    def measure_w(self, n: int = 10_000, *, seed: int = 0) -> None:
        """Set `w_avg` and `w_std` from the codes of `n` latents of a fixed seed."""
        w = self.sample_w(n, generator=torch.Generator().manual_seed(seed))
        self.w_avg.copy_(w.mean(0))
        self.w_std.copy_(w.std(0))

    @property
    def layers(self) -> list[tuple[int, StyledConv | ToRGB]]:
        """The synthesis layers in the order they run, each with the number of its W+ layer."""
        layers: list[tuple[int, StyledConv | ToRGB]] = [(0, self.conv1), (1, self.to_rgb1)]
        for block, to_rgb in enumerate(self.to_rgbs):
            first = 2 * block + 1
            layers += [(first, self.convs[2 * block]), (first + 1, self.convs[2 * block + 1])]
            layers.append((first + 2, to_rgb))
        return layers

    @property
    def style_sizes(self) -> list[int]:
        """The number of StyleSpace channels of each of `layers`."""
        return [len(layer.conv.modulation.bias) for _, layer in self.layers]

    @property
    def style_rows(self) -> list[int]:
        """The W+ layer that each channel of StyleSpace is computed from."""
        sizes = zip(self.layers, self.style_sizes, strict=True)
        return [row for (row, _), size in sizes for _ in range(size)]

    def styles(self, w: Float[Tensor, "n d"] | Float[Tensor, "n l d"]) -> Float[Tensor, "n s"]:
        """Return the styles of codes: the S channels of StyleSpace (arXiv 2011.12799), layer by layer."""
        codes = self._per_layer(w)
        return torch.cat([layer.conv.modulation(codes[:, row]) for row, layer in self.layers], dim=1)

    @staticmethod
    def truncate(w: Tensor, w_avg: Float[Tensor, " d"], psi: float) -> Tensor:
        """Return codes truncated toward the mean: 1 keeps them, 0 gives the mean."""
        return w_avg + psi * (w - w_avg)

    def synthesis(
        self,
        w: Float[Tensor, "n d"] | Float[Tensor, "n l d"],
        *,
        feature: Float[Tensor, "m c h w"] | None = None,
        feature_blend: float | Float[Tensor, "#m 1 1 1"] | Float[Tensor, ""] = 1.0,
        feature_offset: Float[Tensor, "#n c h w"] | None = None,
        feature_index: int | None = None,
        append: bool = False,
        style_offsets: Float[Tensor, "#n s"] | None = None,
        noise: Noise = "fixed",
        stop_at: int | None = None,
        _record: list[Tensor] | None = None,
    ) -> Float[Tensor, "k 3 h2 w2"]:
        """Return the images of codes, of side `size` or `stop_at`, in float32.

        Activations are numbered in the order they run: 0 is the constant, 1 the output of the first
        convolution, 2 + i that of `convs[i]`. One of them can be replaced, blended or added to; the image
        gets the contribution of the unchanged one.

        Args:
            feature: F, which replaces activation `feature_index`.
            feature_blend: share of F, 0 to 1; the rest is the activation. One for all images, or one each.
            feature_offset: addend of activation `feature_index`; one for all images, or one each.
            feature_index: number of the activation; by default the second one at F's side: 5 at 16 pixels.
            append: return every image without F, and then those of the first codes with F; `feature` may then
                have fewer rows than `w`. The layers up to F run once for both. Not with a different step in
                StyleSpace for each image.
            style_offsets: step in StyleSpace, added to the styles that the layers compute from `w`.
            noise: "fixed" uses the stored maps, "random" draws new ones, "none" leaves them out.
            stop_at: resolution of the images; no layer above it runs.

        Raises:
            ValueError: an argument does not fit the network.
        """
        blocks = self._blocks_until(stop_at)
        codes = self._per_layer(w)
        insertion = _Insertion(feature, feature_blend, feature_offset)
        index = insertion.place(feature_index, last=2 * blocks)
        layers, offsets = self.layers[: 3 * blocks + 2], self._per_modulation(style_offsets)
        x, rgb = self.input.input.expand(len(codes), -1, -1, -1), None
        x = x.contiguous(memory_format=torch.channels_last)
        if _record is not None:
            _record.append(x)
        for (row, layer), offset in zip(layers, offsets, strict=False):
            if isinstance(layer, ToRGB):
                rgb = layer(x, codes[:, row], rgb, offset)
                continue
            if row == index and append and feature is not None:
                first = slice(len(feature))
                x = torch.cat([x, insertion.apply(x[first], row)])
                codes, rgb = torch.cat([codes, codes[first]]), torch.cat([rgb, rgb[first]])
            elif row == index:
                x = insertion.apply(x, row)
            x = layer(x, codes[:, row], self._noise(row, noise, len(codes)), offset)
            if _record is not None:
                _record.append(x)
        return rgb.contiguous()

    def run_with_activations(
        self, w: Float[Tensor, "n d"] | Float[Tensor, "n l d"], **options: Any
    ) -> tuple[Float[Tensor, "k 3 h w"], list[Tensor]]:
        """Return the images of `synthesis`, with its options, and a list of all activations."""
        activations: list[Tensor] = []
        return self.synthesis(w, _record=activations, **options), activations

    def activation(
        self,
        w: Float[Tensor, "n d"] | Float[Tensor, "n l d"],
        *,
        side: int = 16,
        index: int | None = None,
        **options: Any,
    ) -> Float[Tensor, "n c h w"]:
        """Return the activation that F replaces: the second one at a side, or that of number `index`.

        The options are those of `synthesis`.
        """
        return self.run_with_activations(w, stop_at=side, **options)[1][-1 if index is None else index]

    def forward(
        self,
        z: Float[Tensor, "n d"],
        *,
        psi: float = 1.0,
        noise: Noise = "fixed",
        stop_at: int | None = None,
    ) -> Float[Tensor, "n 3 h2 w2"]:
        """Return images of latents z, truncated toward `w_avg` where `psi` is below 1."""
        w = self.mapping(z)
        if psi != 1.0:
            w = self.truncate(w, self.w_avg, psi)
        return self.synthesis(w, noise=noise, stop_at=stop_at)

    def _blocks_until(self, stop_at: int | None) -> int:
        if stop_at is None:
            return len(self.to_rgbs)
        if stop_at not in self.channels:
            raise ValueError(f"stop_at must be one of {list(self.channels)}, not {stop_at}")
        return list(self.channels).index(stop_at)

    def _per_layer(self, w: Tensor) -> Float[Tensor, "n l d"]:
        codes = broadcast_w(w, self.n_latent) if w.ndim == 2 else w
        if codes.ndim != 3 or codes.shape[1:] != (self.n_latent, self.style_dim):
            one, many = f"[N, {self.style_dim}]", f"[N, {self.n_latent}, {self.style_dim}]"
            raise ValueError(f"w has shape {tuple(w.shape)}; this generator takes {one} or {many}")
        return codes

    def _per_modulation(self, offsets: Tensor | None) -> Sequence[Tensor | None]:
        if offsets is None:
            return [None] * (self.n_latent + len(self.to_rgbs))
        sizes = self.style_sizes
        if offsets.ndim != 2 or offsets.shape[1] != sum(sizes):
            raise ValueError(
                f"style_offsets has shape {tuple(offsets.shape)}; this generator takes [N, {sum(sizes)}]"
            )
        return offsets.split(sizes, dim=1)

    def _noise(self, index: int, kind: Noise, batch: int) -> Tensor | None:
        if kind == "none":
            return None
        stored = getattr(self.noises, f"noise_{index}")
        if kind == "fixed":
            return stored
        if kind == "random":
            return torch.randn(batch, *stored.shape[1:], device=stored.device, dtype=stored.dtype)
        raise ValueError(f'noise must be "fixed", "random" or "none", not {kind!r}')


class _Insertion(NamedTuple):
    """A change of one activation: see `Generator.synthesis`."""

    feature: Tensor | None
    blend: float | Tensor
    offset: Tensor | None

    def place(self, index: int | None, *, last: int) -> int | None:
        """Return the number of the activation, or None if none changes."""
        inserted = self.feature if self.feature is not None else self.offset
        if inserted is None:
            return None
        index = feature_layer(inserted.shape[-1]) if index is None else index
        if not 0 <= index <= last:
            raise ValueError(f"feature_index must be 0 to {last} (later has no effect), not {index}")
        return index

    def apply(self, x: Float[Tensor, "n c h w"], index: int) -> Float[Tensor, "n c h w"]:
        """Return the activation, F, or a mixture of both, plus the offset."""
        if self.feature is not None:
            _check_shape("feature", self.feature, tuple(x.shape), index)
            blend = self.blend.to(x.dtype) if isinstance(self.blend, Tensor) else self.blend
            x = (1 - blend) * x + blend * self.feature.to(x.dtype)
        if self.offset is None:
            return x
        count = len(x) if len(self.offset) > 1 else 1
        _check_shape("feature_offset", self.offset, (count, *x.shape[1:]), index)
        return x + self.offset.to(x.dtype)


def _check_shape(name: str, value: Tensor, expected: tuple[int, ...], index: int) -> None:
    if tuple(value.shape) != expected:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; activation {index} has {expected}")
