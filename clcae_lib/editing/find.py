"""One direction for each factor, by any of five methods, calibrated to the factor's standard deviation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import cache, paths
from clcae_lib.devices import resolve_device
from clcae_lib.editing.calibrate import calibrate
from clcae_lib.editing.direction import Direction, load_directions, save_directions
from clcae_lib.editing.ganspace import ganspace
from clcae_lib.editing.interfacegan import condition, interfacegan
from clcae_lib.editing.probe import alignment_probe
from clcae_lib.editing.response import Labelled, label_codes, response
from clcae_lib.editing.sampling import sample_codes
from clcae_lib.editing.sefa import sefa
from clcae_lib.editing.stylespace import channel_effects, channel_spread, stylespace
from clcae_lib.weights import load_alignment
from clcae_lib.worlds import World

Method = Literal["interfacegan", "ganspace", "sefa", "stylespace", "alignment"]


def find_directions(
    world: World,
    factors: Sequence[str],
    method: Method = "interfacegan",
    *,
    samples: int = 6000,
    components: int = 20,
    conditional: bool = True,
    effect_codes: int = 64,
    calibrated_on: int = 128,
    channels: int = 32,
    layers: Sequence[int] | None = None,
    labelled: Labelled | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Direction]:
    """A calibrated direction for each factor.

    InterFaceGAN learns each from labels, and so does the probe of the alignment's embedding. GANSpace and
    SeFa know no factors: of their components, each factor takes the one that moves it most selectively, so
    two factors may share one. StyleSpace's channels are chosen by the gradient of the labelling oracle.

    Args:
        world: its generator, and its oracle in the role "train".
        factors: names of factors.
        method: how the directions are found.
        samples: codes labelled (InterFaceGAN, alignment) or factorised (GANSpace).
        components: candidates of GANSpace and SeFa.
        conditional: take out of each learned direction what it shares with the other factors'.
        effect_codes: codes that candidates of GANSpace and SeFa, and channels of StyleSpace, are tried on.
        calibrated_on: codes that each direction's unit is measured on.
        channels: of StyleSpace, together in one direction.
        layers: the rows of W+ (in StyleSpace, their styles) that directions act on, None for all; SeFa
            factorises those alone.
        labelled: codes already labelled by the oracle in the role "train", to save doing it again.
        seed: of the codes.
        device: where the networks run.

    Raises:
        ValueError: a factor or the method does not exist.
        WorldError: the world has no alignment.
    """
    if method not in get_args(Method):
        raise ValueError(f"method={method!r} is not one of {', '.join(map(repr, get_args(Method)))}")
    columns = {name: _column(world, name) for name in factors}
    device = resolve_device(device) if isinstance(device, str) else device
    generator, oracle = world.generator(device), world.oracle("train", device)
    if method in ("interfacegan", "alignment"):
        labelled = labelled or label_codes(generator, oracle, samples, seed=seed)
        found = _learned(world, method, labelled, columns, conditional=conditional)
        if layers is not None:
            found = {name: direction.restricted(layers) for name, direction in found.items()}
    elif method == "stylespace":
        options = {"count": effect_codes, "channels": channels, "layers": layers, "seed": seed}
        found = _channels(world, generator, oracle, columns, **options)
    else:
        options = {"samples": samples, "components": components, "layers": layers, "seed": seed}
        candidates = _candidates(generator, method, **options)
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
    method: Method = "interfacegan",
    *,
    samples: int = 6000,
    components: int = 20,
    conditional: bool = True,
    effect_codes: int = 64,
    calibrated_on: int = 128,
    channels: int = 32,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Direction]:
    """What `find_directions` gives, found once and then read from the cache.

    Directions depend on the generator, on the judge that labels and on the alignment, and on no inverter:
    runs that compare inverters share them. The cache's key covers these networks, the arguments except the
    device, and the program of this module and of the world.

    Args: as in `find_directions`.

    Raises:
        ValueError: a factor or the method does not exist.
        WorldError: the world has no alignment.
    """
    options = {"samples": samples, "components": components, "conditional": conditional}
    options |= {
        "effect_codes": effect_codes,
        "calibrated_on": calibrated_on,
        "channels": channels,
        "seed": seed,
    }
    options["layers"] = None if layers is None else list(layers)
    path = directions_file(world, factors, method, options)

    def make() -> None:
        save_directions(path, find_directions(world, factors, method, **options, device=device))

    return load_directions(cache.made(path, make))


def directions_file(world: World, factors: Sequence[str], method: str, options: Mapping[str, Any]) -> Path:
    """Return where the cache keeps what `find_directions` gives for these arguments."""
    networks = {
        name: world.weights(name) for name in ("generator", "oracle_a", "alignment") if world.has(name)
    }
    key = cache.key(
        [world.name, list(factors), method, options, list(networks)],
        modules=[__name__, type(world).__module__],
        files=networks.values(),
    )
    return paths.cache_dir() / "directions" / f"{key}.safetensors"


def _column(world: World, factor: str) -> int:
    if factor not in world.factor_names:
        raise ValueError(f"{factor!r} is no factor of {world.name}: {', '.join(world.factor_names)}")
    return list(world.factor_names).index(factor)


def _learned(
    world: World, method: str, labelled: Labelled, columns: dict[str, int], *, conditional: bool
) -> dict[str, Direction]:
    """Directions in W learned from labels; if `conditional`, each without what it shares with the others."""
    if method == "interfacegan":
        found = {n: interfacegan(labelled.w, labelled.factors[:, k], name=n) for n, k in columns.items()}
    else:
        path = world.require("alignment", command=f"clcae train alignment --world {world.name}")
        encoder = load_alignment(path, device=labelled.w.device)[1]
        probed = alignment_probe(encoder, labelled, list(columns.values()), list(columns))
        found = {direction.name: direction for direction in probed}
    if not conditional:
        return found
    return {n: condition(d, [e for m, e in found.items() if m != n]) for n, d in found.items()}


def _channels(
    world: World,
    generator: nn.Module,
    oracle: nn.Module,
    columns: dict[str, int],
    *,
    count: int,
    channels: int,
    layers: Sequence[int] | None,
    seed: int,
) -> dict[str, Direction]:
    """Directions in StyleSpace, from the gradient of the oracle's factors in standard deviations."""
    spread, chosen = channel_spread(generator, seed=seed), list(columns.values())
    w = sample_codes(generator, count, seed=seed)
    scale = world.factor_std[chosen].to(w)
    table = channel_effects(generator, lambda x: oracle(x)[:, chosen] / scale, w, spread=spread)
    options = {"channels": channels, "layers": layers}
    return {
        name: stylespace(table, spread, generator.style_rows, i, name=name, **options)
        for i, name in enumerate(columns)
    }


def _candidates(
    generator: nn.Module,
    method: str,
    *,
    samples: int,
    components: int,
    layers: Sequence[int] | None,
    seed: int,
) -> list[Direction]:
    """The components of GANSpace or SeFa."""
    if method == "sefa":
        return sefa(generator, count=components, layers=layers)
    found = ganspace(sample_codes(generator, samples, seed=seed), components=components)
    return [found.direction(i, layers=layers) for i in range(components)]


def effects(
    generator: nn.Module,
    oracle: nn.Module,
    directions: Sequence[Direction],
    *,
    std: Float[Tensor, " k"],
    count: int = 64,
    seed: int = 0,
) -> Float[Tensor, "m k"]:
    """How far each direction moves each factor at strength 1, in standard deviations, on average over codes.

    Args:
        generator: gives codes and pictures.
        oracle: images `[N, 3, R, R]` to factors `[N, K]`.
        directions: M of them.
        std: standard deviations of the factors.
        count: codes measured.
        seed: of the codes.
    """
    w = sample_codes(generator, count, seed=seed)
    moved = [response(generator, oracle, d, w).mean(dim=0) for d in directions]
    return torch.stack(moved) / std.to(w)


def pick(table: Float[Tensor, "m k"], column: int) -> int:
    """The row that moves this column most selectively: its movement times its share of the row's.

    Args:
        table: from `effects`.
        column: of the factor.
    """
    share = table.square() / table.square().sum(dim=1, keepdim=True).clamp(min=1e-12)
    return int((table.abs() * share)[:, column].argmax())
