"""What is inverted: images, a generator, and the means to judge an edit, behind one interface.

Notebooks and trainers ask `get_world(name)` and never look at the name again. A new world is a
subclass of `World` under `register_world`; what a world cannot do (a folder of photographs has no
oracle) is a `WorldError` that says so.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import paths
from clcae_lib.errors import ClcaeError

Role = Literal["train", "measure"]
#: Copy a of a judge gives losses and labels, copy b measures; photographs have one network for both roles.
COPIES: dict[str, str] = {"train": "a", "measure": "b"}


class WorldError(ClcaeError, RuntimeError):
    """The world lacks what was asked of it; the message names it and the remedy."""


class UnknownWorldError(WorldError, ValueError):
    """There is no world of the name."""


@runtime_checkable
class Images(Protocol):
    """A set of images addressed by local index."""

    def __len__(self) -> int: ...

    def images(self, indices) -> Float[Tensor, "n 3 height width"]:
        """Images of these indices, float32 in [-1, 1]."""


def copy_of(role: str) -> str:
    """The copy of a judge, "a" or "b", that plays this role.

    Raises:
        ValueError: the role is neither "train" nor "measure".
    """
    if role not in COPIES:
        raise ValueError(f"role: 'train' (losses and labels) or 'measure', got {role!r}")
    return COPIES[role]


class World:
    """A world's images, generator and judges. Subclasses provide what they have."""

    name: str = ""
    resolution: int = 0
    splits: Sequence[str] = ()
    factor_names: Sequence[str] = ()
    #: The factors that say how a picture shows a person, and not who is shown: what edits may change.
    state_names: Sequence[str] = ()
    #: Mean, spread and range of each factor, in its unit and in the order of `factor_names`.
    factor_mean: Tensor = torch.empty(0)
    factor_std: Tensor = torch.empty(0)
    factor_low: Tensor = torch.empty(0)
    factor_high: Tensor = torch.empty(0)
    #: How much more than FFHQ's square around a face the world's pictures show.
    widen: float = 1.0
    #: What each factor means, in one line.
    factor_texts: Sequence[str] = ()
    #: Height of what preset `published` sees of the world's pictures; None where that is square.
    published_height: int | None = None

    @property
    def renderer(self) -> str:
        """Digest of the program that draws the world's images; empty where they are photographs."""
        return ""

    @property
    def folder(self) -> Path:
        """Where the world's weights and photographs lie."""
        return paths.world_dir(self.name)

    def weights(self, name: str) -> Path:
        """The file of the weights called `name`, for example "generator" or "oracle_a"; it need not exist."""
        return self.folder / f"{name}.safetensors"

    def has(self, name: str) -> bool:
        """Whether the weights called `name` are there."""
        return self.weights(name).is_file()

    @property
    def generator_file(self) -> Path:
        """The file of the world's generator."""
        return self.weights("generator")

    def measures_with(self, judge: str) -> bool:
        """Whether the judge that measures ("identity" or "perceptual") is here."""
        return self.has(f"{judge}_b")

    def require(self, name: str, *, command: str) -> Path:
        """The file of the weights called `name`.

        Raises:
            WorldError: it is not there; the message names the file and the command that makes it.
        """
        if not self.has(name):
            raise WorldError(
                f"{self.weights(name)} is missing: make it with `{command} --install`, "
                f"or set CLCAE_DATA to the folder that has it{self._other_preset(name)}"
            )
        return self.weights(name)

    def _other_preset(self, name: str) -> str:
        """The end of a message that an encoder is missing: the preset whose encoder is here, if one is."""
        other = {"inversion_foundation": "published", "inversion_published": "foundation"}.get(name)
        return f", or take preset={other}, which is here" if other and self.inversion(other) else ""

    def judge_file(self, judge: str, role: Role) -> Path | None:
        """The file of `identity`, `perceptual` or `oracle` in this role; None where there is none."""
        path = self.weights(f"{judge}_{copy_of(role)}")
        return path if path.is_file() else None

    @property
    def untrained(self) -> dict[str, str]:
        """The links of the chain of weights that are not trained for this world, each with the reason."""
        factors = "it learns from factors, which rendered worlds such as 'portraits' have"
        return {"judges": factors, "body": factors} | self._too_small

    @property
    def _too_small(self) -> dict[str, str]:
        from clcae_lib.models.published import MIN_SIDE

        needs = f"it needs images of {MIN_SIDE} pixels or more, these have {self.resolution}"
        return {"inversion_published": needs} if self.resolution < MIN_SIDE else {}

    def lend(self, data: Path) -> None:
        """Put what the world was given, and is not trained, into another data folder as well."""
        del data

    def inversion(self, preset: str) -> Path | None:
        """The file of the inversion encoder of a preset, or None where there is none."""
        return self.weights(f"inversion_{preset}") if self.has(f"inversion_{preset}") else None

    def training_defaults(self, stage: str) -> dict[str, Any]:
        """Settings of a stage of training, such as "inversion", that differ from its defaults here."""
        del stage
        return {}

    def images(self, split: str, size: int | None = None) -> Images:
        """The first `size` images of a split, all of them if None."""
        raise self._lacks("images")

    def frame(self, path: Path, picture: Any) -> Any:
        """Where the world's crop lies in a photograph (`Alignment`): around the largest face.

        Args:
            path: of the photograph; its landmarks may lie beside it.
            picture: what `read_image` made of it.

        Raises:
            PhotoError: no face is known; the message says how to give one.
        """
        from clcae_lib.photos.cutting import frame_face

        return frame_face(path, picture, side=self.resolution, widen=self.widen)

    def generator(self, device="cpu") -> nn.Module:
        """The world's StyleGAN2, frozen, in evaluation mode, with `w_avg` set."""
        from clcae_lib.weights import load_generator

        command = f"clcae train generator --world {self.name}"
        return load_generator(self.require("generator", command=command), device=device)

    def oracle(self, role: Role, device="cpu") -> nn.Module:
        """The factor regressor of this role: images [N, 3, R, R] to factors [N, K] in their units."""
        raise self._lacks("oracle of factors")

    def identity(self, role: Role, device="cpu") -> nn.Module:
        """The identity embedding of this role: images [N, 3, R, R] to unit vectors [N, 64]."""
        raise self._lacks("identity embedding")

    def perceptual(self, role: Role, device="cpu") -> nn.Module:
        """The perceptual distance of this role: two batches [N, 3, R, R] to distances [N]."""
        raise self._lacks("perceptual distance of its own")

    def render(
        self, factors: Float[Tensor, "n k"], *, resolution: int | None = None
    ) -> Float[Tensor, "n 3 height width"]:
        """Pictures of these factors, in [-1, 1]: what an edit should have given; its own side if None."""
        raise self._lacks("renderer")

    def view(self, pictures: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 rows columns"]:
        """What an encoder sees, and a loss compares, of the generator's pictures: at most 256 a side."""
        from clcae_lib.models.backbone import to_encoder_side

        return to_encoder_side(pictures)

    def published_view(
        self, pictures: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, "n 3 rows columns"]:
        """What preset `published` sees of photographs: made smaller as PIL does it, where they are larger."""
        from clcae_lib.models.published import to_published_side

        return to_published_side(pictures)

    def _lacks(self, what: str) -> WorldError:
        return WorldError(f"the world {self.name!r} has no {what}; the world 'portraits' has one")


_REGISTRY: dict[str, Callable[[], World]] = {}
_FOUND: list[Callable[[str | None], Any]] = []


def register_world(name: str) -> Callable[[Callable[[], World]], Callable[[], World]]:
    """Decorator: make a `World` class known to `get_world` under this name.

    Raises:
        ValueError: the name is taken by another class.
    """

    def register(make: Callable[[], World]) -> Callable[[], World]:
        if _REGISTRY.setdefault(name, make) is not make:
            raise ValueError(f"name: a world called {name!r} is registered already")
        return make

    return register


def world_names() -> tuple[str, ...]:
    """Names of the registered worlds and of those that lie in the data folder."""
    return tuple(sorted({*_REGISTRY, *_FOUND[0](None)} if _FOUND else _REGISTRY))


def find_worlds_with(find: Callable[[str | None], Any]) -> None:
    """Let `get_world` ask `find` too, for the world of a name (or None), or with None for the names."""
    _FOUND[:] = [find]


def get_world(name: str | World) -> World:
    """Return the world of this name; a world itself is returned as it is.

    Raises:
        UnknownWorldError: there is none.
        WorldError: its `world.yaml` is damaged.
    """
    if isinstance(name, World):
        return name
    found = _FOUND[0](name) if _FOUND and name not in _REGISTRY else None
    if found is not None:
        return found
    if name not in _REGISTRY:
        raise UnknownWorldError(f"there is no world {name!r}; choose one of {', '.join(world_names())}")
    return _REGISTRY[name]()
