"""One GET over https, with every redirect looked at before it is followed (no section of the paper)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from clcae_lib.assets._errors import AssetError, CutError

_REDIRECTS = {301, 302, 303, 307, 308}
AGAIN = {408, 425, 429, 500, 502, 503, 504}
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class Policy:
    """How patient and how strict a download is; times in seconds.

    Args:
        attempts: in a row that bring no new byte before it is given up.
        connections: of one download in all, however little each brings.
        connect: for a connection to be made.
        stall: without a byte, or with less than `slowest` a second, before a connection is given up.
        slowest: bytes a second.
        backoff: before the second attempt; doubled for each further one.
        longest_wait: between attempts, even if the server asks for more.
        redirects: followed in a row.
        lock: how long to wait for another process that fetches the same file.
        loopback: whether plain http to this machine is allowed. For tests; nothing else sets it.
        transport: in place of the network. For tests.
    """

    attempts: int = 4
    connections: int = 100
    connect: float = 15.0
    stall: float = 30.0
    slowest: float = 256.0
    backoff: float = 1.0
    longest_wait: float = 60.0
    redirects: int = 8
    lock: float = 3600.0
    loopback: bool = False
    transport: httpx.BaseTransport | None = None

    def client(self) -> httpx.Client:
        """A client that follows no redirect by itself and reuses no connection (one may end while idle)."""
        return httpx.Client(
            timeout=httpx.Timeout(self.stall, connect=self.connect),
            limits=httpx.Limits(max_keepalive_connections=0),
            headers={"User-Agent": "clcae-suite", "Accept-Encoding": "identity"},
            transport=self.transport,
            trust_env=not self.loopback,  # proxies, as the environment names them
        )


@contextmanager
def opened(
    client: httpx.Client, address: str, headers: Mapping[str, str], policy: Policy
) -> Iterator[httpx.Response]:
    """The answer at the end of the redirects, its body not read yet.

    Raises:
        AssetError: a hop is no https, or there are too many.
        CutError: the connection failed, here or while the body was read.
    """
    try:
        here = _checked(httpx.URL(address), policy)
        for _ in range(policy.redirects + 1):
            with client.stream("GET", here, headers=headers) as response:
                if response.status_code not in _REDIRECTS or "location" not in response.headers:
                    yield response
                    return
                here = _checked(here.join(response.headers["location"]), policy)
    except httpx.InvalidURL as error:
        raise AssetError(f"a redirect leads to no address ({error})") from error
    except httpx.TimeoutException as error:
        raise CutError(f"{here.host} is silent") from error
    except httpx.ConnectError as error:
        raise CutError(f"no connection to {here.host}: {error}") from error
    except httpx.TransportError as error:
        raise CutError(f"the connection to {here.host} was cut: {error}") from error
    raise AssetError(f"redirected more than {policy.redirects} times")


def check_status(response: httpx.Response) -> None:
    """Passes 200 and 206.

    Raises:
        CutError: the server says that it may answer later.
        AssetError: it says that it will not.
    """
    status = response.status_code
    if status in AGAIN:
        wait = response.headers.get("retry-after", "")
        raise CutError(f"the server answers {status}", wait=float(wait) if wait.isdigit() else 0.0)
    if status not in (200, 206):
        raise AssetError(f"the server answers {status} {response.reason_phrase}".rstrip())


def _checked(url: httpx.URL, policy: Policy) -> httpx.URL:
    if url.userinfo or not url.host:
        raise AssetError("a redirect leads to no plain address")
    local = policy.loopback and url.scheme == "http" and url.host in _LOOPBACK
    if url.scheme != "https" and not local:
        raise AssetError(f"{url.scheme}://{url.host} is no https: such an address is not followed")
    return url
