"""The website of the course, built as `make site` builds it, in a Chromium that may reach no other host."""

import functools
import subprocess
import sys
import threading
import urllib.parse
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser.conftest import ROOT

SITE = ROOT / "build" / "site"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


class _Links(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


@pytest.fixture(scope="module")
def address():
    """The address of a server that shows the freshly built site."""
    subprocess.run([sys.executable, "docs/site/build.py", "--strict"], cwd=ROOT, check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_local_link_and_image_of_the_site_exists(address):
    missing = []
    for page in sorted(SITE.rglob("*.html")):
        if "_static" in page.parts:  # a template of the theme
            continue
        for link in _Links(page).found:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc or not parts.path:
                continue
            if not (page.parent / urllib.parse.unquote(parts.path)).exists():
                missing.append(f"{page.relative_to(SITE)}: {link}")
    assert missing == []


def test_pages_render_without_errors_and_without_another_host(address, browser):
    errors, foreign = [], []
    context = browser.new_context()
    page = context.new_page()
    page.on(
        "console", lambda m: errors.append(f"{m.text} {m.location['url']}") if m.type == "error" else None
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((address, "data:")) else None)
    for path in ("index.html", "api/clcae_lib.losses.html", "notebooks/02_cross_attention_encoder.html"):
        page.goto(address + path)
        page.screenshot(path=ROOT / "results" / "browser" / f"site_{Path(path).stem}.png")
    page.wait_for_selector("mjx-container")  # an equation, drawn by the copy of MathJax in the site
    page.goto(address + "search.html?q=cross-attention")
    page.wait_for_selector("#search-results li")
    context.close()
    assert errors == []
    assert foreign == []
