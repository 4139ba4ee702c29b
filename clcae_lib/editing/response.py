"""Measure how a direction changes the factors, by the attribute regressor in the role "train".

After calibration, strength 1 of a direction is one standard deviation of the factor that it is named after,
so that strengths of two directions can be compared (no section of the paper).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib.editing.apply import apply
from clcae_lib.editing.direction import Direction
from clcae_lib.inversion import Inversion
from clcae_lib.worlds import World


@torch.no_grad()
def sample_codes(generator: nn.Module, count: int, *, seed: int) -> Float[Tensor, "n d"]:
    """Return `count` codes of W, untruncated, on the generator's device; the same on every device."""
    return generator.sample_w(count, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def in_batches(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Return `function` of all rows of `values`, computed for 64 rows at a time."""
    return torch.cat([function(part) for part in values.split(64)])


def factor_column(world: World, factor: str) -> int:
    """Return the column of a factor among all factors of a world.

    Raises:
        ValueError: the world does not have the factor.
    """
    if factor not in world.factor_names:
        raise ValueError(f"{factor!r} is not a factor of {world.name}: {', '.join(world.factor_names)}")
    return list(world.factor_names).index(factor)


@dataclass(frozen=True)
class Labelled:
    """Sampled codes, and the factors of their images in the factors' own units."""

    w: Float[Tensor, "n d"]
    factors: Float[Tensor, "n k"]


@torch.no_grad()
def label_codes(generator: nn.Module, oracle: nn.Module, count: int, *, seed: int) -> Labelled:
    """Return sampled codes with the factors that the attribute regressor reads off their images.

    Args:
        oracle: attribute regressor in the role "train", not the one for measures: images `[N, 3, R, R]` to
            factors `[N, K]`.
    """
    w = sample_codes(generator, count, seed=seed)
    return Labelled(w, in_batches(lambda part: oracle(generator.synthesis(part)), w))


@torch.no_grad()
def response(
    generator: nn.Module,
    oracle: nn.Module,
    direction: Direction,
    w: Float[Tensor, "n d"],
    *,
    strength: float | int = 1.0,
) -> Float[Tensor, "n k"]:
    """Return half the change of each factor between strength `-strength` and `+strength`, for each code.

    Args:
        oracle: attribute regressor, in either role.
        strength: strength in the direction's unit.
    """

    def difference(part: Tensor) -> Tensor:
        codes = Inversion.from_w(part, generator)
        ends = (apply(generator, codes, direction, sign * strength) for sign in (1, -1))
        up, down = (oracle(generator.synthesis(end.w_plus, style_offsets=end.styles)) for end in ends)
        return (up - down) / 2

    return in_batches(difference, w)


def effects(
    generator: nn.Module,
    oracle: nn.Module,
    directions: Sequence[Direction],
    *,
    std: Float[Tensor, " k"],
    count: int = 64,
    seed: int = 0,
) -> Float[Tensor, "m k"]:
    """Return the mean response of every factor to every direction, in standard deviations of the factor.

    Args:
        directions: M directions, at strength 1.
        std: standard deviations of the factors.
    """
    w = sample_codes(generator, count, seed=seed)
    moved = [response(generator, oracle, d, w).mean(dim=0) for d in directions]
    return torch.stack(moved) / std.to(w)


def pick(table: Float[Tensor, "m k"], column: int) -> int:
    """Return the row of `effects` with the largest product of a factor's response and its share."""
    share = table.square() / table.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
    return int((table.abs() * share)[:, column].argmax())


@torch.no_grad()
def calibrate(
    direction: Direction,
    generator: nn.Module,
    oracle: nn.Module,
    *,
    column: int,
    std: float,
    count: int = 128,
    seed: int = 0,
) -> Direction:
    """Return the direction with a unit such that strength 1 moves a factor by one standard deviation.

    The response is the mean over sampled codes, within 3 %. A direction that lowers the factor is reversed.
    If no unit moves the factor that far, the best one of six is used; `provenance["moved"]` is its response
    in standard deviations.

    Args:
        column: column of the factor in the regressor's output.
        std: standard deviation of the factor, in its unit.
    """
    w = sample_codes(generator, count, seed=seed)

    def moved_by(trial: Direction) -> float:
        return response(generator, oracle, trial, w)[:, column].mean().item() / std

    codes, vector = generator.styles(w) if direction.space == "s" else w, direction.vector.to(w)
    vector = vector if vector.ndim == 1 else vector.mean(dim=0)
    along = (codes @ vector).std() / vector.norm().clamp(min=1e-12) ** 2  # one sd of the codes
    trial = replace(direction, unit=along.item())
    moved = moved_by(trial)
    if moved < 0:
        trial, moved = trial.flipped(), -moved
    best, best_moved = trial, moved
    for _ in range(5):
        if abs(best_moved - 1) < 0.03:
            break
        trial = replace(trial, unit=trial.unit * min(3.0, max(1 / 3, 1 / max(moved, 1e-6))))
        moved = moved_by(trial)
        if abs(moved - 1) < abs(best_moved - 1):
            best, best_moved = trial, moved
        elif moved < best_moved < 1:
            break  # a longer step moves the factor less: the code is too far from W
    facts = {"moved": round(best_moved, 4), "calibrated_on": count, "calibration_seed": seed}
    return replace(best, provenance=direction.provenance | facts)
