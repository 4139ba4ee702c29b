"""Editing an inverted picture in W, W+ and F at once (arXiv 2211.11448, section 3.4).

The feature follows the codes by what the generator itself would change:
`F_edit = F + G5(w_plus edited) - G5(w_plus)`, each picture of a batch by its own difference.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.editing.direction import Direction, Strength
from clcae_lib.inversion import Inversion

FEATURE_INDEX = 5
"""The activation that F replaces: the second at 16 pixels."""


def apply(
    generator: nn.Module,
    inversion: Inversion,
    direction: Direction,
    strength: Strength = 1.0,
    *,
    layers: Sequence[int] | None = None,
) -> Inversion:
    """The inversion, edited; the one given stays as it was.

    Args:
        generator: the one that the codes belong to.
        inversion: codes `w`, `w_plus` and, unless None, `feature`.
        direction: what to change.
        strength: how far, in the direction's unit; one number, or one for each picture.
        layers: act on these rows of W+ alone. W, which has no rows, then stays as it was.
    """
    return apply_all(generator, inversion, [(direction, strength)], layers=layers)


@torch.no_grad()
def apply_all(
    generator: nn.Module,
    inversion: Inversion,
    edits: Sequence[tuple[Direction, Strength]],
    *,
    layers: Sequence[int] | None = None,
) -> Inversion:
    """The inversion after several edits, each a direction and a strength; their order does not matter.

    Raises:
        ValueError: a direction's rows do not fit the generator's.
    """
    w, w_plus = inversion.w, inversion.w_plus
    for direction, strength in edits:
        chosen = direction if layers is None else direction.restricted(layers)
        step = chosen.to(w.device).step(strength)
        if chosen.space == "w":
            w = w + step
        w_plus = w_plus + _per_row(chosen, step, rows=w_plus.shape[1])
    return Inversion(w, w_plus, carry_feature(generator, inversion.feature, inversion.w_plus, w_plus))


def _per_row(direction: Direction, step: Tensor, *, rows: int) -> Tensor:
    """A step as it acts on the rows of W+: `[L, D]` or `[N, L, D]`, zero where the direction does not act."""
    if direction.vector.ndim == 1:
        step = step.unsqueeze(-2).expand(*step.shape[:-1], rows, step.shape[-1])
    if step.shape[-2] != rows or max(direction.layers or (0,)) >= rows:
        raise ValueError(
            f"{direction.name}: made for {direction.vector.shape[0]} rows, on layers {direction.layers}; "
            f"this generator's W+ has {rows}"
        )
    if direction.layers is None:
        return step
    mask = torch.zeros(rows, 1, device=step.device, dtype=step.dtype)
    mask[list(direction.layers)] = 1
    return step * mask


@torch.no_grad()
def carry_feature(
    generator: nn.Module,
    feature: Tensor | None,
    before: Float[Tensor, "n l d"],
    after: Float[Tensor, "n l d"],
) -> Tensor | None:
    """F moved by the difference between the generator's own activations of two codes; None stays None."""
    if feature is None:
        return None
    return feature + activation(generator, after) - activation(generator, before)


def activation(
    generator: nn.Module, w_plus: Float[Tensor, "n l d"], *, index: int = FEATURE_INDEX
) -> Float[Tensor, "n c h w"]:
    """The generator's activation `index` for these codes, running no layer above its resolution.

    Args:
        generator: a StyleGAN2.
        w_plus: codes in W+.
        index: 0 the constant, 1 the first convolution, 2 + i is `convs[i]`.
    """
    side = 4 << (index // 2)
    return generator.synthesis(w_plus, stop_at=side, return_features=True)[1][index]


def interpolate(a: Inversion, b: Inversion, amount: float) -> Inversion:
    """The inversion `amount` of the way from `a`, 0, to `b`, 1, in W, W+ and F alike."""
    feature = None
    if a.feature is not None and b.feature is not None:
        feature = torch.lerp(a.feature, b.feature, amount)
    return Inversion(torch.lerp(a.w, b.w, amount), torch.lerp(a.w_plus, b.w_plus, amount), feature)


@torch.no_grad()
def traverse(
    generator: nn.Module,
    inversion: Inversion,
    direction: Direction,
    strengths: Sequence[float | int] = (-2, -1, 0, 1, 2),
    *,
    space: str = "f",
) -> Float[Tensor, "n s 3 h w"]:
    """Pictures of every inversion at every strength of an edit, in [-1, 1].

    Args:
        generator: the one that the codes belong to.
        inversion: N inverted pictures.
        direction: what to change.
        strengths: S strengths, in the direction's unit.
        space: what is decoded: "w", "w_plus", or "f", the codes of W+ with F.
    """
    edited = (apply(generator, inversion, direction, s) for s in strengths)
    return torch.stack([codes.decode(generator, space=space) for codes in edited], dim=1)
