"""Settings of a world of photographs: the content of its `world.yaml`, and those of built-in worlds."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from clcae_lib import paths
from clcae_lib.settings import read_yaml, validated
from clcae_lib.worlds.world import WorldError

FILE = "world.yaml"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: Names with another meaning in `data/`, or that are not valid folder names on some systems.
_RESERVED = {"portraits", "networks", "con", "prn", "aux", "nul", "com1", "com2", "lpt1", "lpt2"}


def _check_face(value: Any) -> int | str:
    """Return a choice of `choose_face`; the error names all choices, which pydantic's own does not."""
    if value in ("largest", "middle"):
        return str(value)
    if not re.fullmatch("0*[1-9][0-9]{0,8}", str(value)):
        raise ValueError("give largest, middle, or a number from 1 (the leftmost)")
    return int(value)


class WorldSettings(BaseModel, extra="forbid", frozen=True):
    """A world of photographs; the content of `world.yaml`."""

    kind: Literal["faces", "cars", "other"] = Field(
        default="faces", description="how photographs are cut, and which networks measure them"
    )
    images: str = Field(default="images", description="the folder; relative to the world's")
    recursive: bool = Field(default=False, description="whether subfolders are searched too")
    generator: str | None = Field(default=None, description="a file in the world's folder")
    resolution: int = Field(ge=32, le=2048, description="side of the generator's images")
    already_aligned: bool = Field(default=False, description="images are already cut like the generator's")
    widen: Annotated[float, Field(ge=0.5, le=3)] = 1.0
    face: Annotated[int | str, BeforeValidator(_check_face)] = Field(
        default="largest", description="the face of several, or its number from the left"
    )
    lists: dict[Literal["train", "validation", "test"], str] = Field(
        default={}, description="files of names, one per line, instead of shares"
    )

    @model_validator(mode="after")
    def _check(self) -> "WorldSettings":
        if self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution={self.resolution} is not a power of two")
        for name in filter(None, [self.images, self.generator, *self.lists.values()]):
            if _UNPRINTABLE.search(name):
                raise ValueError(f"{name[:100]!r} has characters that cannot be printed; give another name")
        for name in filter(None, [self.generator, *self.lists.values()]):
            if Path(name).name != name or "\\" in name or name.startswith("."):
                raise ValueError(f"{name!r} is not a plain file name; put the file into the world's folder")
        return self


BUILT_IN: dict[str, WorldSettings] = {
    "ffhq": WorldSettings(kind="faces", resolution=1024),
    "cars": WorldSettings(kind="cars", resolution=512),
}


def training_defaults(stage: str, resolution: int) -> dict[str, Any]:
    """Return the settings of a stage of training, such as "inversion", for photographs of this resolution.

    From 128 pixels on the sizes are the published ones: IR-SE50, batches of two, a learning rate of 1e-4.
    Below, they are those of the portraits. No backbone is pretrained, because the factors of photographs are
    unknown.
    """
    fresh: dict[str, Any] = {"start": "fresh"} if stage == "peer" else {}
    if resolution < 128:
        return fresh
    encoder = {"body": "irse50", "lr": 1e-4, "batch_size": 2}
    widths = {"embedding": 512, "width": 512, "latent_width": 512}
    sizes: dict[str, dict[str, Any]] = {
        "inversion": encoder | {"style_hidden": None, "hidden": None},
        "peer": encoder | fresh,
        "alignment": {"body": "irse50", **widths, "batch_size": 16},
        "generator": {
            "resolution": resolution,
            "style_dim": 512,
            "mapping_layers": 8,
            "channels": {2**k: min(512, 32768 >> k) for k in range(2, 12) if 2**k <= resolution},
            "stages": [{"resolution": resolution, "images": 25_000_000}],
            "size": None,
        },
    }
    return sizes.get(stage, {})


def is_free(name: str) -> bool:
    """Return whether a user's world may have this name."""
    return bool(_NAME.fullmatch(name)) and name not in _RESERVED


def check_name(name: str) -> str:
    """Return `name`; raise a WorldError if it is reserved or could lead out of the data folder."""
    if not is_free(name):
        raise WorldError(
            f"{name!r} cannot be a world's name: use up to 40 of a-z, 0-9, - and _, none of "
            f"{', '.join(sorted(_RESERVED))}"
        )
    return name


def read_settings(name: str) -> WorldSettings:
    """Return the settings in a world's `world.yaml`; a built-in one needs none.

    Raises:
        WorldError: there is none, or it is damaged.
    """
    path = paths.world_dir(check_name(name)) / FILE
    if not path.is_file():
        if name in BUILT_IN:
            return BUILT_IN[name]
        raise WorldError(f"{path} is missing: `clcae world add {name} --images DIR --generator FILE`")
    content = read_yaml(path, error=WorldError)
    return validated(WorldSettings, content, source=str(path), error=WorldError)
