"""One direction for each factor, by any of three methods, calibrated to the factor's standard deviation."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import paths
from clcae_lib.devices import resolve_device
from clcae_lib.editing.calibrate import calibrate
from clcae_lib.editing.direction import Direction, load_directions, save_directions
from clcae_lib.editing.ganspace import ganspace
from clcae_lib.editing.interfacegan import condition, interfacegan
from clcae_lib.editing.response import Labelled, label_codes, response
from clcae_lib.editing.sampling import sample_codes
from clcae_lib.editing.sefa import sefa
from clcae_lib.files import sha256
from clcae_lib.worlds import World

Method = Literal["interfacegan", "ganspace", "sefa"]


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
    labelled: Labelled | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Direction]:
    """A calibrated direction for each factor.

    InterFaceGAN learns each from labels. GANSpace and SeFa know no factors: of their components, each factor
    takes the one that moves it most selectively, so two factors may share one.

    Args:
        world: its generator, and its oracle in the role "train".
        factors: names of factors.
        method: how the directions are found.
        samples: codes labelled (InterFaceGAN) or factorised (GANSpace).
        components: candidates of GANSpace and SeFa.
        conditional: take out of each InterFaceGAN direction what it shares with the other factors'.
        effect_codes: codes that each candidate of GANSpace and SeFa is tried on.
        calibrated_on: codes that each direction's unit is measured on.
        labelled: codes already labelled by the oracle in the role "train", to save doing it again.
        seed: of the codes.
        device: where the networks run.

    Raises:
        ValueError: a factor or the method does not exist.
    """
    columns = {name: _column(world, name) for name in factors}
    device = resolve_device(device) if isinstance(device, str) else device
    generator, oracle = world.generator(device), world.oracle("train", device)
    std = world.factor_std.tolist()
    if method == "interfacegan":
        labelled = labelled or label_codes(generator, oracle, samples, seed=seed)
        found = {
            name: interfacegan(labelled.w, labelled.factors[:, k], name=name) for name, k in columns.items()
        }
        if conditional:
            found = {n: condition(d, [e for m, e in found.items() if m != n]) for n, d in found.items()}
    else:
        candidates = _candidates(generator, method, samples=samples, components=components, seed=seed)
        table = effects(generator, oracle, candidates, std=world.factor_std, count=effect_codes, seed=seed)
        found = {name: replace(candidates[pick(table, k)], name=name) for name, k in columns.items()}
    return {
        name: calibrate(
            d,
            generator,
            oracle,
            column=columns[name],
            std=std[columns[name]],
            count=calibrated_on,
            seed=seed + 1,
        )
        for name, d in found.items()
    }


def cached_directions(
    world: World,
    factors: Sequence[str],
    method: Method = "interfacegan",
    *,
    samples: int = 6000,
    calibrated_on: int = 128,
    conditional: bool = True,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Direction]:
    """What `find_directions` gives, found once and then read from the cache.

    Directions depend on the generator and on the judge that labels, and on no inverter: runs that compare
    inverters share them. The file's name is a digest of both networks and of the arguments, the device aside.

    Raises:
        ValueError: a factor or the method does not exist.
    """
    options = {"samples": samples, "calibrated_on": calibrated_on, "seed": seed}
    if not conditional:
        options["conditional"] = False  # only then part of the name: earlier caches keep theirs
    networks = [sha256(world.weights(name)) for name in ("generator", "oracle_a") if world.has(name)]
    key = json.dumps([world.name, *factors, method, options, *networks])
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = paths.cache_dir() / "directions" / f"{name}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_directions(path, find_directions(world, factors, method, **options, device=device))
    return load_directions(path)


def _column(world: World, factor: str) -> int:
    if factor not in world.factor_names:
        raise ValueError(f"{factor!r} is no factor of {world.name}: {', '.join(world.factor_names)}")
    return list(world.factor_names).index(factor)


def _candidates(
    generator: nn.Module, method: str, *, samples: int, components: int, seed: int
) -> list[Direction]:
    if method == "ganspace":
        found = ganspace(sample_codes(generator, samples, seed=seed), components=components)
        return [found.direction(i) for i in range(components)]
    if method == "sefa":
        return sefa(generator, count=components)
    raise ValueError(f'method must be "interfacegan", "ganspace" or "sefa", got {method!r}')


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
