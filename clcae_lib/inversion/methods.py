"""Every way to invert that is compared here, by name: what it is, and how an inverter of it is made.

Names are those of tables and command lines. Trained methods read the weights of a world, or are given them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clcae_lib.devices import resolve_device
from clcae_lib.inversion.hybrid import HybridInverter
from clcae_lib.inversion.inverter import ClcaeInverter, Inverter
from clcae_lib.inversion.nearest import MeanFaceInverter, NearestCodeInverter
from clcae_lib.inversion.optimisation import OptimisationInverter
from clcae_lib.inversion.pti import PtiInverter
from clcae_lib.models import Generator
from clcae_lib.worlds import World, WorldError, get_world

Kind = Literal["trivial", "optimisation", "encoder", "hybrid"]
Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """A way to invert.

    Attributes:
        name: as it is asked for.
        label: as it is printed.
        source: the paper, or what it is where there is none.
        kind: "trivial", "optimisation", "encoder" or "hybrid".
        space: what its pictures are decoded from, "w", "w_plus" or "f".
        trained: whether it needs trained weights.
        steps: of optimisation for each picture, unless told otherwise; 0 where there is none.
    """

    name: str
    label: str
    source: str
    kind: Kind
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
    Method("restyle_psp", "ReStyle, pSp", "arXiv 2104.02699", "encoder", "w_plus", trained=True),
    Method("restyle_e4e", "ReStyle, e4e", "arXiv 2104.02699", "encoder", "w_plus", trained=True),
    Method("hfgi", "HFGI", "arXiv 2109.06590", "encoder", "f", trained=True),
    Method("hybrid", "CLCAE, then optimisation", "arXiv 1609.03552", "hybrid", "f", trained=True, steps=50),
    Method("clcae", "CLCAE", "arXiv 2211.11448", "encoder", "f", trained=True),
    Method("clcae_published", "CLCAE, published", "arXiv 2211.11448", "encoder", "f", trained=True),
)
METHODS: dict[str, Method] = {method.name: method for method in _LISTED}
"""All of them, the cheapest to explain first.

The numbers of steps let 64 portraits be inverted by all of them together in about 36 minutes of one core;
PTI's are of tuning, after the pivot's own.
"""

PEERS = {
    "psp": ("psp", "PspInverter"),
    "e4e": ("e4e", "E4eInverter"),
    "restyle_psp": ("restyle", "RestyleInverter"),
    "restyle_e4e": ("restyle", "RestyleInverter"),
    "hfgi": ("hfgi", "HfgiInverter"),
}
"""Where the trained peers live: the module of this package, and its class."""
OVER = {"hybrid": "clcae", "pti": "optimisation_w"}
"""What methods that begin with another one begin with, unless told."""
PRESETS = {"clcae": "foundation", "clcae_published": "published"}


def make_inverter(
    name: str,
    world: str | World,
    *,
    device: torch.device | str = "auto",
    generator: Generator | None = None,
    weights: Path | str | nn.Module | None = None,
    steps: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    over: str | None = None,
    perceptual: Distance | Literal["world", "none"] = "world",
) -> Inverter:
    """The inverter of a name.

    Args:
        name: one of `METHODS`.
        world: or its name.
        device: "auto", "cpu", "cuda", ...
        generator: the world's own, if it is loaded already.
        weights: of a trained method: the network, or its file; the world's own if None.
        steps: of optimisation (with PTI, of tuning) for each picture; the method's own number if None.
        max_seconds: what a whole call of `invert` may take where there is optimisation; it ends with what it
            has, and its schedule fits the steps that this allows. None for no limit.
        seed: of what is drawn at random.
        over: the method whose codes `hybrid` begins with, `clcae` unless told, or that finds the pivots of
            `pti`, `optimisation_w` unless told; `weights` are then this method's.
        perceptual: the distance in the loss of methods that optimise: the world's in the role "train",
            another one, or "none" to leave the term out. An inverter's `objective` names it.

    Raises:
        ValueError: there is no such method, it takes no `over`, or a number is not positive.
        WorldError: the world has no such weights, or no perceptual distance; the message has the command that
            makes or fetches them.
    """
    if name not in METHODS:
        raise ValueError(f"method={name!r} is not one of {', '.join(METHODS)}")
    if over is not None and name not in OVER:
        raise ValueError(f"over={over!r}: {name} begins with no other method, only {' and '.join(OVER)} do")
    world = get_world(world)
    device = resolve_device(device) if isinstance(device, str) else device
    generator = world.generator(device) if generator is None else generator
    if METHODS[name].kind == "encoder":
        return _encoder(name, world, generator, weights, device)
    if name == "mean_face":
        return MeanFaceInverter(generator)
    if name == "nearest_code":
        return NearestCodeInverter.load(world, generator, path=weights, seed=seed)
    options: dict[str, Any] = {
        "steps": METHODS[name].steps if steps is None else steps,
        "max_seconds": max_seconds,
        "seed": seed,
    }
    if name in OVER:
        shared = {"device": device, "generator": generator, "weights": weights, "seed": seed}
        first = make_inverter(over or OVER[name], world, perceptual=perceptual, **shared)
        kind = PtiInverter if name == "pti" else HybridInverter
        return kind(first, _distance(name, world, perceptual, device), **options)
    distance = _distance(name, world, perceptual, device)
    return OptimisationInverter(generator, distance, space=name.removeprefix("optimisation_"), **options)


def weights_of(name: str, world: World) -> Path:
    """The file of a trained method's weights.

    Raises:
        WorldError: it is not there; the message has the command that trains it.
    """
    if name not in PRESETS:
        return world.require(
            f"peer_{name}", command=f"clcae train peer --world {world.name} --set method={name}"
        )
    preset = PRESETS[name]
    command = f"clcae train inversion --world {world.name} --set preset={preset}"
    return world.inversion(preset) or world.require(f"inversion_{preset}", command=command)


def _distance(
    name: str, world: World, perceptual: Distance | str, device: torch.device | str
) -> Distance | None:
    """The perceptual distance in a method's loss; None only if the term was to be left out."""
    if not isinstance(perceptual, str):
        return perceptual
    if perceptual == "none":
        return None
    try:
        return world.perceptual("train", device)
    except WorldError as error:
        raise WorldError(
            f"{name} minimises a perceptual distance: {error}; or leave the term out with perceptual='none'"
        ) from error


def _encoder(
    name: str,
    world: World,
    generator: Generator,
    weights: Path | str | nn.Module | None,
    device: torch.device,
) -> Inverter:
    """CLCAE's or a peer's inverter, from a network, a file, or the world's own file."""
    path = weights_of(name, world) if weights is None else weights
    kind: Any = ClcaeInverter if name in PRESETS else _peer(name)
    if isinstance(path, nn.Module):
        return kind(path, generator)
    which = {"preset": PRESETS[name]} if name in PRESETS else {"method": name}
    return kind.load(world, **which, device=device, generator=generator, path=path)


def _peer(name: str) -> type:
    module, kind = PEERS[name]
    return getattr(import_module(f"clcae_lib.inversion.{module}"), kind)
