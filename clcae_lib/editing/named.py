"""The best direction known for each factor of a world, shipped with it: what sliders are named after.

InterFaceGAN's boundaries (arXiv 1907.10786) and StyleSpace's channels (arXiv 2011.12799) are both looked for;
each factor keeps the one that drags the others along less. They depend on the generator and on the judge that
labels, and are a link of the chain of weights: the card names both by digest.
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
from clcae_lib.editing.find import Method, cached_directions
from clcae_lib.editing.response import response
from clcae_lib.editing.sampling import sample_codes
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
"""The factors that get one, where a world has them: what a visitor would ask for first."""
MIN_MOVED = 0.5
"""The least that strength 1 must move its factor, in standard deviations, for a direction to be kept."""
METHODS: tuple[Method, ...] = ("interfacegan", "stylespace")
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
    """The direction of each factor: read from the world's own file, or found in a minute or two.

    Args:
        world: its weights `directions` are read if they were made for its generator and judge.
        factors: which; `FACTORS`, as far as the world has them, if None.
        samples: codes looked at, where directions must be found.
        device: where the networks run.

    Returns:
        A direction for each factor that the generator follows; its provenance has `moved` and `leakage`.

    Raises:
        WorldError: the world has no generator or no oracle.
        ValueError: a factor does not exist.
    """
    if factors is None:
        shipped = _shipped(world)
        if shipped is not None:
            return shipped
        factors = _known(world)
    return _choose(world, factors, samples, resolve_device(device) if isinstance(device, str) else device)


def install_directions(world: World, *, device: torch.device | str = "auto") -> Path:
    """Find the directions of a world anew, write them beside its weights with their card, return the path.

    Raises:
        WorldError: the world has no generator or no oracle.
    """
    if not world.factor_names:
        raise WorldError(
            f"the world {world.name!r} has no factors to name directions after; the explorer finds SeFa's "
            f"by itself, and takes published ones from {world.folder / 'directions'}"
        )
    place = resolve_device(device) if isinstance(device, str) else device
    found = _choose(world, _known(world), SAMPLES, place)
    path = save_directions(world.weights("directions"), found)
    measures = {name: _facts(direction) for name, direction in found.items()}
    card = {"command": f"clcae directions --world {world.name}", "device": str(place), "measures": measures}
    checkpoints.write_card(path, card | {"trained_on": _parents(world), "samples": SAMPLES})
    return path


def _facts(direction: Direction) -> dict[str, object]:
    return {name: direction.provenance[name] for name in ("method", "moved", "leakage")}


def _parents(world: World) -> dict[str, str]:
    return {path.name: sha256(path) for path in (world.generator_file, world.weights("oracle_a"))}


def _shipped(world: World) -> dict[str, Direction] | None:
    """The directions beside the weights, unless these are others by now."""
    if not all(map(world.has, ("directions", "generator", "oracle_a"))):
        return None
    path = world.weights("directions")
    same = checkpoints.trained_on(checkpoints.read_card(path)) == _parents(world)
    return load_directions(path) if same else None


def _known(world: World) -> list[str]:
    states = list(world.state_names)
    return [name for name in FACTORS if name in states] or states[: len(FACTORS)]


def _choose(world: World, factors: Sequence[str], samples: int, device: torch.device) -> dict[str, Direction]:
    """Of both methods' directions, for each factor, the one that leaks less."""
    if not factors:
        return {}
    options = {"samples": samples, "calibrated_on": MEASURED_ON, "conditional": False, "device": device}
    found = [cached_directions(world, factors, method, **options) for method in METHODS]
    generator, oracle = world.generator(device), world.oracle("train", device)
    chosen = {}
    for name in factors:
        followed = [one[name] for one in found if _follows(one[name], generator)]
        measured = [_measured(direction, world, generator, oracle) for direction in followed]
        if measured:
            chosen[name] = min(measured, key=lambda direction: direction.provenance["leakage"])
        else:
            _log.info("No direction for %s: this generator does not follow any", name)
    return chosen


def _follows(direction: Direction, generator: nn.Module) -> bool:
    """Whether the generator follows: a step shorter than codes are wide moves the factor."""
    spread = channel_spread(generator) if direction.space == "s" else generator.w_std
    reach = float(spread[direction.vector.to(spread) != 0].norm())
    return direction.provenance["moved"] >= MIN_MOVED and abs(direction.unit) <= reach


def _measured(direction: Direction, world: World, generator: nn.Module, oracle: nn.Module) -> Direction:
    """The direction with its leakage: what else it moves (root mean square) for one of its own, in sd."""
    w = sample_codes(generator, MEASURED_ON, seed=2)
    moves = response(generator, oracle, direction, w).mean(dim=0).cpu() / world.factor_std
    own = list(world.factor_names).index(direction.name)
    others = [k for k, name in enumerate(world.factor_names) if name in world.state_names and k != own]
    leakage = math.sqrt(moves[others].square().mean().item()) / abs(moves[own].item()) if others else 0.0
    return replace(direction, provenance=direction.provenance | {"leakage": round(leakage, 4)})
