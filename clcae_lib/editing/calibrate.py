"""Calibrated edits: strength 1 of a direction is one standard deviation of the factor it is named after.

Without this, strengths of two directions cannot be compared, nor an edit called too weak or too strong.
"""

from dataclasses import replace

import torch
from torch import nn

from clcae_lib.editing.direction import Direction
from clcae_lib.editing.response import response
from clcae_lib.editing.sampling import sample_codes


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
    rounds: int = 6,
    tolerance: float = 0.03,
) -> Direction:
    """The direction with its unit set so that strength 1 moves a factor by one standard deviation.

    The movement is the mean over sampled codes of half the change between strengths -1 and 1. A direction
    that lowers the factor is turned round. Where no step moves the factor that far, the best step is kept;
    `provenance["moved"]` says how far it moved, in standard deviations.

    Args:
        direction: what to calibrate.
        generator: gives codes and pictures.
        oracle: the copy that gives labels, never the one that measures.
        column: of the factor, in the oracle's output.
        std: standard deviation of the factor, in its unit.
        count: codes measured.
        seed: of the codes.
        rounds: how many steps are tried at most.
        tolerance: how near to 1 is near enough.
    """
    w = sample_codes(generator, count, seed=seed)

    def moved_by(trial: Direction) -> float:
        return response(generator, oracle, trial, w)[:, column].mean().item() / std

    trial = replace(direction, unit=_spread(direction, generator, w))
    moved = moved_by(trial)
    if moved < 0:
        trial, moved = trial.flipped(), -moved
    best, best_moved = trial, moved
    for _ in range(rounds - 1):
        if abs(best_moved - 1) < tolerance:
            break
        trial = replace(trial, unit=trial.unit * min(3.0, max(1 / 3, 1 / max(moved, 1e-6))))
        moved = moved_by(trial)
        if abs(moved - 1) < abs(best_moved - 1):
            best, best_moved = trial, moved
        elif moved < best_moved < 1:
            break  # a longer step moved the factor less: it has left what the generator can draw
    facts = {"moved": round(best_moved, 4), "calibrated_on": count, "calibration_seed": seed}
    return replace(best, provenance=direction.provenance | facts)


def _spread(direction: Direction, generator: nn.Module, w: torch.Tensor) -> float:
    """A first guess at the unit: the standard deviation of codes along the direction, per length of it."""
    codes = generator.styles(w) if direction.space == "s" else w
    vector = direction.vector.to(w)
    vector = vector if vector.ndim == 1 else vector.mean(dim=0)
    length = vector.norm().clamp(min=1e-12)
    return ((codes @ vector).std() / length**2).item()
