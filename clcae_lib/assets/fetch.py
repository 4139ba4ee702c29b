"""From a name in the manifest to a checked file below `data/` (no section of the paper)."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from clcae_lib import paths
from clcae_lib.assets._client import Policy, opened
from clcae_lib.assets._drive import DRIVE, drive_opened
from clcae_lib.assets._errors import AssetError
from clcae_lib.assets.digests import Digests
from clcae_lib.assets.download import Download, Expected
from clcae_lib.assets.manifest import Asset, Manifest, read_manifest
from clcae_lib.assets.places import safe_place


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)


class Fetcher:
    """Fetches what a manifest lists.

    Args:
        manifest: see `read_manifest`.
        data: the data folder.
        policy: patience and limits.
        drive: the address of Google Drive; tests have their own.
        tell: gets a sentence when a digest is recorded, or when another process is waited for.
    """

    def __init__(
        self,
        manifest: Manifest,
        data: Path,
        *,
        policy: Policy | None = None,
        drive: str = DRIVE,
        tell: Callable[[str], None] = _warn,
    ) -> None:
        self.manifest = manifest
        self.data = data
        self.policy = policy or Policy()
        self.drive = drive
        self.tell = tell
        self.digests = Digests(data)

    def place(self, name: str) -> Path:
        """Where an asset belongs, whether it is there or not.

        Raises:
            AssetError: there is no such asset, or its folder is a link out of the data folder.
        """
        if name not in self.manifest.assets:
            raise AssetError(f"the manifest has no asset {name!r}: see `clcae fetch --list`")
        # The file itself may be a link of one's own: it is read; a fetched file takes the link's place.
        folder, _, last = self.manifest.assets[name].place.rpartition("/")
        return safe_place(self.data, folder) / last

    def is_there(self, name: str) -> bool:
        """Whether something lies at an asset's place; of a folder, whether it holds anything."""
        path = self.place(name)
        if self.manifest.assets[name].is_folder:
            return path.is_dir() and any(path.iterdir())
        return path.exists()

    def check(self, name: str) -> Path:
        """The place of an asset that is there, after its digest was checked, or recorded for the first time.

        Raises:
            AssetError: it is not there, or not the same as it was or should be.
        """
        path, asset = self.place(name), self.manifest.assets[name]
        if asset.is_folder and self.is_there(name):
            return path
        if path.is_dir() and not asset.is_folder:
            raise AssetError(f"{name}: {path} is a folder where a file belongs; move it away")
        if not path.is_file():
            raise AssetError(f"{name} is not there: run `clcae fetch {name}`. {self._by_hand(name)}")
        expected = self._expected(name)
        try:
            digest = expected.check_digest(path)
        except AssetError as error:
            raise AssetError(f"{path} is not {name}: {error}. {self._remedy(name)}") from error
        self._record(name, digest, path)
        return path

    def fetch(self, name: str) -> tuple[Path, bool]:
        """The place of an asset and whether it had to be fetched; afterwards it is there and checked.

        Two processes do not fetch the same file at once: the second waits, and finds it.

        Raises:
            AssetError: it could not be had; the message says where to put it by hand.
        """
        path, asset = self.place(name), self.manifest.assets[name]
        if self.is_there(name):
            return self.check(name), False
        if asset.by_hand:
            why = asset.note or "it cannot be fetched by a program"
            raise AssetError(f"{name}: {why}. {self._by_hand(name)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone(name, path):
                if path.exists():
                    return self.check(name), False
                self._download(name, path)
        except Timeout as error:
            raise AssetError(f"{name}: another process is still fetching it; wait until it ends") from error
        except OSError as error:
            raise AssetError(f"{name}: {path.parent} cannot be written ({error.strerror})") from error
        return path, True

    @contextmanager
    def _alone(self, name: str, path: Path) -> Iterator[None]:
        """Inside, no other process fetches `path`."""
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.tell(f"{name}: another process is fetching it; waiting")
            lock.acquire(timeout=self.policy.lock)
        try:
            yield
        finally:
            lock.release()

    def _download(self, name: str, path: Path) -> None:
        asset = self.manifest.assets[name]
        download = Download(
            self._opener(asset),
            address=asset.address,
            target=path,
            expected=self._expected(name),
            policy=self.policy,
            label=name,
        )
        try:
            digest = download.run()
        except AssetError as error:
            raise AssetError(f"{name}: {error}. {self._by_hand(name)}{self._forget(name)}") from error
        self._record(name, digest, path)

    def _opener(self, asset: Asset) -> Callable[..., AbstractContextManager[httpx.Response]]:
        def open_file(client: httpx.Client, headers: Mapping[str, str]):
            kind, _, rest = asset.address.partition(":")
            if kind == "drive":
                return drive_opened(client, rest, headers, self.policy, base=self.drive)
            return opened(client, asset.address, headers, self.policy)

        return open_file

    def _expected(self, name: str) -> Expected:
        """What the manifest says, and where it says nothing, what was recorded."""
        asset, recorded = self.manifest.assets[name], self.digests.get(name)
        size = None if asset.size == "unknown" else asset.size
        digest = asset.sha256_begins or ""
        if asset.sha256 != "unknown":
            digest = asset.sha256
        elif recorded and recorded.sha256.startswith(digest):
            size, digest = recorded.size, recorded.sha256
        return Expected(max_bytes=asset.max_bytes, size=size, digest=digest)

    def _record(self, name: str, digest: str, path: Path) -> None:
        asset = self.manifest.assets[name]
        if asset.sha256 != "unknown" or self.digests.get(name):
            return
        self.digests.add(name, sha256=digest, size=path.stat().st_size, address=asset.address)
        begins = f" (it begins with {asset.sha256_begins}, as published)" if asset.sha256_begins else ""
        self.tell(
            f"{name}: nobody published its sha256{begins}; {digest} is recorded in {self.digests.path} and "
            "any later difference will be an error"
        )

    def _remedy(self, name: str) -> str:
        return f"Move it away and run `clcae fetch {name}` again{self._forget(name)}"

    def _forget(self, name: str) -> str:
        """How to accept another file than the one recorded, if one is."""
        if self.manifest.assets[name].sha256 != "unknown" or not self.digests.get(name):
            return ""
        return f"; if a new file is wanted, remove {name!r} from {self.digests.path}"

    def _by_hand(self, name: str) -> str:
        """Where to get an asset with a browser and where to put it."""
        asset, path = self.manifest.assets[name], self.place(name)
        source = asset.browser_address
        get = f"open {source} in a browser" if source else "get it from its authors"
        recorded = self.digests.get(name) if asset.sha256 == "unknown" else None
        digest = f"begins with {asset.sha256_begins}" if asset.sha256_begins else asset.sha256
        digest = f"{recorded.sha256} as recorded in {self.digests.path}" if recorded else digest
        facts = f"size {asset.size}, sha256 {digest}, licence {asset.licence}"
        if asset.is_folder:
            return f"By hand: {get} and put the folder's files into {path} ({facts})"
        return (
            f"By hand: {get} and put the file at {path} ({facts}), then run `clcae fetch {name}` to check it"
        )


def asset_path(name: str) -> Path:
    """A published file that is on this machine, checked against its digest (recorded on first use).

    Raises:
        AssetError: it is not there, or it is another file; the message says what to do.
    """
    return Fetcher(read_manifest(), paths.data_dir()).check(name)
