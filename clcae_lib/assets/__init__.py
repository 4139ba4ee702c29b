"""Published files: what there is (`data/manifest.yaml`), fetching it safely, and where it lies."""

from clcae_lib.assets._client import Policy
from clcae_lib.assets._errors import AssetError
from clcae_lib.assets.fetch import Fetcher, asset_path
from clcae_lib.assets.manifest import Asset, Manifest, read_manifest
from clcae_lib.assets.places import safe_place

__all__ = [
    "Asset",
    "AssetError",
    "Fetcher",
    "Manifest",
    "Policy",
    "asset_path",
    "read_manifest",
    "safe_place",
]
