"""Worlds of photographs: `ffhq`, `cars`, and a user's own, each a folder of pictures and a StyleGAN2.

What a world is stands in `data/<name>/world.yaml`. Photographs are cut as the generator's were (FFHQ's square
for faces, 4:3 with black bars for cars). Splits go by content: disjoint, and the same on every machine.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.images import CAR_HEIGHT, CAR_ROWS
from clcae_lib.models.backbone import ENCODER_SIDE
from clcae_lib.photos import Alignment, Refusal
from clcae_lib.photos.cutting import SHARES, Crops, Cutter, prepare, split_of
from clcae_lib.photos.folder import list_files
from clcae_lib.settings import dump_yaml
from clcae_lib.worlds._photo_settings import (
    BUILT_IN,
    FILE,
    NAME,
    RESERVED,
    WorldSettings,
    read_settings,
    training_defaults,
)
from clcae_lib.worlds.world import Role, World, WorldError, find_worlds_with, register_world

OFFICIAL = "clcae.pt"
"""The official inversion checkpoint, as `clcae fetch` places it."""
_FRAMINGS = {"faces": "face", "cars": "wide", "other": "middle"}


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
        self.widen = self.settings.widen
        if self.settings.kind == "cars" and self.resolution >= ENCODER_SIDE:
            self.published_height = CAR_HEIGHT

    @cached_property
    def cutter(self) -> Cutter:
        """How its photographs are cut."""
        aligned, kind = self.settings.already_aligned, self.settings.kind
        framing = "middle" if aligned and kind == "faces" else _FRAMINGS[kind]
        return Cutter(self.name, self.resolution, framing, self.settings.widen)

    def frame(self, path: Path, picture: Any) -> Alignment:
        """Where the world's crop lies in a photograph; see `World.frame`."""
        return self.cutter.alignment(path, picture)

    def training_defaults(self, stage: str) -> dict[str, Any]:
        """Sizes for photographs; see `World.training_defaults`."""
        return training_defaults(stage, self.resolution)

    @property
    def images_folder(self) -> Path:
        """Where its photographs lie."""
        return self.folder / Path(self.settings.images).expanduser()

    @property
    def missing(self) -> list[str]:
        """What the world needs and does not have: its photographs' folder, its generator."""
        lacks = [] if self.images_folder.is_dir() else [f"its photographs ({self.images_folder})"]
        try:
            _ = self.generator_file
        except WorldError:
            lacks.append("a generator")
        return lacks

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
        files, refused = list_files(self.images_folder, recursive=self.settings.recursive)
        digests, uncut = prepare(self.cutter, files)
        return digests, [*refused, *uncut]

    @property
    def refused(self) -> list[Refusal]:
        """The files that cannot be used, each with the reason."""
        return self._cut[1]

    @cached_property
    def split_files(self) -> dict[str, list[Path]]:
        """The usable photographs of each split, in the order of their contents' digests or of their list.

        In an album so small that validation or test would have none, each takes the last one of training.
        """
        digests = self._cut[0]
        if self.settings.lists:
            return self._listed(digests)
        found: dict[str, list[Path]] = {name: [] for name in self.splits}
        for path in sorted(digests, key=lambda path: (digests[path], path)):
            found[split_of(digests[path])].append(path)
        _share_last(found, digests)
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
        from clcae_lib.weights import load_generator

        path = self.generator_file
        network = load_generator(path, device=device)
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

    def require(self, name: str, *, command: str) -> Path:
        """The file of weights; see `World.require`. Where they are published, fetching comes first.

        Raises:
            WorldError: it is not there.
        """
        if name == "inversion_published" and self.name in BUILT_IN and not self.has(name):
            raise WorldError(
                f"{self.folder / OFFICIAL} is missing: `clcae fetch {self.name}` brings it, or make one of "
                f"your own with `{command} --install`, or set CLCAE_DATA to the folder that has it"
                f"{self._other_preset(name)}"
            )
        return super().require(name, command=command)

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
        from clcae_lib.weights import load_arcface, load_moco

        del role
        faces = self.settings.kind == "faces"
        path = self._network(self._identity_file, "ir-se50" if faces else "moco")
        return (load_arcface if faces else load_moco)(path).to(device)

    def perceptual(self, role: Role, device="cpu") -> nn.Module:
        """LPIPS, which compares any pictures; the portraits' own distance knows drawn faces only.

        Raises:
            WorldError: AlexNet's weights are not here.
        """
        from clcae_lib.worlds.perceptual import ALEXNET_FILE, LpipsAlex

        del role
        return LpipsAlex(self._network(ALEXNET_FILE, "alexnet")).to(device)

    @property
    def _identity_file(self) -> str:
        return "ir_se50.pth" if self.settings.kind == "faces" else "moco_v2_resnet50.pt"

    def judge_file(self, judge: str, role: Role) -> Path | None:
        """The file of a network that worlds of photographs share; see `World.judge_file`."""
        from clcae_lib.worlds.perceptual import ALEXNET_FILE

        del role
        names = {"identity": self._identity_file, "perceptual": ALEXNET_FILE}
        if judge not in names:
            return None
        path = paths.data_dir() / "networks" / names[judge]
        return path if path.is_file() else None

    @property
    def untrained(self) -> dict[str, str]:
        """The generator, which is given, and the judges.

        Raises:
            WorldError: there is no generator.
        """
        given = f"the world has one, {self.generator_file}"
        factors = "the factors behind a photograph are not known"
        return {"generator": given, "judges": factors, "body": factors} | self._too_small

    def lend(self, data: Path) -> None:
        """Write the settings into another data folder, and links to the generator and the networks there.

        Raises:
            WorldError: there is no generator.
        """
        home, generator = data / self.name, self.generator_file
        given = [generator, generator.with_suffix(".json")]
        given += [self.folder / name for name in self.settings.lists.values()]
        networks = [self.judge_file(judge, "train") for judge in ("identity", "perceptual")]
        targets = {home / path.name: path for path in given if path.is_file()}
        targets |= {data / "networks" / path.name: path for path in networks if path}
        for target, path in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to(path.resolve())
        settings = {"images": str(self.images_folder.resolve()), "generator": generator.name}
        with atomic_path(home / FILE) as partial:
            partial.write_text(dump_yaml(self.settings.model_dump() | settings), encoding="utf-8")

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

    def published_view(
        self, pictures: Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, "n 3 rows columns"]:
        """What preset `published` sees of photographs: of cars what lies between the black rows."""
        if self.settings.kind == "cars" and pictures.shape[-2] == pictures.shape[-1] >= ENCODER_SIDE:
            bar = pictures.shape[-1] // 8
            pictures = pictures[:, :, bar:-bar]
        return super().published_view(pictures)

    def _network(self, file: str, asset: str) -> Path:
        from clcae_lib.weights.fetch import Fetcher
        from clcae_lib.weights.manifest import AssetError, read_manifest

        path = paths.data_dir() / "networks" / file
        if not path.is_file():
            raise WorldError(f"{path} is missing: `clcae fetch {asset}` brings it, or put it there by hand")
        try:
            return Fetcher(read_manifest(), paths.data_dir()).check(asset)
        except AssetError as error:
            raise WorldError(str(error)) from error

    def _first_refusal(self) -> str:
        return f"; not used: {self.refused[0].reason}" if self.refused else ""

    def _lacks(self, what: str) -> WorldError:
        return WorldError(
            f"the world {self.name!r} has no {what}: nobody knows the truth behind a photograph; "
            "the world 'portraits' has one"
        )


@register_world("ffhq")
def _ffhq() -> PhotoWorld:
    return PhotoWorld("ffhq")


@register_world("cars")
def _cars() -> PhotoWorld:
    return PhotoWorld("cars")


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


def _share_last(found: dict[str, list[Path]], digests: Mapping[Path, str]) -> None:
    """Give each empty split training's last photograph, with all copies of it, while training keeps one."""
    for split in [name for name, files in found.items() if not files and name != "train"]:
        last = [path for path in found["train"] if digests[path] == digests[found["train"][-1]]]
        if len(last) < len(found["train"]):
            found[split] = last
            found["train"] = found["train"][: -len(last)]
