"""The interface of a world: images, a generator, and the networks that measure an edit.

Notebooks and trainers call `get_world(name)` and do not use the name again. If a world lacks something (a
folder of photographs has no attribute regressor), it raises a `WorldError`.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import paths
from clcae_lib.errors import ClcaeError
from clcae_lib.models.backbone import to_encoder_side
from clcae_lib.models.published import MIN_SIDE, to_published_side
from clcae_lib.photos import Crop, face_crop
from clcae_lib.weights import load_generator

Role = Literal["train", "measure"]
"""What a judge is for, a loss of a training or a measure."""
#: The copy by role: loss network or evaluation network; photographs have one network for both.
COPIES: dict[str, str] = {"train": "a", "measure": "b"}


class WorldError(ClcaeError, RuntimeError):
    """The world lacks something; the message names it and the remedy."""


class UnknownWorldError(WorldError, ValueError):
    """No world has this name."""


@runtime_checkable
class Images(Protocol):
    """A set of images addressed by local index."""

    def __len__(self) -> int: ...

    def images(self, indices) -> Float[Tensor, "n 3 h w"]:
        """Return the images of these indices, float32 in [-1, 1]."""


def copy_of(role: str) -> str:
    """Return the copy of a network, "a" or "b", for a role; raise a ValueError for an unknown role."""
    if role not in COPIES:
        raise ValueError(f"role={role!r}: use 'train' (losses and labels) or 'measure'")
    return COPIES[role]


def _of_factors(field: str) -> cached_property[Tensor]:
    """Return a property with this field of all factors."""
    return cached_property(lambda world: torch.tensor([float(getattr(f, field)) for f in world.factors]))


class World:
    """A world's images, generator and networks. Subclasses implement those that they have."""

    name: str = ""
    resolution: int = 0
    splits: Sequence[str] = ()
    #: The renderer's factors (`portraits.factors.Factor`); none for photographs.
    factors: Sequence[Any] = ()
    #: Side of the world's images relative to FFHQ's square around a face.
    widen: float = 1.0
    #: The face that is cut out of a photograph: "largest", "middle", or its number from the left.
    face: int | str = "largest"
    #: Height of the input of preset `published`; None if it is square.
    published_height: int | None = None
    #: Mean, standard deviation, smallest and largest value of each factor, in its unit, `[K]`.
    factor_mean, factor_std = _of_factors("mean"), _of_factors("std")
    factor_low, factor_high = _of_factors("low"), _of_factors("high")

    @cached_property
    def factor_names(self) -> tuple[str, ...]:
        """Names of the factors."""
        return tuple(factor.name for factor in self.factors)

    @cached_property
    def state_names(self) -> tuple[str, ...]:
        """The factors of how a person is shown, not of who is shown; edits change these."""
        return tuple(factor.name for factor in self.factors if factor.group == "state")

    @cached_property
    def factor_texts(self) -> tuple[str, ...]:
        """The meaning of each factor, in one line."""
        return tuple(factor.text for factor in self.factors)

    @property
    def renderer(self) -> str:
        """Digest of the program that draws the world's images; empty for photographs."""
        return ""

    @property
    def folder(self) -> Path:
        """The folder of the world's weights and photographs."""
        return paths.world_dir(self.name)

    def weights(self, name: str) -> Path:
        """Return the file of the weights `name`, such as "generator" or "oracle_a"; it need not exist."""
        return self.folder / f"{name}.safetensors"

    def has(self, name: str) -> bool:
        """Return whether the weights called `name` exist."""
        return self.weights(name).is_file()

    @property
    def generator_file(self) -> Path:
        """The file of the world's generator."""
        return self.weights("generator")

    def measures_with(self, judge: str) -> bool:
        """Return whether the evaluation network "identity" or "perceptual" exists."""
        return self.judge_file(judge, "measure") is not None

    def require(self, name: str, *, command: str) -> Path:
        """Return the file of the weights called `name`; the WorldError names the command that makes it."""
        if not self.has(name):
            raise WorldError(
                f"{self.weights(name)} is missing: make it with `{command} --install`, "
                f"or set CLCAE_DATA to the folder that has it{self._other_preset(name)}"
            )
        return self.weights(name)

    def _other_preset(self, name: str) -> str:
        """Return the end of the message about a missing encoder: the preset that has one, if any."""
        other = {"inversion_foundation": "published", "inversion_published": "foundation"}.get(name)
        return f", or use preset={other}, which is here" if other and self.inversion(other) else ""

    def judge_file(self, judge: str, role: Role) -> Path | None:
        """Return the file of `identity`, `perceptual` or `oracle` in this role; None if there is none."""
        path = self.weights(f"{judge}_{copy_of(role)}")
        return path if path.is_file() else None

    @property
    def untrained(self) -> dict[str, str]:
        """The links of the chain of weights that are not trained for this world, each with the reason."""
        factors = "it learns from factors, which rendered worlds such as 'portraits' have"
        reasons = dict.fromkeys(("judges", "body", "feature_editor"), factors)
        needs = f"it needs images of {MIN_SIDE} pixels or more, these have {self.resolution}"
        return reasons | ({"inversion_published": needs} if self.resolution < MIN_SIDE else {})

    def lend(self, data: Path) -> None:
        """Copy or link the given parts of the world, which are not trained, into another data folder."""
        del data

    def inversion(self, preset: str) -> Path | None:
        """Return the file of the inversion encoder of a preset, or None if there is none."""
        return self.weights(f"inversion_{preset}") if self.has(f"inversion_{preset}") else None

    def training_defaults(self, stage: str) -> dict[str, Any]:
        """Return the settings of a stage of training, such as "inversion", that replace its defaults."""
        del stage
        return {}

    def images(self, split: str, size: int | None = None) -> Images:
        """Return the first `size` images of a split, all of them if None."""
        raise self._lacks("images")

    def find_crop(self, path: Path, image: Any) -> Crop:
        """Return the place of the world's crop in a photograph: around the face that `face` selects.

        `path` may have a landmarks file; `image` is the result of `read_image`.

        Raises:
            PhotoError: no face is known; the message says how to give one.
        """
        return face_crop(path, image, side=self.resolution, widen=self.widen, face=self.face)

    def generator(self, device="cpu") -> nn.Module:
        """Return the world's StyleGAN2, frozen, in evaluation mode, with `w_avg` set."""
        command = f"clcae train generator --world {self.name}"
        return load_generator(self.require("generator", command=command), device=device)

    def oracle(self, role: Role, device="cpu") -> nn.Module:
        """Return the attribute regressor of this role: images `[N, 3, R, R]` to factors `[N, K]`."""
        raise self._lacks("oracle of factors")

    def identity(self, role: Role, device="cpu") -> nn.Module:
        """Return the identity network of this role: images `[N, 3, R, R]` to unit vectors."""
        raise self._lacks("identity embedding")

    def perceptual(self, role: Role, device="cpu") -> nn.Module:
        """Return the perceptual network of this role: two batches `[N, 3, R, R]` to distances `[N]`."""
        raise self._lacks("perceptual distance of its own")

    def render(
        self, factors: Float[Tensor, "n k"], *, resolution: int | None = None
    ) -> Float[Tensor, "n 3 h w"]:
        """Return the images of these factors (in their units), in [-1, 1]: the ground truth of an edit.

        `resolution` is the side in pixels; the world's own if None.
        """
        raise self._lacks("renderer")

    def view(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 rows columns"]:
        """Return the view of images for encoders and losses: at most 256 pixels per side."""
        return to_encoder_side(images)

    def published_view(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 rows columns"]:
        """Return the view of photographs of preset `published`: larger ones are reduced as by PIL."""
        return to_published_side(images)

    def _lacks(self, what: str) -> WorldError:
        return WorldError(f"the world {self.name!r} has no {what}; the world 'portraits' has one")


#: The class of each world by name; add a `World` class here to use it by name.
WORLDS: dict[str, Callable[[], World]] = {}
#: Further worlds: a function that returns their names, and one that returns the world of a name.
SOURCES: list[tuple[Callable[[], Sequence[str]], Callable[[str], World]]] = []


def world_names() -> tuple[str, ...]:
    """Return the names of the registered worlds and of those in the data folder."""
    return tuple(sorted({*WORLDS, *(name for names, _ in SOURCES for name in names())}))


def get_world(name: str | World) -> World:
    """Return the world of this name; a `World` is returned unchanged.

    Raises:
        UnknownWorldError: no world has this name.
        WorldError: its `world.yaml` is damaged.
    """
    if isinstance(name, World):
        return name
    if name in WORLDS:
        return WORLDS[name]()
    for names, make in SOURCES:
        if name in names():
            return make(name)
    raise UnknownWorldError(f"there is no world {name!r}; choose one of {', '.join(world_names())}")
