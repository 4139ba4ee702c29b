"""Worlds of photographs: `ffhq`, `cars`, and a user's own, each a folder of photographs and a StyleGAN2.

The settings of a world are in `data/<name>/world.yaml`. Photographs are cut like the generator's training
images (FFHQ's square for faces, 4:3 with black bars for cars). Splits depend on the photographs' content:
they are disjoint, and the same on every machine.
"""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from clcae_lib import paths
from clcae_lib.files import write_text
from clcae_lib.images import CAR_HEIGHT, CAR_ROWS
from clcae_lib.models.backbone import ENCODER_SIDE
from clcae_lib.photos import SHARES, Crop, CroppedPhotos, Cutter, Refusal, list_files, sort_out, split_of
from clcae_lib.settings import dump_yaml
from clcae_lib.weights import load_arcface, load_generator, load_moco
from clcae_lib.weights.fetch import Fetcher
from clcae_lib.weights.manifest import AssetError, read_manifest
from clcae_lib.worlds.perceptual import ALEXNET_FILE, LpipsAlex
from clcae_lib.worlds.settings import BUILT_IN, FILE, WorldSettings, is_free, read_settings, training_defaults
from clcae_lib.worlds.world import SOURCES, WORLDS, Role, World, WorldError

OFFICIAL = "clcae.pt"
"""File name of the official inversion checkpoint, which `clcae fetch` downloads."""
_FRAMINGS = {"faces": "face", "cars": "wide", "other": "middle"}


class PhotoWorld(World):
    """A folder of photographs and a StyleGAN2; settings are read from its `world.yaml` if not given."""

    splits: Sequence[str] = tuple(SHARES)

    def __init__(self, name: str, settings: WorldSettings | None = None) -> None:
        self.name = name
        self.settings = settings or read_settings(name)
        self.resolution = self.settings.resolution
        self.widen, self.face = self.settings.widen, self.settings.face
        if self.settings.kind == "cars" and self.resolution >= ENCODER_SIDE:
            self.published_height = CAR_HEIGHT

    @cached_property
    def cutter(self) -> Cutter:
        """The cutter of the world's photographs."""
        aligned, kind = self.settings.already_aligned, self.settings.kind
        framing = "middle" if aligned and kind == "faces" else _FRAMINGS[kind]
        return Cutter(self.name, self.resolution, framing, self.settings.widen, self.face)

    def find_crop(self, path: Path, image: Any) -> Crop:
        """Return the place of the world's crop in a photograph; see `World.find_crop`."""
        return self.cutter.find_crop(path, image)

    def training_defaults(self, stage: str) -> dict[str, Any]:
        """Return settings for photographs; see `World.training_defaults`."""
        return training_defaults(stage, self.resolution)

    @property
    def images_folder(self) -> Path:
        """The folder of the world's photographs."""
        return self.folder / os.path.expanduser(self.settings.images)

    @property
    def missing(self) -> list[str]:
        """The missing parts of the world: its folder of photographs, its generator."""
        lacks = [] if os.path.isdir(self.images_folder) else [f"its photographs ({self.images_folder})"]
        try:
            _ = self.generator_file
        except WorldError:
            lacks.append("a generator")
        return lacks

    def images(self, split: str, size: int | None = None) -> CroppedPhotos:
        """Return the first `size` aligned photographs of a split, in [-1, 1]; all if None or fewer exist.

        Raises:
            WorldError: the split is unknown, the folder is missing, or it has no usable photograph.
        """
        if split not in self.splits:
            raise WorldError(f"split: {self.name!r} has {', '.join(self.splits)}, not {split!r}")
        files = self.split_files[split]
        if not files:
            counts = ", ".join(f"{name} {len(found)}" for name, found in self.split_files.items())
            reason = f"; not used: {self.refused[0].reason}" if self.refused else ""
            raise WorldError(
                f"{self.name!r} has no photographs in its split {split!r} ({counts}); put more into "
                f"{self.images_folder}, or give lists in {self.folder / FILE}{reason}"
            )
        return CroppedPhotos(self.cutter, files[:size])

    @cached_property
    def _cut(self) -> tuple[dict[Path, str], list[Refusal]]:
        """The digest of each usable photograph, and the unusable files."""
        if not os.path.isdir(self.images_folder):
            raise WorldError(
                f"{self.images_folder} is missing: put the photographs of {self.name!r} there, or set their "
                f"folder: `clcae world add {self.name} --images DIR`"
            )
        files, unreadable = list_files(self.images_folder, recursive=self.settings.recursive)
        title = f"photographs of {self.name}"
        digests, refused = sort_out(files, self.cutter.digest, title=title)
        return digests, [*unreadable, *refused]

    @property
    def refused(self) -> list[Refusal]:
        """The files that cannot be used, each with the reason."""
        return self._cut[1]

    @cached_property
    def split_files(self) -> dict[str, list[Path]]:
        """The usable photographs of each split, in the order of their digests or of their list.

        If there are so few that validation or test would be empty, each gets the last one of training.
        """
        digests = self._cut[0]
        found: dict[str, list[Path]] = {name: [] for name in self.splits}
        if self.settings.lists:
            return found | self._listed(digests)
        for path in sorted(digests, key=lambda path: (digests[path], path)):
            found[split_of(digests[path])].append(path)
        _share_last(found, digests)
        return found

    def _listed(self, digests: dict[Path, str]) -> dict[str, list[Path]]:
        by_name = {path.relative_to(self.images_folder).as_posix(): path for path in digests}
        found: dict[str, list[Path]] = {}
        seen: dict[str, str] = {}
        for split, file in self.settings.lists.items():
            place = self.folder / file
            if not place.is_file():
                raise WorldError(f"{place}, the list of {split!r}, is missing; write it, one name per line")
            names = list(filter(None, map(str.strip, place.read_text(encoding="utf-8").splitlines())))
            for name in names:
                if name not in by_name:
                    raise WorldError(f"{place}: {name!r} is not a usable photograph of {self.images_folder}")
                owner = seen.setdefault(digests[by_name[name]], split)
                if owner != split:
                    raise WorldError(f"{place}: {name!r} is already in {owner!r}; splits must be disjoint")
            found[split] = [by_name[name] for name in names]
        return found

    def generator(self, device="cpu") -> nn.Module:
        """Return the world's StyleGAN2, frozen, in evaluation mode, after checking its resolution."""
        path = self.generator_file
        network = load_generator(path, device=device)
        if network.size != self.resolution:
            raise WorldError(
                f"{path} draws {network.size} pixels, {self.name!r} has resolution {self.resolution}; "
                f"correct {self.folder / FILE}"
            )
        return network

    def inversion(self, preset: str) -> Path | None:
        """Return the file of the encoder trained here, or, for `published`, `clcae.pt`; None without one."""
        official = self.folder / OFFICIAL
        trained = super().inversion(preset)
        return official if trained is None and preset == "published" and official.is_file() else trained

    def require(self, name: str, *, command: str) -> Path:
        """Return a weights file; see `World.require`. The error for published ones names `clcae fetch`."""
        if name == "inversion_published" and self.name in BUILT_IN and not self.has(name):
            raise WorldError(
                f"{self.folder / OFFICIAL} is missing: `clcae fetch {self.name}` downloads it, or train one "
                f"with `{command} --install`, or set CLCAE_DATA to the folder that has it"
                f"{self._other_preset(name)}"
            )
        return super().require(name, command=command)

    def _other_preset(self, name: str) -> str:
        """Return the end of the message about a missing encoder, with methods that need none."""
        without = ", or use a method without an encoder: `clcae invert --method optimisation_w_plus`"
        return super()._other_preset(name) or (without if name.startswith("inversion_") else "")

    @property
    def generator_file(self) -> Path:
        """The generator's file: the one in the settings, `generator.safetensors`, or the official one."""
        named, official = self.settings.generator, "stylegan2.pt"
        for name in [named] if named else ["generator.safetensors", official]:
            if os.path.isfile(self.folder / name):
                return self.folder / name
        remedy = f"`clcae fetch {self.name}` downloads it" if self.name in BUILT_IN else "add it"
        remedy += f", or name your own with `clcae world add {self.name} --images DIR --generator FILE`"
        raise WorldError(f"{self.folder / (named or official)} is missing: {remedy}")

    def identity(self, role: Role, device="cpu") -> nn.Module:
        """Return IR-SE50 for faces, else MoCo's features; one network for losses and measures."""
        load = load_arcface if self.settings.kind == "faces" else load_moco
        return load(self._checked("identity")).to(device)

    def perceptual(self, role: Role, device="cpu") -> nn.Module:
        """Return LPIPS, which can compare all images, in contrast to the portraits' own distance."""
        return LpipsAlex(self._checked("perceptual")).to(device)

    def judge_path(self, judge: str) -> Path:
        """Return the path of the shared "identity" or "perceptual" network; the file need not exist."""
        identity = "ir_se50.pth" if self.settings.kind == "faces" else "moco_v2_resnet50.pt"
        return paths.data_dir() / "networks" / {"identity": identity, "perceptual": ALEXNET_FILE}[judge]

    def judge_file(self, judge: str, role: Role) -> Path | None:
        """Return the file of a network that worlds of photographs share; see `World.judge_file`."""
        path = None if judge == "oracle" else self.judge_path(judge)
        return path if path and path.is_file() else None

    @property
    def untrained(self) -> dict[str, str]:
        """The generator, which is given, and the networks that need factors."""
        given = f"the world has one, {self.generator_file}"
        return {"generator": given} | super().untrained

    def lend(self, data: Path) -> None:
        """Write the settings, and links to the generator and the networks, into another data folder."""
        home, generator = data / self.name, self.generator_file
        given = [generator, generator.with_suffix(".json")]
        given += [self.folder / name for name in self.settings.lists.values()]
        targets = {home / path.name: path for path in given}
        targets |= {data / "networks" / p.name: p for p in map(self.judge_path, ("identity", "perceptual"))}
        for target, path in targets.items():
            if path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.symlink_to(path.resolve())
        settings = {"images": str(self.images_folder.resolve()), "generator": generator.name}
        write_text(home / FILE, dump_yaml(self.settings.model_dump() | settings))

    def view(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 rows columns"]:
        """Return an encoder's view of images: at most 256 pixels per side, cars without black rows."""
        images = super().view(images)
        return images[:, :, CAR_ROWS] if self._has_bars(images, ENCODER_SIDE) else images

    def published_view(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 rows columns"]:
        """Return the view of photographs of preset `published`: cars without black rows."""
        if self._has_bars(images, images.shape[-1]):
            scale = images.shape[-1] // ENCODER_SIDE
            images = images[:, :, scale * CAR_ROWS.start : scale * CAR_ROWS.stop]
        return super().published_view(images)

    def _has_bars(self, images: Tensor, side: int) -> bool:
        """Return whether images are squares of cars with this side, with black rows above and below."""
        return self.settings.kind == "cars" and images.shape[-2] == images.shape[-1] == side >= ENCODER_SIDE

    def _checked(self, judge: str) -> Path:
        """Return a published network's file after checking its digest."""
        path, faces = self.judge_path(judge), self.settings.kind == "faces"
        asset = "alexnet" if judge == "perceptual" else "ir-se50" if faces else "moco"
        if not path.is_file():
            raise WorldError(f"{path} is missing: `clcae fetch {asset}` downloads it, or add it by hand")
        try:
            return Fetcher(read_manifest(), paths.data_dir()).check(asset)
        except AssetError as error:
            raise WorldError(str(error)) from error

    def _lacks(self, what: str) -> WorldError:
        return WorldError(
            f"the world {self.name!r} has no {what}: ground-truth factors exist only for rendered worlds "
            "such as 'portraits'"
        )


def _share_last(found: dict[str, list[Path]], digests: Mapping[Path, str]) -> None:
    """Move training's last photograph, with its copies, to each empty split; training keeps one."""
    for split in [name for name, files in found.items() if not files and name != "train"]:
        last = [path for path in found["train"] if digests[path] == digests[found["train"][-1]]]
        if len(last) < len(found["train"]):
            found[split] = last
            found["train"] = found["train"][: -len(last)]


def _user_worlds() -> list[str]:
    found = (path.parent.name for path in paths.data_dir().glob(f"*/{FILE}"))
    return list(filter(is_free, found))


WORLDS.update({name: partial(PhotoWorld, name) for name in BUILT_IN})
SOURCES.append((_user_worlds, PhotoWorld))
