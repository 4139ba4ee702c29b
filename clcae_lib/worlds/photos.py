"""Worlds of photographs: `ffhq`, `cars`, and a user's own, each a folder of pictures and a StyleGAN2.

What a world is stands in `data/<name>/world.yaml`. Photographs are cut as the generator's were (FFHQ's square
for faces, 4:3 with black bars for cars). Splits go by content: disjoint, and the same on every machine.
"""

import re
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.photos import Alignment, Refusal
from clcae_lib.photos.cutting import SHARES, Crops, Cutter, photographs, prepare, split_of
from clcae_lib.worlds.world import Role, World, WorldError, find_worlds_with, register_world

FILE = "world.yaml"
OFFICIAL = "clcae.pt"
"""The official inversion checkpoint, as `clcae fetch` places it."""
Kind = Literal["faces", "cars", "other"]
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
#: Names that mean something else below `data/`, or are no folder on some system.
RESERVED = {"portraits", "networks", "con", "prn", "aux", "nul", "com1", "com2", "lpt1", "lpt2"}
#: The rows of a car's picture of 256 that show something; the rest is black.
CAR_ROWS = slice(32, 224)
_FRAMINGS = {"faces": "face", "cars": "wide", "other": "middle"}


class WorldSettings(BaseModel):
    """What a world of photographs is; the content of `world.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = Field(default="faces", description="how photographs are cut, and which judges fit")
    images: str = Field(default="images", description="the folder; relative to the world's")
    recursive: bool = Field(default=False, description="whether its folders are searched too")
    generator: str | None = Field(default=None, description="a file in the world's folder")
    resolution: int = Field(ge=32, le=2048, description="side of the generator's pictures")
    already_aligned: bool = Field(default=False, description="the pictures are cut as the generator's were")
    widen: Annotated[float, Field(ge=0.5, le=3)] = 1.0
    lists: dict[Literal["train", "validation", "test"], str] = Field(
        default={}, description="files of names, one a line, in the place of shares"
    )

    @model_validator(mode="after")
    def _check(self) -> "WorldSettings":
        if self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution={self.resolution} is no power of two")
        for name in filter(None, [self.generator, *self.lists.values()]):
            if Path(name).name != name or "\\" in name or name.startswith("."):
                raise ValueError(f"{name!r} is no plain file name; put the file into the world's folder")
        return self


class PhotoWorld(World):
    """A folder of photographs and a StyleGAN2.

    Args:
        name: of the folder below `data/`.
        settings: what the world is; read from its `world.yaml` if None.
    """

    splits: Sequence[str] = tuple(SHARES)

    def __init__(self, name: str, settings: WorldSettings | None = None) -> None:
        self.name = name
        self.settings = settings or read_settings(name)
        self.resolution = self.settings.resolution

    @property
    def cutter(self) -> Cutter:
        """How its photographs are cut."""
        aligned, kind = self.settings.already_aligned, self.settings.kind
        framing = "middle" if aligned and kind == "faces" else _FRAMINGS[kind]
        return Cutter(self.name, self.resolution, framing, self.settings.widen)

    def frame(self, path: Path, picture: Any) -> Alignment:
        """Where the world's crop lies in a photograph; see `World.frame`."""
        return self.cutter.alignment(path, picture)

    @property
    def images_folder(self) -> Path:
        """Where its photographs lie."""
        return self.folder / Path(self.settings.images).expanduser()

    def images(self, split: str, size: int | None = None) -> Crops:
        """The first `size` aligned photographs of a split, in [-1, 1]; all of them if None or fewer.

        Raises:
            WorldError: there is no such split, no folder, or nothing usable in it.
        """
        if split not in self.splits:
            raise WorldError(f"split: {self.name!r} has {', '.join(self.splits)}, not {split!r}")
        files = self.split_files[split]
        if not files:
            counts = ", ".join(f"{name} {len(found)}" for name, found in self.split_files.items())
            raise WorldError(
                f"{self.name!r} has no photographs in its split {split!r} ({counts}); put more into "
                f"{self.images_folder}, or give lists in {self.folder / FILE}{self._first_refusal()}"
            )
        return Crops(self.cutter, files[:size])

    @cached_property
    def _cut(self) -> tuple[dict[Path, str], list[Refusal]]:
        if not self.images_folder.is_dir():
            raise WorldError(
                f"{self.images_folder} is missing: put the photographs of {self.name!r} there, or say where "
                f"they are, `clcae world add {self.name} --images DIR`"
            )
        files, refused = photographs(self.images_folder, recursive=self.settings.recursive)
        digests, uncut = prepare(self.cutter, files)
        return digests, [*refused, *uncut]

    @property
    def refused(self) -> list[Refusal]:
        """The files that cannot be used, each with the reason."""
        return self._cut[1]

    @cached_property
    def split_files(self) -> dict[str, list[Path]]:
        """The usable photographs of each split, in the order of their contents' digests or of their list."""
        digests = self._cut[0]
        if self.settings.lists:
            return self._listed(digests)
        found: dict[str, list[Path]] = {name: [] for name in self.splits}
        for path in sorted(digests, key=lambda path: (digests[path], path)):
            found[split_of(digests[path])].append(path)
        return found

    def _listed(self, digests: dict[Path, str]) -> dict[str, list[Path]]:
        by_name = {path.relative_to(self.images_folder).as_posix(): path for path in digests}
        found: dict[str, list[Path]] = {name: [] for name in self.splits}
        seen: dict[str, str] = {}
        for split, file in self.settings.lists.items():
            place = self.folder / file
            if not place.is_file():
                raise WorldError(f"{place}, the list of {split!r}, is missing; write it, one name a line")
            for line in filter(None, map(str.strip, place.read_text(encoding="utf-8").splitlines())):
                if line not in by_name:
                    raise WorldError(f"{place}: {line!r} is no usable photograph of {self.images_folder}")
                digest = digests[by_name[line]]
                if seen.setdefault(digest, split) != split:
                    raise WorldError(
                        f"{place}: {line!r} is in {seen[digest]!r} already; splits may share nothing"
                    )
                found[split].append(by_name[line])
        return found

    def generator(self, device="cpu") -> nn.Module:
        """The world's StyleGAN2, frozen, in evaluation mode.

        Raises:
            WorldError: there is none, or it draws pictures of another size.
        """
        from clcae_lib.models.official import load_official_generator
        from clcae_lib.models.stylegan2 import load_generator

        path = self.generator_file
        if path.suffix == ".safetensors":
            network = load_generator(path, device=device)
        else:
            network = load_official_generator(path).to(device)
        if network.size != self.resolution:
            raise WorldError(
                f"{path} draws {network.size} pixels, {self.name!r} has resolution {self.resolution}; "
                f"correct {self.folder / FILE}"
            )
        return network

    def inversion(self, preset: str) -> Path | None:
        """The encoder trained here, or, of `published`, the official checkpoint `clcae.pt`; None without."""
        official = self.folder / OFFICIAL
        trained = super().inversion(preset)
        return official if trained is None and preset == "published" and official.is_file() else trained

    @property
    def generator_file(self) -> Path:
        """The generator's file: the one that is named, `generator.safetensors`, or the official one.

        Raises:
            WorldError: there is none.
        """
        names = ["generator.safetensors", "stylegan2.pt"]
        named = self.settings.generator
        for name in [named] if named else names:
            if (self.folder / name).is_file():
                return self.folder / name
        remedy = f"`clcae fetch {self.name}` brings it" if self.name in BUILT_IN else "add it"
        remedy += f", or name your own with `clcae world add {self.name} --images DIR --generator FILE`"
        raise WorldError(f"{self.folder / (named or names[1])} is missing: {remedy}")

    def identity(self, role: Role, device="cpu") -> nn.Module:
        """IR-SE50 for faces, MoCo's features for anything else; one network for losses and for measures.

        Raises:
            WorldError: the weights are not here.
        """
        from clcae_lib.models.official import load_arcface, load_moco

        del role
        faces = self.settings.kind == "faces"
        path = self._network(
            "ir_se50.pth" if faces else "moco_v2_resnet50.pt", "ir-se50" if faces else "moco"
        )
        return (load_arcface if faces else load_moco)(path).to(device)

    def perceptual(self, role: Role, device="cpu") -> nn.Module:
        """LPIPS, which compares any pictures; the portraits' own distance knows drawn faces only.

        Raises:
            WorldError: AlexNet's weights are not here.
        """
        from clcae_lib.worlds.perceptual import ALEXNET_FILE, LpipsAlex, find_alexnet

        del role
        path = find_alexnet() or self._network(ALEXNET_FILE, "lpips")
        return LpipsAlex(path).to(device)

    def measures_with(self, judge: str) -> bool:
        """Whether a judge is here; photographs have one of a kind, which gives losses and measures."""
        try:
            getattr(self, judge)("measure")
        except WorldError:
            return False
        return True

    def view(self, pictures: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 3 rows columns"]:
        """What an encoder sees of pictures: at most 256 pixels a side, of cars without the black rows."""
        pictures = super().view(pictures)
        if self.settings.kind == "cars" and pictures.shape[-2] == pictures.shape[-1] == 256:
            return pictures[:, :, CAR_ROWS]
        return pictures

    def _network(self, file: str, asset: str) -> Path:
        path = paths.data_dir() / "networks" / file
        if not path.is_file():
            raise WorldError(f"{path} is missing: `clcae fetch {asset}` brings it, or put it there by hand")
        return path

    def _first_refusal(self) -> str:
        return f"; not used: {self.refused[0].reason}" if self.refused else ""

    def _lacks(self, what: str) -> WorldError:
        return WorldError(
            f"the world {self.name!r} has no {what}: nobody knows the truth behind a photograph; "
            "the world 'portraits' has one"
        )


BUILT_IN: dict[str, WorldSettings] = {
    "ffhq": WorldSettings(kind="faces", resolution=1024),
    "cars": WorldSettings(kind="cars", resolution=512),
}


@register_world("ffhq")
def _ffhq() -> PhotoWorld:
    return PhotoWorld("ffhq")


@register_world("cars")
def _cars() -> PhotoWorld:
    return PhotoWorld("cars")


def check_name(name: str) -> str:
    """`name`, if a world may be called so.

    Raises:
        WorldError: it is taken by what the project brings, or could leave the data folder.
    """
    if not NAME.fullmatch(name) or name in RESERVED:
        raise WorldError(
            f"{name!r} cannot be a world's name: take up to 40 of a-z, 0-9, - and _, none of "
            f"{', '.join(sorted(RESERVED))}"
        )
    return name


def read_settings(name: str) -> WorldSettings:
    """What `world.yaml` says of a world; a built-in one needs none.

    Raises:
        WorldError: there is none, or it is damaged.
    """
    path = paths.world_dir(check_name(name)) / FILE
    if not path.is_file():
        if name in BUILT_IN:
            return BUILT_IN[name]
        raise WorldError(f"{path} is missing: `clcae world add {name} --images DIR --generator FILE`")
    try:
        return WorldSettings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WorldError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise WorldError(
            f"{path}: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
        ) from error


def add_world(
    name: str,
    *,
    images: Path,
    generator: Path | None = None,
    resolution: int | None = None,
    replace: bool = False,
    **options: Any,
) -> PhotoWorld:
    """Write a world of photographs into the data folder; the photographs stay where they are.

    Args:
        name: of the world; `ffhq` and `cars` may be given their photographs so.
        images: the folder of photographs.
        generator: a StyleGAN2, `.pt` in the official layout or `.safetensors`; it is copied.
        resolution: side of its pictures; read off the generator if None.
        replace: whether a world of that name may be replaced.
        options: more of `WorldSettings`.

    Raises:
        WorldError: a name, folder or file cannot be used.
    """
    folder = paths.world_dir(check_name(name))
    if (folder / FILE).exists() and not replace:
        raise WorldError(f"there is a world {name!r} already; take another name, or say --replace")
    if not Path(images).is_dir():
        raise WorldError(f"{images} is no folder; name one that holds photographs")
    base = BUILT_IN.get(name)
    if generator is None and base is None:
        raise WorldError(f"{name!r} needs a generator: --generator FILE, a StyleGAN2 (.pt or .safetensors)")
    values = base.model_dump() if base else {}
    size = _checked_size(Path(generator)) if generator is not None else None
    if size is not None and resolution not in (None, size):
        raise WorldError(f"{generator} draws {size} pixels, not --resolution {resolution}")
    values |= {
        "images": str(Path(images).resolve()),
        "resolution": resolution or size or values["resolution"],
    }
    values |= {key: value for key, value in options.items() if value is not None}
    if generator is not None:
        values["generator"] = (
            "generator.safetensors" if generator.suffix == ".safetensors" else "stylegan2.pt"
        )
    try:
        settings = WorldSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise WorldError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if generator is not None:
        with atomic_path(folder / settings.generator) as partial:
            shutil.copyfile(generator, partial)
    with atomic_path(folder / FILE) as partial:
        partial.write_text(yaml.safe_dump(settings.model_dump(), sort_keys=False), encoding="utf-8")
    return PhotoWorld(name, settings)


def remove_world(name: str, *, weights: bool = False) -> list[Path]:
    """Take a world away: its `world.yaml`, and with `weights` all in its folder; what was removed.

    Photographs are never touched, unless they lie in that folder and `weights` is asked for.

    Raises:
        WorldError: there is no such world of a user's.
    """
    folder = paths.world_dir(check_name(name))
    if not (folder / FILE).is_file() or folder.is_symlink():
        raise WorldError(
            f"there is no world {name!r} to remove in {paths.data_dir()}; see `clcae world list`"
        )
    if weights:
        shutil.rmtree(folder)
        return [folder]
    (folder / FILE).unlink()
    return [folder / FILE]


def _checked_size(path: Path) -> int:
    """The side of a generator's pictures, after it has been loaded once."""
    from clcae_lib.models.official import load_official_generator
    from clcae_lib.models.stylegan2 import load_generator

    try:
        load = load_generator if path.suffix == ".safetensors" else load_official_generator
        return load(path).size
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise WorldError(f"--generator: {error}") from error


def _find(name: str | None) -> Any:
    """For `get_world`: a user's world of this name or None; the names of all of them if `name` is None."""
    home = paths.data_dir()
    if name is None:
        found = [path.parent.name for path in home.glob(f"*/{FILE}")] if home.is_dir() else []
        return [
            found_name for found_name in found if NAME.fullmatch(found_name) and found_name not in RESERVED
        ]
    if not NAME.fullmatch(name) or name in RESERVED or not (home / name / FILE).is_file():
        return None
    return PhotoWorld(name)


find_worlds_with(_find)

__all__ = ["PhotoWorld", "WorldSettings", "add_world", "read_settings", "remove_world"]
