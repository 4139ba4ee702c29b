"""Fetching one file: resumed where it was cut, limited, checked, and put into place at once.

Style follows `download_file` of k-diffusion and `open_url` of dnnlib in taking path, address and digest; what
is written here besides is what an unreliable or hostile server makes necessary.
"""

import errno
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tqdm.auto import tqdm

from clcae_lib.assets._client import Policy, check_status
from clcae_lib.assets._drive import is_page
from clcae_lib.assets._errors import AssetError, CutError
from clcae_lib.assets._part import Origin, Part
from clcae_lib.files import sha256

#: Opens the file's answer with a client and the request's headers.
Opener = Callable[[httpx.Client, Mapping[str, str]], AbstractContextManager[httpx.Response]]

_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}
_SPARE = 2**24


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched.

    Args:
        max_bytes: more than this is refused.
        size: bytes; None if unknown.
        digest: SHA-256 in hexadecimal, the whole or its beginning; empty if unknown.
    """

    max_bytes: int
    size: int | None = None
    digest: str = ""

    def check_digest(self, path: Path) -> str:
        """The SHA-256 of a file.

        Raises:
            AssetError: its size or digest is another.
        """
        found, size = sha256(path), path.stat().st_size
        if self.size not in (None, size):
            raise AssetError(f"it has {size} bytes, not {self.size}")
        if not found.startswith(self.digest):
            raise AssetError(f"its sha256 is {found}, not {self.digest}{'…' * (len(self.digest) < 64)}")
        return found


class Download:
    """One file on its way to `target`.

    Args:
        open_file: see `Opener`.
        address: tells this file from others; a part from another address is not resumed.
        target: where the complete file will be; its folder exists.
        expected: what it is checked against.
        policy: patience and limits.
        label: beside the bar.
    """

    def __init__(
        self,
        open_file: Opener,
        *,
        address: str,
        target: Path,
        expected: Expected,
        policy: Policy,
        label: str = "",
    ) -> None:
        self.open_file = open_file
        self.address = address
        self.target = target
        self.expected = expected
        self.policy = policy
        self.label = label
        self.part = Part(target)

    def run(self) -> str:
        """Fetches the file and returns its SHA-256.

        Raises:
            AssetError: it cannot be had, is not what was expected, or does not fit. What may still become
                complete stays beside the target as `.part`.
        """
        resumed = self.part.size() > 0
        try:
            self._receive_all()
            try:
                digest = self.expected.check_digest(self.part.path)
            except AssetError:
                self.part.discard()
                if not resumed:
                    raise
                self._receive_all()  # what lay here may have been the wrong part: once more, from the start
                digest = self._checked_or_discarded()
            self.part.place(self.target)
            return digest
        except OSError as error:
            raise AssetError(self._disk_trouble(error)) from error

    def _checked_or_discarded(self) -> str:
        try:
            return self.expected.check_digest(self.part.path)
        except AssetError:
            self.part.discard()
            raise

    def _receive_all(self) -> None:
        """Connects as often as it takes and as the policy allows."""
        idle, best = 0, self.part.size()
        with self.policy.client() as client, self._bar() as bar:
            for connection in range(1, self.policy.connections + 1):
                try:
                    self._connect(client, bar)
                    return
                except CutError as error:
                    progress, best = self.part.size() > best, max(best, self.part.size())
                    idle = 0 if progress else idle + 1
                    if idle >= self.policy.attempts or connection == self.policy.connections:
                        raise AssetError(f"{error}, after {connection} attempts") from error
                    pause = max(error.wait, self.policy.backoff * 2 ** max(0, idle - 1))
                    time.sleep(min(pause, self.policy.longest_wait))

    def _bar(self) -> tqdm:
        return tqdm(desc=self.label, unit="B", unit_scale=True, unit_divisor=1024, disable=None, leave=False)

    def _connect(self, client: httpx.Client, bar: tqdm) -> None:
        """One connection; returns if the part is complete."""
        origin = self._resumable()
        start = self.part.size() if origin else 0
        if origin and start and start == origin.total:
            return  # all of it came, and the program ended before it was put into place
        headers = {}
        if origin and start:
            headers["Range"] = f"bytes={start}-"
            headers |= {"If-Range": origin.validator} if origin.validator else {}
        with self.open_file(client, headers) as response:
            if response.status_code == 416 and start:
                self.part.discard()
                raise CutError("the server refuses to continue")
            check_status(response)
            self._check_kind(response)
            total = self._begin(response, origin, start)
            self._check_room(total)
            bar.reset(total)
            self._receive(response, total, bar)

    def _resumable(self) -> Origin | None:
        """The origin of the part if more of the same version can be asked for."""
        origin = self.part.origin()
        if origin is None or origin.address != self.address:
            return None
        sure = origin.validator or len(self.expected.digest) == 64
        limit = origin.total or self.expected.max_bytes
        return origin if sure and self.part.size() <= limit else None

    def _check_kind(self, response: httpx.Response) -> None:
        if is_page(response):
            raise AssetError("a web page came in place of the file")
        coding = response.headers.get("content-encoding", "identity").lower()
        if coding != "identity":
            raise AssetError(f"the server sends it packed ({coding}), though it was asked not to")

    def _begin(self, response: httpx.Response, origin: Origin | None, start: int) -> int | None:
        """Makes the part ready for what this answer brings; the file's length if the server says it."""
        validator = _validator(response)
        if response.status_code == 206:
            total = self._continued(response, origin, validator, start)
        else:
            total = _length(response)
            self._check_total(response, total)
            self.part.begin(Origin(address=self.address, validator=validator, total=total))
        self._check_total(response, total)
        return total

    def _continued(
        self, response: httpx.Response, origin: Origin | None, validator: str | None, start: int
    ) -> int:
        """The total that a 206 names, if it continues the very bytes that are here."""
        found = re.fullmatch(
            r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("content-range", "")
        )
        fits = found and origin and int(found[1]) == start and int(found[2]) < int(found[3])
        same = origin and validator in (None, origin.validator)
        if not fits or not same or origin.total not in (None, int(found[3])):
            self.part.discard()
            raise CutError("the server continued another version of the file")
        return int(found[3])

    def _check_total(self, response: httpx.Response, total: int | None) -> None:
        known = self.expected
        if total is None:
            chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
            if not chunked and known.size is None and not known.digest:
                raise AssetError("the server does not say how long the file is, so a cut would go unseen")
        elif total > known.max_bytes:
            raise AssetError(f"it has {total} bytes, more than max_bytes, {known.max_bytes}")
        elif known.size not in (None, total):
            raise AssetError(f"the server offers {total} bytes in place of {known.size}")
        elif total == 0:
            raise AssetError("the server offers an empty file")

    def _check_room(self, total: int | None) -> None:
        free = shutil.disk_usage(self.target.parent).free
        wanted = (total or self.expected.size or 0) - self.part.size()
        if wanted + _SPARE > free:
            raise OSError(errno.ENOSPC, f"{wanted / 1e6:.0f} MB are wanted, {free / 1e6:.0f} MB free")

    def _receive(self, response: httpx.Response, total: int | None, bar: tqdm) -> None:
        """Appends the body to the part, looking at every piece as it comes."""
        count = self.part.size()
        bar.update(count)
        limit = self.expected.max_bytes if total is None else total
        pace = _Pace(self.policy)
        with self.part.append() as file:
            for piece in response.iter_raw():
                if count == 0 and _looks_like_a_page(piece):
                    raise AssetError("a web page came in place of the file")
                count += len(piece)
                if count > limit:
                    break
                file.write(piece)
                bar.update(len(piece))
                pace.note(len(piece))
        self._check_end(count, total, limit)

    def _check_end(self, count: int, total: int | None, limit: int) -> None:
        if count > limit:
            self.part.discard()
            raise AssetError(f"more than {limit} bytes came; they were thrown away")
        if total is not None and count < total:
            raise CutError(f"only {count} of {total} bytes came")
        if count == 0:
            raise AssetError("the server sent an empty file")

    def _disk_trouble(self, error: OSError) -> str:
        folder = self.target.parent
        if error.errno in _NO_ROOM:
            return (
                f"no room in {folder} ({error.strerror}): make room, or keep the data elsewhere (CLCAE_DATA)"
            )
        return f"{folder} cannot be written ({error.strerror}): change its permissions"


class _Pace:
    """Ends a connection that brings next to nothing."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.since = time.monotonic()
        self.count = 0

    def note(self, count: int) -> None:
        """Counts bytes that came.

        Raises:
            CutError: for `stall` seconds there were fewer than `slowest` a second.
        """
        self.count += count
        passed = time.monotonic() - self.since
        if passed < self.policy.stall:
            return
        if self.count < self.policy.slowest * passed:
            raise CutError(f"the server sends only {self.count / passed:.0f} bytes a second")
        self.since, self.count = time.monotonic(), 0


def _validator(response: httpx.Response) -> str | None:
    """What marks this version of the file: a strong ETag, else when it was modified."""
    tag = response.headers.get("etag", "")
    return tag if tag.startswith('"') else response.headers.get("last-modified")


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if re.fullmatch(r"\d{1,18}", text) else None


def _looks_like_a_page(piece: bytes) -> bool:
    return piece[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))
