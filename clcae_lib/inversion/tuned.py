"""Synthesis where every picture has values of its own for some of the generator's tensors.

Pivotal tuning (arXiv 2106.05744) gives each picture its own weights, and the projector of StyleGAN2 (arXiv
1912.04958, appendix D) its own noise maps. Both are tensors of the generator under its own names, here with
one more dimension in front, the batch. Other tensors are the generator's.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

NOISE = "noises."
"""What the names of noise maps begin with: those fit a batch as they are."""


def synthesise(
    generator: nn.Module,
    codes: Float[Tensor, "n d"] | Float[Tensor, "n l d"],
    *,
    tuned: Mapping[str, Tensor] | None = None,
    **options: Any,
) -> Tensor | tuple[Tensor, list[Tensor]]:
    """What `generator.synthesis` returns, each picture by its own tensors.

    Pictures with their own weights are made one after another; such with their own noise maps alone, at once.

    Args:
        generator: a StyleGAN2, which stays as it is, for other threads too.
        codes: in W or W+.
        tuned: for some names of its `state_dict`, one value a picture, joined in front; None where there are
            none.
        options: of `Generator.synthesis`; tensors have one row a picture, or one for all.
    """
    if not tuned:
        return generator.synthesis(codes, **options)
    if all(name.startswith(NOISE) for name in tuned):
        maps = {name: value.flatten(0, 1) for name, value in tuned.items()}
        return _call(generator, maps, codes, options)
    count = len(codes)
    made = [
        _call(
            generator, row_of(tuned, i), codes[i : i + 1], {k: _row(v, i, count) for k, v in options.items()}
        )
        for i in range(count)
    ]
    return _join(made)


def activation(
    generator: nn.Module,
    w_plus: Float[Tensor, "n l d"],
    *,
    side: int = 16,
    styles: Float[Tensor, "n s"] | None = None,
    tuned: Mapping[str, Tensor] | None = None,
) -> Float[Tensor, "n c h w"]:
    """The generator's second activation at a side for these codes, running no layer above that side.

    Args:
        generator: a StyleGAN2.
        w_plus: codes in W+.
        side: of the activation, in pixels: that of the F in whose place it is.
        styles: an offset in StyleSpace.
        tuned: each picture's own tensors, as in `Inversion`.
    """
    options = {"stop_at": side, "style_offsets": styles, "return_features": True}
    return synthesise(generator, w_plus, tuned=tuned, **options)[1][-1]


def row_of(tuned: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """One picture's own tensors, in the generator's shapes."""
    return {name: value[index] for name, value in tuned.items()}


class _Synthesis(nn.Module):
    """The generator with its synthesis as what a call does."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.generator.synthesis(*arguments, **options)


def _call(
    generator: nn.Module, values: Mapping[str, Tensor], codes: Tensor, options: Mapping[str, Any]
) -> Any:
    named = {f"generator.{name}": value for name, value in values.items()}
    return functional_call(_Synthesis(_shell(generator)), named, (codes,), dict(options))


def _shell(module: nn.Module) -> nn.Module:
    """Return the module with the same tensors under names of its own.

    `functional_call` puts other tensors under a module's names while it runs, where other threads see them.
    """
    shell = copy.copy(module)
    shell._parameters, shell._buffers = dict(module._parameters), dict(module._buffers)
    shell._modules = {name: part if part is None else _shell(part) for name, part in module._modules.items()}
    return shell


def _row(value: Any, index: int, count: int) -> Any:
    """What of an option belongs to one picture."""
    several = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
    return value[index : index + 1] if several else value


def _join(made: list[Any]) -> Any:
    if isinstance(made[0], Tensor):
        return torch.cat(made)
    features = [torch.cat(each) for each in zip(*(features for _, features in made), strict=True)]
    return torch.cat([image for image, _ in made]), features
