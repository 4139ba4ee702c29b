"""The named directions of a world, one per factor: the explorer's named sliders.

InterFaceGAN (arXiv 1907.10786) and StyleSpace (arXiv 2011.12799) each find a direction for every factor; the
one with less leakage is kept. Directions are a link of the chain of weights: they depend on the generator and
on the attribute regressor, and their card has the digests of both.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from clcae_lib.devices import resolve_device
from clcae_lib.editing.direction import Direction, load_directions, save_directions
from clcae_lib.editing.find import Finder, cached_directions
from clcae_lib.editing.response import factor_column, response, sample_codes
from clcae_lib.editing.stylespace import channel_spread
from clcae_lib.files import sha256
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import World, WorldError

FACTORS = (
    "yaw",
    "pitch",
    "smile",
    "mouth_open",
    "eye_open",
    "age",
    "glasses",
    "beard",
    "hair_length",
    "hair_lightness",
    "hair_grey",
    "light_azimuth",
    "background_lightness",
)
"""Factors that get a direction, if the world has them."""
MIN_MOVED = 0.5
"""Minimum response to strength 1, in standard deviations, for a direction to be kept."""
FINDERS: tuple[Finder, ...] = ("interfacegan", "stylespace")
SAMPLES = 3000
MEASURED_ON = 48

_log = logging.getLogger(__name__)


def named_directions(
    world: World,
    factors: Sequence[str] | None = None,
    *,
    samples: int = SAMPLES,
    device: torch.device | str = "auto",
) -> dict[str, Direction]:
    """Return a direction for each factor, from the world's file or found now, in a minute or two.

    Args:
        world: world whose file `directions` is read if it was made for its generator and regressor.
        factors: names of factors; those of `FACTORS` that the world has if None.
        samples: number of codes that each method uses, if directions must be found.

    Returns:
        A direction for each factor that the generator follows, with `moved` and `leakage` in its provenance.

    Raises:
        WorldError: the world has no generator or no attribute regressor.
        ValueError: a factor does not exist.
    """
    if factors is None:
        shipped = _shipped(world)
        if shipped is not None:
            return shipped
    return _choose(world, factors, samples, resolve_device(device))


def install_directions(world: World, *, device: torch.device | str = "auto") -> Path:
    """Find the directions of a world, write them next to its weights with a card, and return the path.

    Raises:
        WorldError: the world has no generator or no attribute regressor.
    """
    if not world.factor_names:
        raise WorldError(
            f"the world {world.name!r} has no factors to name directions after; the explorer uses SeFa's "
            f"without this command, and published ones in {world.folder / 'directions'}"
        )
    device = resolve_device(device)
    found = _choose(world, None, SAMPLES, device)
    path = save_directions(world.weights("directions"), found)
    measures = {
        name: {fact: direction.provenance[fact] for fact in ("method", "moved", "leakage")}
        for name, direction in found.items()
    }
    card = {"command": f"clcae directions --world {world.name}", "device": str(device), "measures": measures}
    checkpoints.write_card(path, card | {"trained_on": _parents(world), "samples": SAMPLES})
    return path


def _parents(world: World) -> dict[str, str]:
    return {path.name: sha256(path) for path in (world.generator_file, world.weights("oracle_a"))}


def _shipped(world: World) -> dict[str, Direction] | None:
    """Return the directions in the world's folder, or None if they were made for other weights."""
    if not all(map(world.has, ("directions", "generator", "oracle_a"))):
        return None
    path = world.weights("directions")
    same = checkpoints.trained_on(checkpoints.read_card(path)) == _parents(world)
    return load_directions(path) if same else None


def _choose(
    world: World, factors: Sequence[str] | None, samples: int, device: torch.device
) -> dict[str, Direction]:
    """Return for each factor the direction with the least leakage among those that the generator follows."""
    states = list(world.state_names)
    if factors is None:
        factors = [name for name in FACTORS if name in states] or states[: len(FACTORS)]
    if not factors:
        return {}
    options = {"samples": samples, "calibrated_on": MEASURED_ON, "conditional": False, "device": device}
    found = [cached_directions(world, factors, method, **options) for method in FINDERS]
    generator, oracle = world.generator(device), world.oracle("train", device)
    chosen = {}
    for name in factors:
        followed = [one[name] for one in found if _follows(one[name], generator)]
        measured = [_with_leakage(direction, world, generator, oracle) for direction in followed]
        if measured:
            chosen[name] = min(measured, key=lambda direction: direction.provenance["leakage"])
        else:
            _log.info("No direction for %s: this generator does not follow any", name)
    return chosen


def _follows(direction: Direction, generator: nn.Module) -> bool:
    """Return whether a step no longer than the standard deviation of the codes moves the factor."""
    spread = channel_spread(generator) if direction.space == "s" else generator.w_std
    reach = float(spread[direction.vector.to(spread) != 0].norm())
    return direction.provenance["moved"] >= MIN_MOVED and abs(direction.unit) <= reach


def _with_leakage(direction: Direction, world: World, generator: nn.Module, oracle: nn.Module) -> Direction:
    """Return the direction with its leakage: the root mean square response of other factors over its own."""
    w = sample_codes(generator, MEASURED_ON, seed=2)
    moves = response(generator, oracle, direction, w).mean(dim=0).cpu() / world.factor_std
    own = factor_column(world, direction.name)
    others = [k for k, name in enumerate(world.factor_names) if name in world.state_names and k != own]
    leakage = math.sqrt(moves[others].square().mean().item()) / abs(moves[own].item()) if others else 0.0
    return replace(direction, provenance=direction.provenance | {"leakage": round(leakage, 4)})
