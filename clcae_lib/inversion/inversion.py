"""The codes of a batch of images in W, W+ and F (arXiv 2211.11448, section 3.2), and their decoder.

No inverter looks for styles; only an edit in StyleSpace adds them, so they are kept as an offset.

The decoder is the unchanged generator, one tuned per image, or one with a restored or edited F. Pivotal
tuning (arXiv 2106.05744) gives each image its own weights, and the projector of StyleGAN2 (arXiv 1912.04958,
appendix D) its own noise maps. HFGI (arXiv 2109.06590) restores in F what the codes lost.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from clcae_lib.models import Codes, FeatureEditor, Generator
from clcae_lib.spaces import SPACES, broadcast_w

NOISE = "noises."
"""Prefix of the names of noise maps; the generator accepts these with a batch dimension."""


@dataclass(frozen=True)
class Plain:
    """Decodes with the unchanged generator; the base of the other decoders.

    Attributes:
        index: number of the activation that F replaces; by default the second one at F's side.
    """

    index: int | None = field(default=None, kw_only=True)

    def decode(
        self, generator: Generator, codes: Float[Tensor, "n d"] | Float[Tensor, "n l d"], **options: Any
    ) -> Float[Tensor, "n 3 h w"]:
        """Return the images of codes; the options are those of `Generator.synthesis`."""
        if self.index is not None and options.get("feature") is not None:
            options["feature_index"] = self.index
        return self._call(generator, "synthesis", codes, options)

    def activation(
        self, generator: Generator, codes: Float[Tensor, "n l d"], **options: Any
    ) -> Float[Tensor, "n c h w"]:
        """Return the generator's own activation that F replaces; the options are those of `activation`."""
        placed = {} if self.index is None else {"index": self.index}
        return self._call(generator, "activation", codes, options | placed)

    def _call(self, generator: Generator, method: str, codes: Tensor, options: dict[str, Any]) -> Tensor:
        return getattr(generator, method)(codes, **options)

    def carry(self, generator: Generator, before: Inversion, after: Inversion) -> Float[Tensor, "n c h w"]:
        """Return the F of edited codes: `F + G5(after) - G5(before)` (arXiv 2211.11448, section 3.4)."""
        own, moved = self._activations(generator, before, after)
        return before.feature + moved - own

    def _activations(self, generator: Generator, before: Inversion, after: Inversion) -> list[Tensor]:
        """Return the generator's activations of the codes before and after an edit."""
        side = before.feature.shape[-1]
        return [
            self.activation(generator, codes.w_plus, side=side, style_offsets=codes.styles)
            for codes in (before, after)
        ]

    def interpolate(self, other: Plain, amount: float) -> Plain:
        """Return the decoder interpolated by `amount` toward another one; plain unless both are tuned."""
        return Plain(index=self.index)

    def tuned(self, tensors: Mapping[str, Tensor]) -> Plain:
        """Return the decoder with these tensors for each image, in addition to its own; F is not restored."""
        return Tuned(tensors, index=self.index) if tensors else Plain(index=self.index)


@dataclass(frozen=True)
class Tuned(Plain):
    """Decodes each image with its own values of some of the generator's tensors.

    Images with their own weights are synthesised one at a time; images with only their own noise maps are
    batched. Tensors among the options have one row per image, or one for all.

    Attributes:
        tensors: values by their names in the generator's `state_dict`, with the batch as first dimension.
    """

    tensors: Mapping[str, Tensor]

    def interpolate(self, other: Plain, amount: float) -> Plain:
        """Return the decoder with tensors interpolated by `amount` toward those of another one."""
        if not isinstance(other, Tuned):
            return Plain(index=self.index)
        between = {k: torch.lerp(value, other.tensors[k], amount) for k, value in self.tensors.items()}
        return Tuned(between, index=self.index)

    def tuned(self, tensors: Mapping[str, Tensor]) -> Tuned:
        """Return the decoder with these tensors for each image, in addition to its own."""
        return Tuned({**self.tensors, **tensors}, index=self.index)

    def _call(self, generator: Generator, method: str, codes: Tensor, options: dict[str, Any]) -> Tensor:
        if all(name.startswith(NOISE) for name in self.tensors):
            maps = {name: value.flatten(0, 1) for name, value in self.tensors.items()}
            return _call_with(generator, maps, method, codes, options)
        rows = []
        for i in range(len(codes)):
            own = {name: value[i] for name, value in self.tensors.items()}
            row = {name: _row(value, i, len(codes)) for name, value in options.items()}
            rows.append(_call_with(generator, own, method, codes[i : i + 1], row))
        return torch.cat(rows)


@dataclass(frozen=True)
class Restoring(Plain):
    """Decodes with the unchanged generator; restores F from a distortion map after every edit (HFGI).

    Attributes:
        network: network whose `feature(generator, lost, w_plus, styles=...)` computes F.
        lost: the images minus their reconstructions from `w_plus`, `[N, 3, H, W]`.
    """

    network: nn.Module
    lost: Float[Tensor, "n 3 h w"]

    def carry(self, generator: Generator, before: Inversion, after: Inversion) -> Float[Tensor, "n c h w"]:
        """Return F restored for the edited codes."""
        return self.network.feature(generator, self.lost, after.w_plus, styles=after.styles)


@dataclass(frozen=True)
class Editing(Plain):
    """Decodes with the unchanged generator; a network adapts F to edits.

    Attributes:
        network: the feature editor.
    """

    network: FeatureEditor

    def carry(self, generator: Generator, before: Inversion, after: Inversion) -> Float[Tensor, "n c h w"]:
        """Return the activation of the edited codes plus the residual that the network predicts."""
        own, moved = self._activations(generator, before, after)
        return moved + self.network(before.feature - own, own, moved)


@dataclass(frozen=True)
class Inversion:
    """The codes of a batch of images, and their decoder.

    Attributes:
        w: foundation codes.
        w_plus: one code per generator layer.
        feature: F, which replaces the generator's second activation at F's side (16x16 unless an encoder was
            trained otherwise); None if the inverter has no F.
        styles: offset that edits in StyleSpace have added to the styles of all layers; None without one.
        decoder: `Plain`, `Tuned` (PTI, noise maps), `Restoring` (HFGI), or `Editing` (the feature editor).
    """

    w: Float[Tensor, "n d"]
    w_plus: Float[Tensor, "n l d"]
    feature: Float[Tensor, "n c h w"] | None = None
    styles: Float[Tensor, "n s"] | None = None
    decoder: Plain = field(default_factory=Plain)

    @classmethod
    def from_codes(cls, codes: Codes) -> Inversion:
        """Return the inversion of a network's output, in float32 and without gradient."""
        return cls(*(part if part is None else part.detach().float() for part in codes))

    @classmethod
    def from_w(cls, w: Float[Tensor, "n d"], generator: Generator) -> Inversion:
        """Return the inversion of codes of W: the same code at every layer."""
        return cls(w, broadcast_w(w, generator.n_latent))

    @classmethod
    def cat(cls, parts: Sequence[Inversion]) -> Inversion:
        """Return several batches as one; they must have the same kinds of codes and decoders.

        Raises:
            ValueError: `parts` is empty, as for no images.
        """
        if not parts:
            raise ValueError("images: none were given; give at least one")
        return _join(parts)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.w)

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Inversion:
        """Return the codes of some of the images; a single index keeps the batch dimension."""
        rows = [index] if isinstance(index, int) else index
        return self.map(lambda part: part[rows])

    def to(self, device: torch.device | str) -> Inversion:
        """Return the same codes on another device."""
        return self.map(lambda part: part.to(device))

    def map(self, function: Callable[[Tensor], Tensor]) -> Inversion:
        """Return the inversion with `function` applied to every tensor, including the decoder's."""
        return _map(function, self)

    @property
    def spaces(self) -> tuple[str, ...]:
        """The spaces that it can be decoded from, the most editable first."""
        return SPACES if self.feature is not None else SPACES[:2]

    def decode(
        self, generator: Generator, space: str = "f", *, noise: str = "fixed"
    ) -> Float[Tensor, "n 3 h w"]:
        """Return the images, nominally in [-1, 1].

        Args:
            generator: generator of the inverter that made the codes.
            space: `w`, `w_plus`, or `f`: W+ with F inserted.

        Raises:
            ValueError: `space` is unknown, or there is no F.
        """
        if space not in self.spaces:
            known = ", ".join(map(repr, self.spaces))
            raise ValueError(f"space={space!r}: this inversion can be decoded from {known}")
        options: dict[str, Any] = {"noise": noise, "style_offsets": self.styles}
        if space == "w":
            return self.decoder.decode(generator, self.w, **options)
        feature = self.feature if space == "f" else None
        return self.decoder.decode(generator, self.w_plus, feature=feature, **options)


def _map(function: Callable[[Tensor], Tensor], part: Any) -> Any:
    """Apply the function to a tensor or to all tensors of a mapping or dataclass; keep other values."""
    if isinstance(part, Tensor):
        return function(part)
    if isinstance(part, Mapping):
        return {name: _map(function, value) for name, value in part.items()}
    if is_dataclass(part):
        return replace(part, **{f.name: _map(function, getattr(part, f.name)) for f in fields(part)})
    return part


def _join(parts: Sequence[Any]) -> Any:
    """Concatenate tensors, also inside mappings and dataclasses; for other values, return the first."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if isinstance(first, Mapping):
        return {name: _join([part[name] for part in parts]) for name in first}
    if is_dataclass(first):
        return replace(first, **{f.name: _join([getattr(p, f.name) for p in parts]) for f in fields(first)})
    return first


class _Call(nn.Module):
    """Calls a method of the generator, so that `functional_call` can replace its tensors."""

    def __init__(self, generator: nn.Module, method: str) -> None:
        super().__init__()
        self.generator, self.method = generator, method

    def forward(self, codes: Tensor, **options: Any) -> Tensor:
        return getattr(self.generator, self.method)(codes, **options)


def _call_with(
    generator: nn.Module, values: Mapping[str, Tensor], method: str, codes: Tensor, options: dict[str, Any]
) -> Tensor:
    named = {f"generator.{name}": value for name, value in values.items()}
    return functional_call(_Call(_shell(generator), method), named, (codes,), options)


def _shell(module: nn.Module) -> nn.Module:
    """Return a copy with the same tensors; `functional_call` changes a module that other threads may use."""
    shell = copy.copy(module)
    shell._parameters, shell._buffers = dict(module._parameters), dict(module._buffers)
    shell._modules = {name: part if part is None else _shell(part) for name, part in module._modules.items()}
    return shell


def _row(value: Any, index: int, count: int) -> Any:
    several = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
    return value[index : index + 1] if several else value
