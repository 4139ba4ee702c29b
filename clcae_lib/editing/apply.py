"""Edit an inverted image in W, W+, StyleSpace and F (arXiv 2211.11448, section 3.4).

F changes by as much as the generator's own activation:
`F_edit = F + G5(w_plus edited) - G5(w_plus)`, for each image of a batch. The same is done for edits of styles
(arXiv 2011.12799), which the paper does not have.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.editing.direction import Direction, Strength
from clcae_lib.inversion import Inversion


def apply(
    generator: nn.Module,
    inversion: Inversion,
    direction: Direction,
    strength: Strength = 1.0,
    *,
    layers: Sequence[int] | None = None,
) -> Inversion:
    """Return the edited inversion; the given one is not changed.

    Args:
        strength: strength in the direction's unit, one number or one for each image.
        layers: rows of W+ (in StyleSpace, their styles) that the edit is limited to; w then does not change.
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
    """Return the inversion after several edits, each a direction and a strength, in any order.

    Raises:
        ValueError: a direction does not fit the generator's codes; the message names it.
    """
    w, w_plus, styles = inversion.w, inversion.w_plus, inversion.styles
    for direction, strength in edits:
        chosen = direction if layers is None else direction.restricted(layers)
        _require_layers(chosen, w_plus.shape[1])
        step = chosen.to(w.device).step(strength)
        if chosen.space == "s":
            styles = _per_channel(generator, chosen, step, count=len(w)) + (0 if styles is None else styles)
            continue
        per_row = _per_row(chosen, step, like=w_plus)
        if chosen.space == "w":
            w = w + step
        w_plus = w_plus + per_row
    return _with_feature(generator, inversion, replace(inversion, w=w, w_plus=w_plus, styles=styles))


def _with_feature(generator: nn.Module, before: Inversion, after: Inversion) -> Inversion:
    """Return the codes `after` with the F of `before`, which the decoder adapts to them."""
    if before.feature is None:
        return after
    return replace(after, feature=before.decoder.carry(generator, before, after))


def _require(direction: Direction, found: int, own: int, what: str) -> None:
    """Refuse a direction that was made for another generator."""
    if found != own:
        raise ValueError(f"{direction.name}: made for {found} {what}; this generator has {own}")


def _require_layers(direction: Direction, rows: int) -> None:
    """Refuse a direction that acts on rows which W+ does not have."""
    if not all(0 <= layer < rows for layer in direction.layers or ()):
        acts = f"{direction.name}: acts on layers {list(direction.layers)}"
        raise ValueError(f"{acts}; the rows of this generator's W+ are 0 to {rows - 1}")


def _per_channel(generator: nn.Module, direction: Direction, step: Tensor, *, count: int) -> Tensor:
    """Return a step in StyleSpace for each of `count` images, zero where the direction does not act."""
    rows = torch.tensor(generator.style_rows, device=step.device)
    _require(direction, step.shape[-1], len(rows), "style channels")
    if direction.layers is not None:
        step = step * torch.isin(rows, torch.tensor(direction.layers, device=rows.device))
    return step.expand(count, -1)


def _per_row(direction: Direction, step: Tensor, *, like: Float[Tensor, "n l d"]) -> Tensor:
    """Return a step on the rows of W+: `[L, D]` or `[N, L, D]`, zero where the direction does not act."""
    rows, width = like.shape[1:]
    _require(direction, step.shape[-1], width, "numbers in a code")
    if direction.vector.ndim == 1:
        step = step.unsqueeze(-2).expand(*step.shape[:-1], rows, width)
    _require(direction, step.shape[-2], rows, "rows of W+")
    if direction.layers is None:
        return step
    mask = torch.zeros(rows, 1, device=step.device, dtype=step.dtype)
    mask[list(direction.layers)] = 1
    return step * mask


@torch.no_grad()
def mix(generator: nn.Module, a: Inversion, b: Inversion, layers: Sequence[int]) -> Inversion:
    """Return the inversion `a` with these rows of W+ from `b`: style mixing (arXiv 1812.04948, section 3.1).

    Edits of the styles of those rows are taken from `b` too. F is that of `a`, changed as in an edit; w and
    the decoder are those of `a`.

    Args:
        b: N inversions, or one for all.
        layers: rows of W+, from 0; early rows change the shape of the head, late rows its colours.

    Raises:
        ValueError: W+ does not have one of the rows.
    """
    count = a.w_plus.shape[1]
    if not all(0 <= row < count for row in layers):
        raise ValueError(f"layers={list(layers)}: the rows of W+ are 0 to {count - 1}")
    chosen = torch.zeros(count, dtype=torch.bool, device=a.w.device)
    chosen[list(layers)] = True
    w_plus, styles = torch.where(chosen[:, None], b.w_plus, a.w_plus), None
    if a.styles is not None or b.styles is not None:
        ours, theirs = (0.0 if x.styles is None else x.styles for x in (a, b))
        styles = torch.where(chosen[generator.style_rows], theirs, ours).expand(len(a), -1)
    return _with_feature(generator, a, replace(a, w_plus=w_plus, styles=styles))


def interpolate(a: Inversion, b: Inversion, amount: float) -> Inversion:
    """Return the inversion between `a`, at amount 0, and `b`, at 1, linear in W, W+, F and styles.

    F and tuned tensors are left out if `a` or `b` has none.
    """
    feature = styles = None
    if a.feature is not None and b.feature is not None:
        feature = torch.lerp(a.feature, b.feature, amount)
    if a.styles is not None or b.styles is not None:
        ours, theirs = (0.0 if x.styles is None else x.styles for x in (a, b))
        styles = (1 - amount) * ours + amount * theirs
    w, w_plus = torch.lerp(a.w, b.w, amount), torch.lerp(a.w_plus, b.w_plus, amount)
    return Inversion(w, w_plus, feature, styles, a.decoder.interpolate(b.decoder, amount))


@torch.no_grad()
def traverse(
    generator: nn.Module,
    inversion: Inversion,
    direction: Direction,
    strengths: Sequence[float | int] = (-2, -1, 0, 1, 2),
    *,
    space: str = "f",
) -> Float[Tensor, "n s 3 h w"]:
    """Return the images of every inversion at every strength of an edit, in [-1, 1].

    Args:
        strengths: S strengths, in the direction's unit.
        space: space that is decoded: "w", "w_plus" or "f".
    """
    edited = (apply(generator, inversion, direction, s) for s in strengths)
    return torch.stack([codes.decode(generator, space=space) for codes in edited], dim=1)
