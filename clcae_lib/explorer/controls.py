"""The sliders of a world: named directions if it has an attribute regressor, else components.

Named directions are InterFaceGAN's (arXiv 1907.10786) or StyleSpace's (arXiv 2011.12799), which need an
attribute regressor; GANSpace's (arXiv 2004.02546) and SeFa's (arXiv 2007.06600) components need only the
generator. Files of directions in a world's folder become sliders too.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

import torch

from clcae_lib.devices import resolve_device
from clcae_lib.editing import (
    Direction,
    apply_all,
    ganspace,
    load_directions,
    load_ganspace,
    named_directions,
    sample_codes,
    sefa,
)
from clcae_lib.editing.named import SAMPLES
from clcae_lib.errors import ClcaeError
from clcae_lib.explorer.state import ExplorerError
from clcae_lib.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.weights import read_weights, recognise
from clcae_lib.worlds import World, WorldError

COMPONENTS = 6
MAX_DIRECTIONS = 100
"""Sliders of one file in a world's folder of directions."""
FOLDER = "directions"
"""Folder inside a world's folder for files of directions, such as published ones."""
_METHOD_LABELS = {"interfacegan": "InterFaceGAN", "stylespace": "StyleSpace"}

Group = Literal["directions", "GANSpace", "SeFa"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Control:
    """One slider; strength 1 is one standard deviation of the attribute or of the codes.

    Attributes:
        key: name in a state.
        label: name that a visitor reads.
        group: the method that found the direction.
        direction: direction in which the slider moves codes.
        text: explanation in one sentence.
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
    report: Callable[[str], None] = _log.warning,
) -> dict[str, Control]:
    """Return the controls of a world by key, in the order in which they are shown.

    Named directions come with the world, or are found first, in a minute or two on two cores. They are not
    made orthogonal to each other: with many factors, edits would become weak, and the readout shows what else
    moves. A factor whose direction does not move it in this generator gets no control. Each direction in a
    file in the world's folder `directions` gets a control: files of `save_directions`, or published ones of
    InterFaceGAN, SeFa or GANSpace (of these two, the first components).

    Args:
        generator: the world's own, if it is loaded already.
        factors: factors that get a named direction; a choice of the world's state factors if None.
        samples: number of codes that each method uses.
        report: called with a sentence for each file of directions that cannot be used.

    Raises:
        ValueError: a factor does not exist.
    """
    device = resolve_device(device)
    generator = generator if generator is not None else world.generator(device)
    codes = sample_codes(generator, samples, seed=0)
    found = [
        *_named(world, factors, samples, device),
        *_from_folder(world, generator, codes, report),
        *_components(generator, codes),
    ]
    return {control.key: control for control in found}


def _named(world: World, factors: Sequence[str] | None, samples: int, device: torch.device) -> list[Control]:
    try:
        found = named_directions(world, factors, samples=samples, device=device)
    except WorldError as lack:
        _log.info("No named directions: %s", lack)
        return []
    meanings = dict(zip(world.factor_names, world.factor_texts, strict=True))
    controls = []
    for name, direction in found.items():
        moved, method = direction.provenance["moved"], _METHOD_LABELS[direction.provenance["method"]]
        effect = f"{method}'s strength 1 moves it by {moved:.2g} standard deviations on average"
        text = f"{meanings[name]}; {effect}"
        controls.append(Control(name, name.replace("_", " "), "directions", direction, text))
    return controls


def _from_folder(
    world: World, generator: Generator, codes: torch.Tensor, report: Callable[[str], None]
) -> list[Control]:
    """Return a control for each direction in the files of the world's folder of directions."""
    controls: dict[str, Control] = {}
    folder = world.folder / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or path.suffix == ".json" or not path.is_file():
            continue
        try:
            for group, direction in _read(path, generator, codes):
                control = _of_file(path, group, direction, controls)
                controls[control.key] = control
        except (ClcaeError, OSError) as error:
            report(str(error).replace(str(path), path.name))
    return list(controls.values())


def _read(path: Path, generator: Generator, codes: torch.Tensor) -> list[tuple[Group, Direction]]:
    """Return the directions of a file, or its first components, each with its group."""
    if recognise(read_weights(path)).kind.endswith("components"):
        components = load_ganspace(path)
        count = min(COMPONENTS, len(components.std))
        found = [("GANSpace", components.direction(i)) for i in range(count)]
    else:
        found = [("directions", direction) for direction in load_directions(path).values()]
        if len(found) > MAX_DIRECTIONS:
            raise ExplorerError(
                f"{path} has {len(found)} directions; one file gives up to {MAX_DIRECTIONS} sliders: split it"
            )
        if all(direction.provenance.get("method") == "sefa" for _, direction in found):
            found = [("SeFa", _in_deviations(direction, codes)) for _, direction in found[:COMPONENTS]]
    try:
        apply_all(generator, Inversion.from_w(codes[:1], generator), [(one, 1.0) for _, one in found])
    except ValueError as error:
        raise ExplorerError(f"{path}: {error}: it is of another generator; remove it") from error
    return found


def _of_file(path: Path, group: Group, direction: Direction, taken: Mapping[str, Control]) -> Control:
    """Return the control of a direction in a file; the file's name is added to a name in use."""
    slug = re.sub(r"[\W_]", "-", f"file-{path.stem}-{direction.name}")[:60]
    numbered = (slug if number == 1 else f"{slug}-{number}" for number in count(1))
    key, label = next(name for name in numbered if name not in taken), direction.name.replace("_", " ")
    if label in {control.label for control in taken.values()}:
        label = f"{label} ({path.name})"
    return Control(key, label, group, direction, f"from the file {path.name}, in its own unit")


def _in_deviations(direction: Direction, codes: torch.Tensor) -> Direction:
    """Return a direction whose strength 1 is one standard deviation of the codes along it."""
    if direction.vector.shape != codes.shape[1:]:
        return direction
    return replace(direction, unit=float((codes @ direction.vector.to(codes)).std()))


def _components(generator: Generator, codes: torch.Tensor) -> list[Control]:
    """Return the controls of GANSpace's and SeFa's components, in the same unit."""
    number = min(COMPONENTS, codes.shape[1])
    principal = ganspace(codes, components=number)
    text = "a principal component of the codes W; strength 1 is one standard deviation along it"
    found = [
        Control(f"ganspace-{i}", f"component {i + 1}", "GANSpace", principal.direction(i), text)
        for i in range(number)
    ]
    text = "what the layers amplify most; strength 1 is one standard deviation of the codes along it"
    for i, direction in enumerate(sefa(generator, count=number)):
        amplified = _in_deviations(direction, codes)
        found.append(Control(f"sefa-{i}", f"eigenvector {i + 1}", "SeFa", amplified, text))
    return found
