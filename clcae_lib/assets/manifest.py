"""The list of published files, `data/manifest.yaml`, typed and checked.

Nothing in it is guessed: a size, digest, licence or address that nobody printed reads `unknown`.
"""

import difflib
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clcae_lib import paths
from clcae_lib.assets._errors import AssetError
from clcae_lib.assets.places import check_relative
from clcae_lib.settings import read_yaml

DEFAULT_MAX_BYTES = 2 * 2**30
_ADDRESS = re.compile(r"unknown|https://[^\s/@]+/\S*|drive:[\w-]{20,}|drive-folder:[\w-]{20,}", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*", re.ASCII)

Unknown = Literal["unknown"]


class Asset(BaseModel):
    """One published file, or one folder of files that has to be fetched by hand."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    about: str = Field(min_length=1, description="what it is, in a few words")
    address: str = Field(description="https://..., drive:ID, drive-folder:ID, or unknown")
    place: str = Field(description="where it belongs below data/")
    licence: str = Field(min_length=1, description="its name, or unknown")
    size: int | Unknown = Field(description="bytes")
    sha256: str = Field(description="64 hexadecimal digits, or unknown")
    sha256_begins: str | None = Field(
        default=None, pattern="^[0-9a-f]{8,63}$", description="if no more is known"
    )
    max_bytes: int = Field(default=DEFAULT_MAX_BYTES, gt=0, description="refuse more than this")
    note: str | None = Field(default=None, description="what to know when it is fetched by hand")

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str) -> str:
        if not _ADDRESS.fullmatch(address):
            raise ValueError("write https://..., drive:ID, drive-folder:ID or unknown")
        return address

    @field_validator("place")
    @classmethod
    def _check_place(cls, place: str) -> str:
        folder, slash, _ = check_relative(place).partition("/")
        if not slash or folder == "portraits":
            raise ValueError("a place has a folder, which is not portraits: that one is the repository's")
        return place

    @field_validator("sha256")
    @classmethod
    def _check_digest(cls, digest: str) -> str:
        if digest != "unknown" and not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError("write 64 small hexadecimal digits in quotes, or unknown")
        return digest

    @model_validator(mode="after")
    def _check_together(self) -> "Asset":
        if self.size != "unknown" and not 0 < self.size <= self.max_bytes:
            raise ValueError(f"size {self.size} is not between 1 and max_bytes, {self.max_bytes}")
        if self.sha256_begins and self.sha256 != "unknown":
            raise ValueError("sha256_begins is for a digest of which no more is known")
        return self

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of Google Drive, not a file."""
        return self.address.startswith("drive-folder:")

    @property
    def by_hand(self) -> bool:
        """Whether no program can fetch it: its address is unknown, or it is a folder of Google Drive."""
        return self.address == "unknown" or self.is_folder

    @property
    def browser_address(self) -> str | None:
        """What to open in a browser; None if nobody knows."""
        kind, _, drive_id = self.address.partition(":")
        if self.address == "unknown":
            return None
        return self.address if kind == "https" else f"https://drive.google.com/open?id={drive_id}"


class Manifest(BaseModel):
    """Every published file by name, and sets of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    assets: dict[str, Asset]
    sets: dict[str, list[str]] = {}

    @model_validator(mode="after")
    def _check_names(self) -> "Manifest":
        for name in (*self.assets, *self.sets):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r}: names have small letters, digits and hyphens")
        for name, members in self.sets.items():
            strangers = [member for member in members if member not in self.assets]
            if strangers or name in self.assets:
                raise ValueError(f"sets.{name}: {strangers or name} is no asset, or an asset's name")
        places = [asset.place for asset in self.assets.values()]
        twice = sorted({place for place in places if places.count(place) > 1})
        if twice:
            raise ValueError(f"several assets have the place {', '.join(twice)}")
        return self

    def select(self, names: list[str]) -> list[str]:
        """The assets that names of assets and sets stand for, each once, in order.

        Raises:
            AssetError: there is no such asset or set.
        """
        known = [*self.sets, *self.assets]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise AssetError(f"the manifest has no {name!r}: {hint}")
        return list(dict.fromkeys(asset for name in names for asset in self.sets.get(name, [name])))


def read_manifest(path: Path | None = None) -> Manifest:
    """The manifest in a file; by default `manifest.yaml` in the data folder, else the checkout's.

    Raises:
        AssetError: it cannot be read or is wrong; the message names the entry.
    """
    own = paths.data_dir() / "manifest.yaml"
    path = path or (own if own.is_file() else paths.root() / "data" / "manifest.yaml")
    content = read_yaml(path, error=AssetError)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise AssetError(f"{path}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """Each mistake with the entry it is in, such as "assets.moco.size: ..."."""
    lines = []
    for mistake in error.errors():
        entry = ".".join(str(part) for part in mistake["loc"])
        lines.append(f"{entry}: {mistake['msg']}" if entry else mistake["msg"])
    return "; ".join(dict.fromkeys(lines))
