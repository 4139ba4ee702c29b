"""Create a world from a folder of photographs and a StyleGAN2, and remove a world."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from clcae_lib import paths
from clcae_lib.files import atomic_path, write_text
from clcae_lib.photos import PhotoError, has_header, list_files, none_usable, read_folder
from clcae_lib.settings import dump_yaml, validated
from clcae_lib.weights import WeightsError, checkpoints, convert_file, load_generator, read_weights, recognise
from clcae_lib.worlds.photos import PhotoWorld
from clcae_lib.worlds.settings import BUILT_IN, FILE, WorldSettings, check_name
from clcae_lib.worlds.world import WorldError

_GENERATOR = "generator.safetensors"


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

    The arguments are those of `clcae world add`; `options` are further fields of `WorldSettings`. A generator
    may have any layout that `clcae inspect` recognises. Other layouts than this project's are converted,
    without running code of the file.

    Raises:
        WorldError: a name, folder or file cannot be used, or the folder has no photograph.
    """
    folder, base = paths.world_dir(check_name(name)), BUILT_IN.get(name)
    if (folder / FILE).exists() and not replace:
        raise WorldError(f"the world {name!r} exists already; use another name, or add --replace")
    if not Path(images).is_dir():
        raise WorldError(f"{images} is not a folder; name one that holds photographs")
    _check_photographs(Path(images), recursive=bool(options.get("recursive")))
    if generator is None and base is None:
        raise WorldError(
            f"{name!r} needs a generator: --generator FILE, a StyleGAN2 (.pt, .pkl or .safetensors)"
        )
    values = (base.model_dump() if base else {}) | {"images": str(Path(images).resolve())}
    values |= {key: value for key, value in options.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="clcae-world-") as scratch:
        if generator is not None:
            own, size = _in_own_format(Path(generator), Path(scratch) / _GENERATOR)
            if resolution not in (None, size):
                raise WorldError(f"--generator draws {size} pixels, not --resolution {resolution}")
            values |= {"resolution": size, "generator": _GENERATOR}
        elif resolution:
            values["resolution"] = resolution
        settings = validated(WorldSettings, values, source=f"world {name}", error=WorldError)
        if generator is not None:
            _install(own, folder / _GENERATOR)
    write_text(folder / FILE, dump_yaml(settings.model_dump()))
    return PhotoWorld(name, settings)


def remove_world(name: str, *, weights: bool = False) -> list[Path]:
    """Remove a user's world: its `world.yaml`, or with `weights` its whole folder; return the removed paths.

    Photographs are kept, unless they are in the world's folder and `weights` is given.

    Raises:
        WorldError: the user has no world of this name.
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
    """Raise an error for a folder in which no file has the header of a usable photograph."""
    try:
        if not any(map(has_header, list_files(folder, recursive=recursive)[0])):
            refused = read_folder(folder, recursive=recursive, decode=False)[1]
            raise WorldError(none_usable(folder, refused))
    except PhotoError as error:
        raise WorldError(str(error)) from error


def _in_own_format(source: Path, target: Path) -> tuple[Path, int]:
    """Return a generator's file in this project's format, converted if needed, and its resolution."""
    try:
        if recognise(read_weights(source)).kind != "own:generator":
            source = convert_file(source, target, part="generator")
        return source, load_generator(source).size
    except (FileNotFoundError, WeightsError) as error:
        raise WorldError(f"--generator: {error}") from error


def _install(source: Path, target: Path) -> None:
    with atomic_path(target) as partial:
        shutil.copyfile(source, partial)
    known = checkpoints.read_card(source) if source.with_suffix(".json").is_file() else {}
    checkpoints.write_card(target, {"kind": "generator", "given_as": source.name, **known})
