"""What the explorer can be asked to change: named directions where a judge gives names, components elsewhere.

Named directions are InterFaceGAN's (arXiv 1907.10786) or StyleSpace's (arXiv 2011.12799), which need a judge;
GANSpace's (arXiv 2004.02546) and SeFa's (arXiv 2007.06600) components need the generator alone. Files of
directions in a world's folder become sliders too.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from clcae_lib.devices import resolve_device
from clcae_lib.editing import (
    Direction,
    ganspace,
    load_directions,
    load_ganspace,
    load_interfacegan,
    named_directions,
    sample_codes,
    sefa,
)
from clcae_lib.editing.named import SAMPLES
from clcae_lib.models import Generator
from clcae_lib.weights import read_weights, recognise
from clcae_lib.worlds import World, WorldError

Group = Literal["directions", "GANSpace", "SeFa"]
COMPONENTS = 6
FOLDER = "directions"
"""Where a world's folder has files of directions, published ones among them."""
METHODS = {"interfacegan": "InterFaceGAN", "stylespace": "StyleSpace"}

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

    Named directions come with the world, or are found first, in a minute or two on two cores. They are not
    conditioned on each other: among many factors that leaves little to edit with, and the readout shows what
    else moves. A factor whose direction this generator does not follow gets no control. A file of directions
    in the world's folder `directions` gives a control for each: what `save_directions` wrote, or a published
    file of InterFaceGAN (a control) or GANSpace (its first components).

    Args:
        world: a world without an oracle has components, and what its folder has, only.
        generator: the world's own, if it is loaded already.
        factors: which get a named direction; a choice of the world's state factors if None.
        samples: codes that each method looks at.
        device: where the networks run.

    Raises:
        WorldError: the world has no generator.
        ValueError: a factor does not exist, or a file of directions is of no use here.
    """
    place = resolve_device(device) if isinstance(device, str) else device
    generator = generator if generator is not None else world.generator(place)
    codes = sample_codes(generator, samples, seed=0)
    named = _named(world, factors, samples, place)
    found = [*named, *_from_folder(world, generator), *_ganspace(codes), *_sefa(generator, codes)]
    return {control.key: control for control in found}


def _named(world: World, factors: Sequence[str] | None, samples: int, device: torch.device) -> list[Control]:
    try:
        found = named_directions(world, factors, samples=samples, device=device)
    except WorldError as lack:
        _log.info("No named directions: %s", lack)
        return []
    meanings = dict(zip(world.factor_names, world.factor_texts, strict=True))
    return [_of_factor(name, direction, meanings[name]) for name, direction in found.items()]


def _from_folder(world: World, generator: Generator) -> list[Control]:
    """A control for each direction in the files of the world's folder of directions."""
    found = []
    for path in sorted((world.folder / FOLDER).glob("*.*")):
        for group, direction in _read(path):
            _check_fits(direction, generator, path)
            label = direction.name.replace("_", " ")
            key = "".join(c if c.isalnum() else "-" for c in f"file-{path.stem}-{direction.name}")[:64]
            found.append(Control(key, label, group, direction, f"from the file {path.name}, in its own unit"))
    return found


def _read(path: Path) -> list[tuple[Group, Direction]]:
    """The directions of a file with the group that shows them; none where it is not a file of directions."""
    if path.suffix not in (".safetensors", ".npy", ".pt"):
        return []
    kind = recognise(read_weights(path)).kind
    if kind.endswith("components"):
        return _components(path)
    if path.suffix == ".safetensors":
        return [("directions", direction) for direction in load_directions(path).values()]
    return [("directions", load_interfacegan(path))]


def _components(path: Path) -> list[tuple[Group, Direction]]:
    components = load_ganspace(path)
    return [("GANSpace", components.direction(i)) for i in range(min(COMPONENTS, len(components.std)))]


def _check_fits(direction: Direction, generator: Generator, path: Path) -> None:
    rows, size = generator.n_latent, generator.style_dim
    shapes = {"w": [(size,)], "w_plus": [(size,), (rows, size)], "s": [(sum(generator.style_sizes),)]}
    if tuple(direction.vector.shape) not in shapes[direction.space]:
        shape = list(direction.vector.shape)
        raise ValueError(f"{path}: {direction.name} has shape {shape}, made for another generator; remove it")


def _of_factor(name: str, direction: Direction, meaning: str) -> Control:
    moved, method = direction.provenance["moved"], METHODS[direction.provenance["method"]]
    text = f"{meaning}; {method}'s strength 1 moves it by {moved:.2g} standard deviations on average"
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
