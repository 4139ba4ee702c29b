"""Decoders of an inversion: the unchanged generator, one tuned per image, or one with a restored or edited F.

Pivotal tuning (arXiv 2106.05744) gives each image its own weights, and the projector of StyleGAN2 (arXiv
1912.04958, appendix D) its own noise maps. HFGI (arXiv 2109.06590) restores in F what the codes lost.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from clcae_lib.models import FeatureEditor, Generator

if TYPE_CHECKING:
    from clcae_lib.inversion.inversion import Inversion

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
