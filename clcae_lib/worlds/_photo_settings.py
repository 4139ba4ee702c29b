"""What a world of photographs is: the content of its `world.yaml`, and the worlds that need none."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clcae_lib import paths
from clcae_lib.settings import read_yaml
from clcae_lib.worlds.world import WorldError

FILE = "world.yaml"
Kind = Literal["faces", "cars", "other"]
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
#: Names that mean something else below `data/`, or are no folder on some system.
RESERVED = {"portraits", "portraits2", "networks", "con", "prn", "aux", "nul", "com1", "com2", "lpt1", "lpt2"}


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


BUILT_IN: dict[str, WorldSettings] = {
    "ffhq": WorldSettings(kind="faces", resolution=1024),
    "cars": WorldSettings(kind="cars", resolution=512),
}


def training_defaults(stage: str, resolution: int) -> dict[str, Any]:
    """Settings of a stage of training for photographs of a resolution in pixels, in place of the portraits'.

    From 128 pixels on the sizes are the published ones: IR-SE50, batches of two, a learning rate of 1e-4.
    Below, the portraits' own fit. No backbone is pretrained: the factors of a photograph are not known.
    """
    fresh: dict[str, Any] = {"start": "fresh"} if stage == "peer" else {}
    if resolution < 128:
        return fresh
    encoder = {"body": "irse50", "lr": 1e-4, "batch_size": 2}
    sizes: dict[str, dict[str, Any]] = {
        "inversion": encoder | {"style_hidden": None, "hidden": None},
        "peer": encoder | fresh,
        "alignment": {
            "body": "irse50",
            "embedding": 512,
            "width": 512,
            "latent_width": 512,
            "batch_size": 16,
        },
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
    content = read_yaml(path, error=WorldError)
    try:
        return WorldSettings.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise WorldError(
            f"{path}: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
        ) from error
