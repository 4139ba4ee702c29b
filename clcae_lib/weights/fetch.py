"""Fetch the published files of `data/manifest.yaml`, and check existing ones.

pooch downloads to a temporary name, checks a known SHA-256 and renames the file. It would restart an
interrupted download at the first byte. Because files have up to 1.4 GB, `Resumable` replaces its downloader.
"""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pooch
import requests
from filelock import AcquireReturnProxy, FileLock, Timeout
from pydantic import BaseModel, TypeAdapter, ValidationError
from tqdm.auto import tqdm
from urllib3.util import Retry

from clcae_lib.files import atomic_path, sha256
from clcae_lib.weights.manifest import Asset, AssetError, Manifest

_TIMEOUT = (15.0, 30.0)  # seconds to connect, and to wait for data


def https_session() -> requests.Session:
    """Return a session that repeats requests after temporary failures and follows only https addresses."""
    passing = (408, 425, 429, 500, 502, 503, 504)
    retry = Retry(3, status_forcelist=passing, backoff_factor=1.0, raise_on_status=False)
    retry.respect_retry_after_header = False  # some servers request hours
    session = requests.Session()
    session.headers.update({"User-Agent": "clcae", "Accept-Encoding": "identity"})
    session.max_redirects = 8
    session.mount("https://", requests.adapters.HTTPAdapter(max_retries=retry))
    del session.adapters["http://"]
    return session


@dataclass
class Resumable:
    """Downloader for pooch that continues an interrupted download with a `Range` request.

    Args:
        part: file for the received bytes, kept until the download is complete. `PART.txt` has their address
            and version (ETag or date), so that bytes of another version are not appended.
    """

    session: requests.Session
    part: Path
    asset: Asset

    def __call__(self, url: str, output_file: str, pooch: object = None) -> None:
        """Download `url` to `output_file`, or raise an AssetError if that fails."""
        received = -1
        try:
            while not self._connect(url):
                before, received = received, self._received()
                if received <= before:
                    kept = f"{received} bytes are kept: fetch again to continue"
                    raise AssetError(f"the connection was cut again without progress; {kept}")
        except requests.exceptions.InvalidSchema as error:
            raise AssetError(f"only https addresses are followed ({error})") from error
        except requests.RequestException as error:
            raise AssetError(f"the request failed ({getattr(error.args[0], 'reason', error)})") from error
        os.replace(self.part, output_file)
        self._discard()
        if self.asset.sha256 == "unknown":  # else pooch checks it
            _verify(Path(output_file), self.asset)

    @property
    def _note(self) -> Path:
        return self.part.with_name(f"{self.part.name}.txt")

    def _received(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def _connect(self, url: str) -> bool:
        """Make one connection and return whether the file is complete."""
        note = self._note.read_text(encoding="utf-8") if self._note.is_file() else ""
        if not note.startswith(f"{url} ") or self.part.is_symlink():
            self._discard()
        start = self._received()
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self.session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if not (start and response.status_code in (206, 416)):
                return self._receive(response, 0, self._begin(url, response))
            continued = response.headers.get("Content-Range", "")
            if continued == f"bytes */{start}":  # all bytes were received before
                return True
            found = re.fullmatch(rf"bytes {start}-(\d{{1,18}})/(\d{{1,18}})", continued)
            if found and int(found[1]) + 1 == int(found[2]) and note == _version(url, response):
                return self._receive(response, start, int(found[2]))
        self._discard()
        return self._connect(url)

    def _begin(self, url: str, response: requests.Response) -> int | None:
        """Prepare a download from the first byte; return the size if the server announces it."""
        if response.status_code != 200 or "html" in response.headers.get("Content-Type", "").lower():
            raise AssetError(_refusal(response))
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise AssetError("the server compresses the file, although the request forbids it")
        length = response.headers.get("Content-Length", "")
        if not (length.isdecimal() or response.raw.chunked or self.asset.digest):
            raise AssetError("the server does not announce the size, so a lost part would not be noticed")
        self._discard()
        self._note.write_text(_version(url, response), encoding="utf-8")
        return int(length) if length.isdecimal() else None

    def _receive(self, response: requests.Response, start: int, total: int | None) -> bool:
        """Append the response to the part, and return whether it was complete."""
        limit, count = self.asset.max_bytes, start
        if total and (total > limit or self.asset.size not in ("unknown", total)):
            raise AssetError(f"the server offers {total} bytes; size is {self.asset.size}, max_bytes {limit}")
        bar = tqdm(desc=self.part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None)
        with bar, self.part.open("ab") as file:
            try:
                for chunk in response.iter_content(2**15):
                    count += len(chunk)
                    if count > limit:
                        break
                    file.write(chunk)
                    bar.update(len(chunk))
            except requests.RequestException:
                return False
            file.flush()
            os.fsync(file.fileno())
        if count > limit:
            self._discard()
            raise AssetError(f"the server sent more than max_bytes, {limit}; nothing of it is kept")
        return True


def _version(url: str, response: requests.Response) -> str:
    """Return the address and the version of a file; empty if the server gives no version."""
    tag = response.headers.get("ETag", "")
    mark = tag if tag.startswith('"') else response.headers.get("Last-Modified")
    return f"{url} {mark}" if mark else ""


def _refusal(response: requests.Response) -> str:
    """Return the reason why a response is not the file, from its status and its page."""
    page = next(response.iter_content(2**16), b"").decode("utf-8", "replace")
    if re.search("quota exceeded|download quota|too many users have", page, re.IGNORECASE):
        return "the download quota of Google Drive for this file is used up: try again in 24 hours"
    title = re.search(r"<title>([^<\0-\x1f]{1,80})", page, re.IGNORECASE)
    said = ", ".join(filter(None, (f"status {response.status_code}", title and title[1])))
    return f"the server does not send the file ({said})"


def _verify(path: Path, asset: Asset) -> str:
    """Return the SHA-256 of a file; raise an AssetError if the file is not the asset."""
    found, size = sha256(path), path.stat().st_size
    if not size or asset.size not in ("unknown", size):
        raise AssetError(f"it has {size} bytes, not {asset.size if size else 'some'}")
    if not found.startswith(asset.digest):
        raise AssetError(f"its sha256 is {found}, not {asset.digest}")
    with path.open("rb") as file:
        if re.match(rb"\W*(doctype )?html", file.read(64), re.IGNORECASE):
            raise AssetError("it is a web page")
    return found


class Recorded(BaseModel, extra="forbid"):
    """Size (bytes) and digest of a file without a published digest, recorded at its first use."""

    sha256: str
    size: int
    address: str
    first_used: str


_RECORDS = TypeAdapter(dict[str, Recorded])


@dataclass
class Fetcher:
    """Fetches and checks the files of a manifest.

    Args:
        report: function for messages: a digest was recorded, or another process is fetching the file.
    """

    manifest: Manifest
    data: Path
    session: requests.Session = field(default_factory=https_session)
    report: Callable[[str], None] = warnings.warn

    def place(self, name: str) -> Path:
        """Return the path of an asset, which need not exist.

        Raises:
            AssetError: the asset is unknown, or its folder is a link to a place outside of the data folder.
        """
        if name not in self.manifest.assets:
            raise AssetError(f"the manifest has no asset {name!r}: see `clcae fetch --list`")
        home = self.data.resolve()
        path = home / self.manifest.assets[name].place
        if not path.parent.resolve().is_relative_to(home):
            hint = "remove the link, or set CLCAE_DATA to keep all data elsewhere"
            raise AssetError(f"{path} is behind a link to a place outside of {home}: {hint}")
        return path

    def is_there(self, name: str) -> bool:
        """Return whether an asset's path exists."""
        path = self.place(name)
        return any(path.glob("*")) if self.manifest.assets[name].is_folder else path.exists()

    def check(self, name: str) -> Path:
        """Return the path of an asset after checking its digest, which is recorded if none was published.

        Raises:
            AssetError: the asset does not exist, or is not the expected file.
        """
        path, asset = self.place(name), self._expected(name)
        if not self.is_there(name):
            raise AssetError(f"{name} is not there: run `clcae fetch {name}`. {self._by_hand(name)}")
        if asset.is_folder:
            return path
        if path.is_dir():
            raise AssetError(f"{name}: {path} is a folder instead of a file: move it away")
        try:
            digest = _verify(path, asset)
        except AssetError as error:
            remedy = f"Move it away and run `clcae fetch {name}` again. {self._by_hand(name)}"
            raise AssetError(f"{path} is not {name}: {error}. {remedy}") from error
        if asset.sha256 == "unknown":
            self._remember(name, digest, path.stat().st_size)
        return path

    def fetch(self, name: str) -> tuple[Path, bool]:
        """Fetch an asset unless it exists; return its checked path and whether it was fetched.

        If another process is fetching the same file, this one waits and uses it.

        Raises:
            AssetError: it cannot be fetched; the message says how to do it by hand.
        """
        path, asset = self.place(name), self.manifest.assets[name]
        if self.is_there(name):
            return self.check(name), False
        if asset.by_hand:
            raise AssetError(f"{name}: {asset.note or 'no program can fetch it'}. {self._by_hand(name)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock(name, path):
                fetched = not path.exists()
                if fetched:
                    self._download(name, path)
                return self.check(name), fetched
        except OSError as error:
            hint = "free some space or change its permissions, or keep the data elsewhere (CLCAE_DATA)"
            raise AssetError(f"{name}: {path.parent} cannot be written ({error.strerror}): {hint}") from error

    def _lock(self, name: str, path: Path) -> AcquireReturnProxy:
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            return lock.acquire(timeout=0)
        except Timeout:
            self.report(f"{name}: another process is fetching it; waiting")
            return lock.acquire()

    def _download(self, name: str, path: Path) -> None:
        asset = self._expected(name)
        digest = None if asset.sha256 == "unknown" else asset.sha256
        files = {"registry": {path.name: digest}, "urls": {path.name: asset.download_address}}
        downloader = Resumable(self.session, path.with_name(f"{path.name}.part"), asset)
        try:
            pooch.Pooch(path.parent, "", **files, allow_updates=False).fetch(path.name, downloader=downloader)
        except ValueError as error:  # AssetError, or pooch's error about a digest
            raise AssetError(f"{name}: {error}. {self._by_hand(name)}") from error

    def _expected(self, name: str) -> Asset:
        """Return an asset, with the recorded size and digest if the manifest has no digest."""
        asset, recorded = self.manifest.assets[name], self._records().get(name)
        if asset.sha256 != "unknown" or not recorded or not recorded.sha256.startswith(asset.digest):
            return asset
        return asset.model_copy(update={"size": recorded.size, "sha256": recorded.sha256})

    @property
    def _record(self) -> Path:
        return self.data / "digests.json"

    def _records(self) -> dict[str, Recorded]:
        try:
            return _RECORDS.validate_json(self._record.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise AssetError(f"{self._record} is damaged: delete it to record digests again") from error

    def _remember(self, name: str, digest: str, size: int) -> None:
        asset, today = self.manifest.assets[name], datetime.now(UTC).date().isoformat()
        new = Recorded(sha256=digest, size=size, address=asset.address, first_used=today)
        with FileLock(self.data / ".digests.lock"), atomic_path(self._record) as partial:
            records = dict(sorted({**self._records(), name: new}.items()))
            partial.write_bytes(_RECORDS.dump_json(records, indent=2) + b"\n")
        recorded = f"{digest} is recorded in {self._record} and any later difference will be an error"
        self.report(f"{name}: its sha256 was not published; {recorded}")

    def _by_hand(self, name: str) -> str:
        asset, path = self._expected(name), self.place(name)
        get = f"open {asset.browser_address} in a browser" if asset.browser_address else "ask its authors"
        begins = "begins with " if 0 < len(asset.digest) < 64 else ""
        facts = f"size {asset.size}, sha256 {begins}{asset.digest or 'unknown'}, licence {asset.licence}"
        if asset.is_folder:
            return f"By hand: {get} and put the folder's files into {path} ({facts})"
        put = f"put the file at {path} ({facts}), then run `clcae fetch {name}` to check it"
        recorded = f"; to accept another file, remove {name!r} from {self._record}"
        return f"By hand: {get} and {put}{recorded if asset != self.manifest.assets[name] else ''}"
