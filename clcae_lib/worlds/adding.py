"""Making a world of a folder of photographs and a StyleGAN2, and taking it away."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clcae_lib import paths
from clcae_lib.files import atomic_path
from clcae_lib.photos import PhotoError, Refusal, check_image, none_usable
from clcae_lib.photos.folder import list_files
from clcae_lib.settings import dump_yaml
from clcae_lib.weights import checkpoints
from clcae_lib.worlds._photo_settings import BUILT_IN, FILE, WorldSettings, check_name
from clcae_lib.worlds.photos import PhotoWorld
from clcae_lib.worlds.world import WorldError


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
        generator: a StyleGAN2 in any layout that `clcae inspect` knows; what is not in this project's
            format is converted, and nothing in it is run.
        resolution: side of its pictures; read off the generator if None.
        replace: whether a world of that name may be replaced.
        options: more of `WorldSettings`.

    Raises:
        WorldError: a name, folder or file cannot be used, or the folder has no photograph.
    """
    folder = paths.world_dir(check_name(name))
    if (folder / FILE).exists() and not replace:
        raise WorldError(f"there is a world {name!r} already; take another name, or say --replace")
    if not Path(images).is_dir():
        raise WorldError(f"{images} is no folder; name one that holds photographs")
    _check_photographs(Path(images), recursive=bool(options.get("recursive")))
    if generator is None:
        return _write_world(name, None, None, images=images, resolution=resolution, **options)
    with tempfile.TemporaryDirectory(prefix="clcae-world-") as scratch:
        own, size = _in_own_format(Path(generator), Path(scratch) / "generator.safetensors")
        return _write_world(name, own, size, images=images, resolution=resolution, **options)


def _write_world(
    name: str,
    generator: Path | None,
    size: int | None,
    *,
    images: Path,
    resolution: int | None,
    **options: Any,
) -> PhotoWorld:
    folder, base = paths.world_dir(name), BUILT_IN.get(name)
    if generator is None and base is None:
        raise WorldError(
            f"{name!r} needs a generator: --generator FILE, a StyleGAN2 (.pt, .pkl or .safetensors)"
        )
    values = base.model_dump() if base else {}
    if size is not None and resolution not in (None, size):
        raise WorldError(f"--generator draws {size} pixels, not --resolution {resolution}")
    values |= {
        "images": str(Path(images).resolve()),
        "resolution": resolution or size or values["resolution"],
    }
    values |= {key: value for key, value in options.items() if value is not None}
    if generator is not None:
        values["generator"] = "generator.safetensors"
    try:
        settings = WorldSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise WorldError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if generator is not None:
        with atomic_path(folder / settings.generator) as partial:
            shutil.copyfile(generator, partial)
        known = checkpoints.read_card(generator) if generator.with_suffix(".json").is_file() else {}
        card = {"kind": "generator", "given_as": generator.name, **known}
        checkpoints.write_card(folder / settings.generator, card)
    with atomic_path(folder / FILE) as partial:
        partial.write_text(dump_yaml(settings.model_dump()), encoding="utf-8")
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


def _check_photographs(folder: Path, *, recursive: bool) -> None:
    """Refuse a folder in which no file has the header of a photograph that can be used."""
    try:
        files, refused = list_files(folder, recursive=recursive)
    except PhotoError as error:
        raise WorldError(str(error)) from error
    for path in files:
        try:
            check_image(path)
        except PhotoError as error:
            refused.append(Refusal(path, str(error)))
        else:
            return
    raise WorldError(none_usable(folder, refused))


def _in_own_format(source: Path, target: Path) -> tuple[Path, int]:
    """Return a generator's file in this project's format and the side of its images in pixels.

    A file that has that format is returned itself, any other is converted to `target`.
    """
    from clcae_lib.weights import WeightsError, convert_file, load_generator, read_weights, recognise

    try:
        kind = recognise(read_weights(source)).kind
        if kind != "own:generator":
            part = "generator" if kind == "inversion_checkpoint" else None
            source = convert_file(source, target, part=part)
        return source, load_generator(source).size
    except (FileNotFoundError, WeightsError) as error:
        raise WorldError(f"--generator: {error}") from error
