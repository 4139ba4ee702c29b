"""What the explorer can be asked to change: named directions where a judge gives names, components elsewhere.

Named directions are InterFaceGAN's (arXiv 1907.10786), which need a judge to label pictures; GANSpace's
(arXiv 2004.02546) and SeFa's (arXiv 2007.06600) components need the generator alone.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from clcae_lib.devices import resolve_device
from clcae_lib.editing import Direction, cached_directions, ganspace, sample_codes, sefa
from clcae_lib.models import Generator
from clcae_lib.worlds import World, WorldError

Group = Literal["directions", "GANSpace", "SeFa"]
SAMPLES = 3000
CALIBRATED_ON = 48
COMPONENTS = 6
MIN_MOVED = 0.5
"""The least that strength 1 must move its factor, in standard deviations, for a slider to be worth having."""
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
"""The factors offered, where a world has them: what a visitor would ask for first."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Control:
    """One slider: strength 1 is one standard deviation of what it changes.

    Attributes:
        key: its name in a state.
        label: what a visitor reads.
        group: the method behind it.
        direction: what it changes.
        text: one sentence that explains it.
    """

    key: str
    label: str
    group: Group
    direction: Direction
    text: str


def find_controls(
    world: World,
    generator: Generator | None = None,
    *,
    factors: Sequence[str] | None = None,
    samples: int = SAMPLES,
    device: torch.device | str = "auto",
) -> dict[str, Control]:
    """The controls of a world by key, in the order in which they are shown.

    Named directions are read from the cache, or found first, in a minute or so on two cores. They are
    not conditioned on each other: among many factors that leaves little to edit with, and the readout shows
    what else moves. A factor whose direction this generator does not follow gets no control.

    Args:
        world: a world without an oracle has components only.
        generator: the world's own, if it is loaded already.
        factors: which get a named direction; a choice of the world's state factors if None.
        samples: codes that each method looks at.
        device: where the networks run.

    Raises:
        WorldError: the world has no generator.
        ValueError: a factor does not exist.
    """
    place = resolve_device(device) if isinstance(device, str) else device
    generator = generator if generator is not None else world.generator(place)
    chosen = _factors(world) if factors is None else factors
    named = _named(world, chosen, samples, place, reach=float(generator.w_std.norm()))
    codes = sample_codes(generator, samples, seed=0)
    found = [*named, *_ganspace(codes), *_sefa(generator, codes)]
    return {control.key: control for control in found}


def _factors(world: World) -> list[str]:
    states = list(world.state_names)
    return [name for name in FACTORS if name in states] or states[: len(FACTORS)]


def _named(
    world: World, factors: Sequence[str], samples: int, device: torch.device, reach: float
) -> list[Control]:
    if not factors:
        return []
    _log.info("Directions of %s: read from the cache, or found first, in a minute or so", world.name)
    try:
        found = cached_directions(
            world, factors, samples=samples, calibrated_on=CALIBRATED_ON, conditional=False, device=device
        )
    except WorldError as lack:
        _log.info("No named directions: %s", lack)
        return []
    meanings = dict(zip(world.factor_names, world.factor_texts, strict=True))
    return [_of_factor(name, found[name], meanings[name]) for name in factors if _follows(found[name], reach)]


def _follows(direction: Direction, reach: float) -> bool:
    """Whether the generator follows a direction: a step shorter than codes are wide moves the factor."""
    follows = direction.provenance["moved"] >= MIN_MOVED and abs(direction.unit) <= reach
    if not follows:
        _log.info("No control for %s: this generator does not follow its direction", direction.name)
    return follows


def _of_factor(name: str, direction: Direction, meaning: str) -> Control:
    moved = direction.provenance.get("moved", 1.0)
    text = f"{meaning}; strength 1 moves it by {moved:.2g} standard deviations on average"
    return Control(name, name.replace("_", " "), "directions", direction, text)


def _ganspace(codes: torch.Tensor) -> list[Control]:
    count = min(COMPONENTS, codes.shape[1])
    found = ganspace(codes, components=count)
    text = "a principal component of the codes W; strength 1 is one standard deviation along it"
    return [
        Control(f"ganspace-{i}", f"component {i + 1}", "GANSpace", found.direction(i), text)
        for i in range(count)
    ]


def _sefa(generator: Generator, codes: torch.Tensor) -> list[Control]:
    """SeFa's components with the unit of GANSpace's, so that their sliders compare."""
    text = "what the layers amplify most; strength 1 is one standard deviation of the codes along it"
    found = sefa(generator, count=min(COMPONENTS, codes.shape[1]))
    scaled = [replace(d, unit=float((codes @ d.vector.to(codes)).std())) for d in found]
    return [Control(f"sefa-{i}", f"eigenvector {i + 1}", "SeFa", d, text) for i, d in enumerate(scaled)]
