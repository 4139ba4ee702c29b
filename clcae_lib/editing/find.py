"""Find one direction for each factor by any of five methods, calibrated to the factor's standard deviation.

The methods are those of arXiv 2211.11448, section 4.3, and two of this project.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from clcae_lib import cache, paths
from clcae_lib.devices import resolve_device
from clcae_lib.editing.direction import Direction, load_directions, save_directions
from clcae_lib.editing.ganspace import ganspace
from clcae_lib.editing.interfacegan import condition, interfacegan
from clcae_lib.editing.probe import alignment_probe
from clcae_lib.editing.response import (
    Labelled,
    calibrate,
    effects,
    factor_column,
    label_codes,
    pick,
    sample_codes,
)
from clcae_lib.editing.sefa import sefa
from clcae_lib.editing.stylespace import channel_effects, channel_spread, stylespace
from clcae_lib.weights import load_alignment
from clcae_lib.worlds import World

Finder = Literal["interfacegan", "ganspace", "sefa", "stylespace", "alignment"]


def find_directions(
    world: World,
    factors: Sequence[str],
    method: Finder = "interfacegan",
    *,
    samples: int = 6000,
    components: int = 20,
    conditional: bool = True,
    effect_codes: int = 64,
    calibrated_on: int = 128,
    channels: int = 32,
    labelled: Labelled | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Direction]:
    """Return a calibrated direction for each factor.

    InterFaceGAN and the probe of the alignment's embedding learn each direction from labels. GANSpace and
    SeFa do not use factors: each factor gets the component that moves it most selectively, so two factors may
    share one. StyleSpace's channels are chosen by the gradient of the attribute regressor.

    Args:
        world: world with a generator and an attribute regressor in the role "train".
        samples: number of codes that are labelled (InterFaceGAN, alignment) or factorised (GANSpace).
        components: number of candidates of GANSpace and SeFa.
        conditional: whether learned directions are made orthogonal to those of the other factors.
        effect_codes: number of codes that candidates of GANSpace and SeFa, and channels, are measured on.
        calibrated_on: number of codes that each direction's unit is measured on.
        channels: number of channels of StyleSpace in one direction.
        labelled: codes that the regressor in the role "train" has already labelled.

    Raises:
        ValueError: a factor or the method does not exist.
        WorldError: the world has no alignment.
    """
    if method not in get_args(Finder):
        raise ValueError(f"method={method!r} is not one of {', '.join(map(repr, get_args(Finder)))}")
    columns = {name: factor_column(world, name) for name in factors}
    device = resolve_device(device)
    generator, oracle = world.generator(device), world.oracle("train", device)
    if method in ("interfacegan", "alignment"):
        labelled = labelled or label_codes(generator, oracle, samples, seed=seed)
        if method == "interfacegan":
            scores = labelled.factors.T
            found = {name: interfacegan(labelled.w, scores[k], name=name) for name, k in columns.items()}
        else:
            path = world.require("alignment", command=f"clcae train alignment --world {world.name}")
            found = alignment_probe(load_alignment(path, device=labelled.w.device)[1], labelled, columns)
        if conditional:
            found = {n: condition(d, [e for m, e in found.items() if m != n]) for n, d in found.items()}
    elif method == "stylespace":
        w, spread = sample_codes(generator, effect_codes, seed=seed), channel_spread(generator, seed=seed)
        chosen = list(columns.values())
        scale = world.factor_std[chosen].to(w)
        table = channel_effects(generator, lambda x: oracle(x)[:, chosen] / scale, w, spread=spread)
        shared = (table, spread, generator.style_rows)
        found = {n: stylespace(*shared, i, name=n, channels=channels) for i, n in enumerate(columns)}
    else:
        if method == "sefa":
            candidates = sefa(generator, count=components)
        else:
            axes = ganspace(sample_codes(generator, samples, seed=seed), components=components)
            candidates = [axes.direction(i) for i in range(components)]
        table = effects(generator, oracle, candidates, std=world.factor_std, count=effect_codes, seed=seed)
        found = {name: replace(candidates[pick(table, k)], name=name) for name, k in columns.items()}
    std, options = world.factor_std.tolist(), {"count": calibrated_on, "seed": seed + 1}
    return {
        name: calibrate(found[name], generator, oracle, column=k, std=std[k], **options)
        for name, k in columns.items()
    }


def cached_directions(
    world: World,
    factors: Sequence[str],
    method: Finder = "interfacegan",
    *,
    device: torch.device | str = "cpu",
    **options: Any,
) -> dict[str, Direction]:
    """Return what `find_directions` returns, found once and then read from the cache.

    Directions do not depend on the inverter, so runs that compare inverters share them. The key of the cache
    covers the generator, the attribute regressor, the alignment, the arguments except the device, and the
    program of this module and of the world.

    Args:
        options: other options of `find_directions`, except `labelled`; JSON values.
    """
    path = directions_file(world, factors, method, options)

    def make() -> None:
        save_directions(path, find_directions(world, factors, method, **options, device=device))

    return load_directions(cache.made(path, make))


def directions_file(world: World, factors: Sequence[str], method: str, options: Mapping[str, Any]) -> Path:
    """Return the file in which `cached_directions` keeps the directions of these arguments."""
    networks = {
        name: world.weights(name) for name in ("generator", "oracle_a", "alignment") if world.has(name)
    }
    key = cache.key(
        [world.name, list(factors), method, options, list(networks)],
        modules=[__name__, type(world).__module__],
        files=networks.values(),
    )
    return paths.cache_dir() / "directions" / f"{key}.safetensors"
