"""Inverters and finders of directions from other packages: import them, and check what they return.

The protocols are described in `docs/bench.md`. If a guest breaks its protocol, one error names the fault and
the remedy.
"""

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clcae_lib.editing import Direction, apply_all
from clcae_lib.errors import ClcaeError
from clcae_lib.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.worlds import World


class GuestError(ClcaeError):
    """An inverter or a finder breaks its protocol; the message names the fault and the remedy."""


def load_guest(name: str, group: str) -> Any:
    """Return the class or function "package.module:Name", or that of an entry point of a group.

    Raises:
        GuestError: nothing has this name.
    """
    found = {entry.name: entry for entry in entry_points(group=group)}
    if re.fullmatch(r"[\w.]+:\w+", name):
        found[name] = EntryPoint(name, name, group)
    if name not in found:
        known = ", ".join(found) or "none is installed"
        raise GuestError(f"{name!r} is neither package.module:Name nor an entry point of {group} ({known})")
    entry = found[name]
    try:
        imported = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        remedy = "install it, or run the command in its folder"
        raise GuestError(f"{entry.value}: there is no module {error.name!r}: {remedy}") from error
    if not hasattr(imported, entry.attr):
        raise GuestError(f"{entry.value}: {imported.__file__} does not define {entry.attr!r}")
    return getattr(imported, entry.attr)


@dataclass(frozen=True)
class CheckedInverter:
    """A guest inverter whose results are all checked, with a separate copy of the generator.

    `name` is its name in messages. A result that breaks the protocol raises a GuestError.
    """

    guest: Any
    generator: Generator
    name: str

    @classmethod
    def load(cls, name: str, world: World, *, weights: Path | None = None) -> "CheckedInverter":
        """Return the inverter of this name, constructed with a generator and, if given, the weights' path."""
        if weights is not None and not weights.is_file():
            raise GuestError(f"--weights {weights}: there is no such file")
        kind = load_guest(name, "clcae.inverters")
        if not isinstance(kind, type) or not callable(getattr(kind, "invert", None)):
            raise GuestError(f"{name} is not a class with a method invert(images)")
        given = [world.generator("cpu"), *([] if weights is None else [weights])]
        try:
            inspect.signature(kind).bind(*given)
        except TypeError as error:
            raise GuestError(
                f"{name}: {error}: __init__ takes the generator, and the path that --weights gives, if any"
            ) from error
        return cls(kind(*given), world.generator("cpu"), name)

    def invert(self, images: Float[Tensor, "n 3 h w"]) -> Inversion:
        """Return the guest's codes of images, without gradient, after checking their shapes and values."""
        before = images.clone()
        found = self.guest.invert(images)
        if not torch.equal(images, before):
            self._refuse("changes the images that it is given; work on a copy: images = images.clone()")
        if not isinstance(found, Inversion):
            self._refuse(f"returns {type(found).__name__}; return clcae_lib.inversion.Inversion")
        self._check_shapes(found, len(images))
        for tensor in _tensors(found):
            if not torch.isfinite(tensor).all():
                self._refuse("returns values that are not finite (NaN or infinity); check the weights")
        return found.map(torch.Tensor.detach)

    def check_repeatable(self, images: Float[Tensor, "n 3 h w"]) -> str:
        """Invert the images twice, compare the codes, and return the space to decode: F, or else W+."""
        first, second = self.invert(images), self.invert(images)
        pairs = zip(_tensors(first), _tensors(second), strict=True)
        if not all(torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4) for a, b in pairs):
            self._refuse(
                "returns other codes for the same images in a second call; fix the seed, "
                "and put networks into evaluation mode: network.eval()"
            )
        return first.spaces[-1]

    def _check_shapes(self, found: Inversion, count: int) -> None:
        net, shape = self.generator, lambda part: tuple(part.shape)
        wanted = {"w": (count, net.style_dim), "w_plus": (count, net.n_latent, net.style_dim)}
        if found.feature is not None:
            side = found.feature.shape[-1]
            sides = side if side in net.channels else 16
            wanted["feature"] = (count, net.channels[sides], sides, sides)
        for name, right in wanted.items():
            if shape(getattr(found, name)) != right:
                self._refuse(f"returns {name} of shape {shape(getattr(found, name))}; it must be {right}")

    def _refuse(self, reason: str) -> None:
        raise GuestError(f"{self.name}: invert {reason}")


def find_checked(find: Any, name: str, world: World, factors: Sequence[str]) -> Mapping[str, Direction]:
    """Return the directions that a finder returns for these factors.

    Raises:
        GuestError: a direction is missing, does not fit the generator, is not finite or is zero, or a second
            call returns others.
    """
    if not callable(find):
        raise GuestError(f"{name} is not a function find(world, factors)")
    found, again = (find(world, list(factors)) for _ in range(2))
    if not isinstance(found, Mapping):
        raise GuestError(f"{name}: returns {type(found).__name__}; return a dict of directions by factor")
    net = world.generator("cpu")
    still = Inversion.from_w(net.w_avg[None], net)
    for factor in factors:
        one = found.get(factor)
        if not isinstance(one, Direction):
            raise GuestError(f"{name}: returns no clcae_lib.editing.Direction for {factor!r}")
        try:
            apply_all(net, still, [(one, 1.0)])
        except ValueError as error:
            raise GuestError(f"{name}: {factor}: {error}") from error
        if not torch.isfinite(one.vector).all() or not one.vector.any():
            raise GuestError(f"{name}: {factor}: the vector is zero or has values that are not finite")
        if not torch.allclose(one.vector, again[factor].vector, rtol=1e-3, atol=1e-4):
            raise GuestError(f"{name}: {factor}: a second call finds another direction; fix the seed")
    return {factor: found[factor] for factor in factors}


def _tensors(inversion: Inversion) -> list[Tensor]:
    found: list[Tensor] = []
    inversion.map(lambda part: found.append(part) or part)
    return found
