"""Read `data/manifest.yaml`, the list of published files, in which unpublished facts are `unknown`."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from clcae_lib import paths
from clcae_lib.errors import ClcaeError
from clcae_lib.settings import read_yaml, validated

#: Google Drive's addresses of a file. The first one downloads it: `confirm=t` confirms the download of a file
#: that is too large for the virus scan.
DRIVE_DOWNLOAD = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
DRIVE_BROWSER = "https://drive.google.com/open?id="

_ADDRESS = r"^(unknown|https://[^\s/@]+/\S*|drive(-folder)?:[A-Za-z0-9_-]{20,})$"
# Valid on every system: no hidden file, no dot or space at the end, no Windows device; not portraits.
_PART = r"(?!(?:con|prn|aux|nul|com\d|lpt\d)(?:[./]|$))\w(?:[\w .-]*[\w-])?"
_PLACE = re.compile(rf"(?!portraits/){_PART}(?:/{_PART})+", re.ASCII | re.IGNORECASE)

Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,99}$")]


class AssetError(ClcaeError, ValueError):
    """A published file cannot be fetched or is not the right one; the message names it and the remedy."""


class Asset(BaseModel, extra="forbid", frozen=True, strict=True):
    """One published file, or one folder of files that has to be fetched by hand."""

    about: str = Field(min_length=1, description="short description")
    address: str = Field(pattern=_ADDRESS, description="https://..., drive:ID, drive-folder:ID, or unknown")
    place: str = Field(max_length=200, description="path below data/")
    licence: str = Field(min_length=1, description="its name, or unknown")
    size: Annotated[int, Field(gt=0)] | Literal["unknown"] = Field(description="bytes")
    sha256: str = Field(pattern="^([0-9a-f]{64}|unknown)$", description="hexadecimal digits, or unknown")
    sha256_begins: str | None = Field(None, pattern="^[0-9a-f]{8,63}$", description="if only these are known")
    max_bytes: int = Field(2 * 2**30, gt=0, description="largest size that is accepted")
    note: str | None = Field(None, description="why it has to be fetched by hand")

    @field_validator("place")
    @classmethod
    def _check_place(cls, place: str) -> str:
        if not _PLACE.fullmatch(place):
            raise ValueError("write a folder, not portraits, and a file name, such as ffhq/generator.pt")
        return place

    @property
    def digest(self) -> str:
        """The known digits of the SHA-256: all, the first ones, or none."""
        return self.sha256_begins or "" if self.sha256 == "unknown" else self.sha256

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of Google Drive instead of a file."""
        return self.address.startswith("drive-folder:")

    @property
    def by_hand(self) -> bool:
        """Whether no program can fetch it, because its address is unknown or it is a folder."""
        return self.address == "unknown" or self.is_folder

    @property
    def download_address(self) -> str:
        """The address of the download request."""
        return re.sub("^drive:", DRIVE_DOWNLOAD, self.address)

    @property
    def browser_address(self) -> str | None:
        """The address to open in a browser; None if it is unknown."""
        return None if self.address == "unknown" else re.sub("^drive[^:]*:", DRIVE_BROWSER, self.address)


class Manifest(BaseModel, extra="forbid", frozen=True, strict=True):
    """Every published file by name, and sets of them."""

    assets: dict[Name, Asset]
    sets: dict[Name, list[Name]] = {}

    @model_validator(mode="after")
    def _check_sets_and_places(self) -> "Manifest":
        for name, members in self.sets.items():
            strangers = [member for member in members if member not in self.assets]
            if strangers or name in self.assets:
                raise ValueError(f"sets.{name}: {strangers or name} is not an asset, or is an asset's name")
        places = [asset.place.lower() for asset in self.assets.values()]  # some systems ignore case
        for place in places:
            if places.count(place) > 1:
                raise ValueError(f"several assets have the place {place}")
        return self

    def select(self, names: list[str]) -> list[str]:
        """Return the names of all assets in these assets and sets, each once, in order.

        Raises:
            AssetError: an asset or set is unknown.
        """
        known = [*self.sets, *self.assets]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise AssetError(f"the manifest has no {name!r}: {hint}")
        return list(dict.fromkeys(asset for name in names for asset in self.sets.get(name, [name])))


def read_manifest(path: Path | None = None) -> Manifest:
    """Return the manifest in a file.

    Args:
        path: the file; by default `manifest.yaml` in the data folder, else the one of the checkout.

    Raises:
        AssetError: the file cannot be read or is not valid; the message names the entry.
    """
    own = paths.data_dir() / "manifest.yaml"
    path = path or (own if own.is_file() else paths.root() / "data" / "manifest.yaml")
    return validated(Manifest, read_yaml(path, error=AssetError), source=str(path), error=AssetError)
