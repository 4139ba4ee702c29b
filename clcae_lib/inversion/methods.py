"""Every inversion method by name: its description and the construction of its inverter.

Names are those of tables and command lines. Trained methods use a world's weights or given ones.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from clcae_lib.devices import resolve_device
from clcae_lib.errors import MissingFileError
from clcae_lib.inversion.e4e import E4eInverter
from clcae_lib.inversion.hfgi import HfgiInverter
from clcae_lib.inversion.inverter import ClcaeInverter, Inverter
from clcae_lib.inversion.nearest import MeanFaceInverter, NearestCodeInverter
from clcae_lib.inversion.optimisation import (
    HYBRID,
    Distance,
    HybridInverter,
    OptimisationInverter,
    Settings,
)
from clcae_lib.inversion.psp import PeerInverter, PspInverter
from clcae_lib.inversion.pti import PTI, PtiInverter
from clcae_lib.inversion.restyle import RestyleInverter
from clcae_lib.models import Generator
from clcae_lib.weights.checkpoints import read_card
from clcae_lib.worlds import World, WorldError, get_world


@dataclass(frozen=True)
class Method:
    """An inversion method.

    Attributes:
        label: name in print.
        source: paper, or a description where there is none.
        kind: "trivial", "optimisation", "encoder" or "hybrid".
        space: space that its images are decoded from, "w", "w_plus" or "f".
        trained: whether it needs trained weights.
        steps: default number of optimisation steps for each image; 0 where there is no optimisation.
    """

    name: str
    label: str
    source: str
    kind: Literal["trivial", "optimisation", "encoder", "hybrid"]
    space: str
    trained: bool = False
    steps: int = 0


_LISTED = (
    Method("mean_face", "mean face", "the generator's mean code", "trivial", "w"),
    Method("nearest_code", "nearest code", "arXiv 2211.11448, section 3.1", "trivial", "w", trained=True),
    Method("optimisation_w", "optimisation, W", "arXiv 1912.04958", "optimisation", "w", steps=300),
    Method(
        "optimisation_w_plus", "optimisation, W+", "arXiv 1904.03189", "optimisation", "w_plus", steps=400
    ),
    Method("optimisation_f", "optimisation, F", "arXiv 2011.04058", "optimisation", "f", steps=400),
    Method("pti", "PTI", "arXiv 2106.05744", "optimisation", "w", steps=200),
    Method("psp", "pSp", "arXiv 2008.00951", "encoder", "w_plus", trained=True),
    Method("e4e", "e4e", "arXiv 2102.02766", "encoder", "w_plus", trained=True),
    Method("restyle_psp", "ReStyle over pSp", "arXiv 2104.02699", "encoder", "w_plus", trained=True),
    Method("restyle_e4e", "ReStyle over e4e", "arXiv 2104.02699", "encoder", "w_plus", trained=True),
    Method("hfgi", "HFGI", "arXiv 2109.06590", "encoder", "f", trained=True),
    Method("hybrid", "CLCAE, then optimisation", "arXiv 1609.03552", "hybrid", "f", trained=True, steps=50),
    Method("clcae", "CLCAE", "arXiv 2211.11448", "encoder", "f", trained=True),
    Method("clcae_edited", "CLCAE, feature editor", "arXiv 2406.10601, own training", "encoder", "f", True),
    Method("clcae_published", "CLCAE as published", "arXiv 2211.11448", "encoder", "f", trained=True),
)
METHODS: dict[str, Method] = {method.name: method for method in _LISTED}
"""All methods, the simplest first.

With the default numbers of steps, all of them together invert 64 portraits in about 36 minutes on one core.
PTI's steps are those of tuning; its pivot has its own.
"""

OVER = {"hybrid": "clcae", "pti": "optimisation_w"}
"""Method that supplies the initial codes, or the pivots."""
PRESETS = {"clcae": "foundation", "clcae_published": "published"}
PEERS: dict[str, type[PeerInverter]] = {
    method: kind
    for kind in (PspInverter, E4eInverter, RestyleInverter, HfgiInverter)
    for method in kind.encoders
}


def make_inverter(
    name: str,
    world: str | World,
    *,
    device: torch.device | str = "auto",
    generator: Generator | None = None,
    weights: Path | str | nn.Module | None = None,
    steps: int | None = None,
    seed: int = 0,
    perceptual: Distance | Literal["world", "none"] = "world",
) -> Inverter:
    """Return the inverter of a method.

    Args:
        name: one of `METHODS`.
        generator: the world's own generator, if it is loaded already.
        weights: network of a trained method (for `hybrid`, of its initial encoder), or its file; the world's
            own if None.
        steps: number of optimisation steps (for PTI, of tuning) per image; the method's default if None.
        perceptual: distance in the loss of methods that optimise: the world's in the role "train",
            another one, or "none" to leave the term out. An inverter's `objective` names it.

    Raises:
        ValueError: the method is unknown, or `steps` is negative.
        WorldError: the world has no such weights, or no perceptual distance; the message has the command that
            makes or fetches them.
    """
    if name not in METHODS:
        raise ValueError(f"method={name!r} is not one of {', '.join(METHODS)}")
    world, device = get_world(world), resolve_device(device)
    generator = world.generator(device) if generator is None else generator
    if name == "clcae_edited":
        world.require("feature_editor", command=f"clcae train feature_editor --world {world.name}")
        options: dict[str, Any] = {"device": device, "generator": generator, "path": weights}
        return ClcaeInverter.load(world, feature_editor=True, **options)
    if METHODS[name].kind == "encoder":
        kind: Any = ClcaeInverter if name in PRESETS else PEERS[name]
        if isinstance(weights, nn.Module):
            return kind(weights, generator)
        which = {"preset": PRESETS[name]} if name in PRESETS else {"method": name}
        return kind.load(world, device=device, generator=generator, path=weights, **which)
    if name == "mean_face":
        return MeanFaceInverter(generator)
    if name == "nearest_code":
        return NearestCodeInverter.load(world, generator, path=weights, seed=seed)
    changes: dict[str, Any] = {"steps": METHODS[name].steps if steps is None else steps, "seed": seed}
    if name not in OVER:
        distance, space = _distance(name, world, perceptual, device), name.removeprefix("optimisation_")
        return OptimisationInverter(generator, distance, space=space, settings=Settings(**changes))
    shared = {"device": device, "generator": generator, "weights": weights, "seed": seed}
    first = make_inverter(OVER[name], world, perceptual=perceptual, **shared)
    distance = _distance(name, world, perceptual, device)
    if name == "pti":
        return PtiInverter(first, distance, settings=replace(PTI, **changes))
    return HybridInverter(first, distance, settings=replace(HYBRID, **changes))


def images_seen(name: str, world: str | World) -> int | None:
    """Return how many images the world's weights of a method were trained on, without their initialisation.

    Returns:
        0 for a method without a training; None if a file has no card.

    Raises:
        ValueError: the method is unknown.
    """
    if name not in METHODS:
        raise ValueError(f"method={name!r} is not one of {', '.join(METHODS)}")
    world = get_world(world)
    try:
        return sum(read_card(world.weights(file))["images_seen"] for file in _files(name))
    except (MissingFileError, KeyError):
        return None


def _files(name: str) -> list[str]:
    """Return the names of the weights that were trained for a method."""
    if not METHODS[name].trained:
        return []
    if name == "nearest_code":
        return ["alignment"]
    if name in PEERS:
        return [f"peer_{name}"]
    encoder = f"inversion_{PRESETS.get(name, 'foundation')}"
    return [encoder, "feature_editor"] if name == "clcae_edited" else [encoder]


def _distance(
    name: str, world: World, perceptual: Distance | str, device: torch.device | str
) -> Distance | None:
    """Return the perceptual distance in a method's loss; None if `perceptual` is "none"."""
    if not isinstance(perceptual, str):
        return perceptual
    if perceptual == "none":
        return None
    try:
        return world.perceptual("train", device)
    except WorldError as error:
        raise WorldError(
            f"{name} minimises a perceptual distance: {error}; or omit the term with perceptual='none'"
        ) from error
