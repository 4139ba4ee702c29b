"""Google Drive: its question whether to download what it has not scanned, and its refusals.

A large file is answered with a page that holds a form; sending the form's hidden fields back gives the file.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

from clcae_lib.assets._client import AGAIN, Policy, opened
from clcae_lib.assets._errors import AssetError, CutError

DRIVE = "https://drive.google.com/uc"
_PAGE_BYTES = 2**16  # its pages have a few thousand; parsing a hostile one takes the square of this
_QUOTA = ("too many users have viewed or downloaded", "quota exceeded", "download quota")
_HOSTS = (".google.com", ".googleusercontent.com")


@dataclass
class Page:
    """What matters of a page: its title, its text, and the form that leads to the file."""

    title: str = ""
    text: str = ""
    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)


class _Parser(HTMLParser):
    """Fills a `Page`; the first form whose action ends in /download is the one."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._in_form = False
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the form and its hidden fields."""
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and not self.page.action:
            action = values.get("action", "")
            self._in_form = action.partition("?")[0].endswith("/download")
            self.page.action = action if self._in_form else ""
        elif tag == "input" and self._in_form and values.get("type") == "hidden" and values.get("name"):
            self.page.fields[values["name"]] = values.get("value", "")
        self._in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        """Notes the end of the form."""
        self._in_form = self._in_form and tag != "form"
        self._in_title = False

    def handle_data(self, data: str) -> None:
        """Keeps the text."""
        self.page.text += data
        if self._in_title:
            self.page.title += data.strip()


def parse_page(html: str) -> Page:
    """The parts of a page of Google Drive's that say what to do next."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    return parser.page


def is_page(response: httpx.Response) -> bool:
    """Whether an answer says that it is a web page."""
    return "html" in response.headers.get("content-type", "").lower()


@contextmanager
def drive_opened(
    client: httpx.Client, drive_id: str, headers: Mapping[str, str], policy: Policy, *, base: str = DRIVE
) -> Iterator[httpx.Response]:
    """The answer that holds the file, through the confirmation page if there is one.

    Raises:
        AssetError: the quota is used up, a login is needed, or the page is none that is known.
        CutError: see `opened`.
    """
    first = str(httpx.URL(base, params={"export": "download", "id": drive_id}))
    with opened(client, first, headers, policy) as response:
        if not is_page(response):
            yield response
            return
        second = _confirmed(response, base)
    with opened(client, second, headers, policy) as response:
        if is_page(response):
            raise _refusal(response, _page(response))
        yield response


def _page(response: httpx.Response) -> Page:
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > _PAGE_BYTES:
            break
    return parse_page(content[:_PAGE_BYTES].decode("utf-8", "replace"))


def _confirmed(response: httpx.Response, base: str) -> str:
    """The address that the page's form leads to."""
    page = _page(response)
    if response.status_code != 200 or not page.action or not page.fields:
        raise _refusal(response, page)
    target = response.url.join(page.action)
    if target.host != httpx.URL(base).host and not target.host.endswith(_HOSTS):
        raise AssetError(f"Google Drive's page leads to {target.host}, which is not Google's")
    return str(target.copy_with(params={**dict(target.params), **page.fields}))


def _refusal(response: httpx.Response, page: Page) -> AssetError | CutError:
    """What a page that leads to no file means."""
    text = " ".join(f"{page.title} {page.text}".lower().split())
    if any(sign in text for sign in _QUOTA):
        return AssetError("Google Drive's download quota for this file is used up; try again in 24 hours")
    if response.url.host.startswith("accounts."):
        return AssetError("Google Drive asks for a login: the file is not shared with everybody")
    if response.status_code in AGAIN:
        return CutError(f"Google Drive answers {response.status_code}")
    if response.status_code == 404:
        return AssetError("Google Drive has no such file any more")
    title = page.title[:80] or "without a title"
    return AssetError(f"Google Drive sent a web page in place of the file ({title})")
