"""The website of the course, built as `make site` builds it, in a Chromium that may reach no other host."""

import functools
import importlib
import subprocess
import sys
import threading
import urllib.parse
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from bs4 import BeautifulSoup

from tests.browser.conftest import ROOT, SHOTS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]  # one worker builds the site
SITE = ROOT / "build" / "site"
SHOWN = (
    "index.html",
    *(f"api/clcae_lib.{name}.html" for name in ("losses", "editing", "training", "worlds")),
    "notebooks/02_cross_attention_encoder.html",
)
"""The pages of which a screenshot is kept."""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="module")
def pages() -> dict[Path, BeautifulSoup]:
    """The pages of the freshly built site."""
    subprocess.run([sys.executable, "docs/site/build.py", "--strict"], cwd=ROOT, check=True)
    paths = sorted({*SITE.rglob("*.html")} - {*SITE.glob("_static/**/*.html")})  # the theme has a template
    return {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in paths}


@pytest.fixture(scope="module")
def address(pages):
    """The address of a server that shows the site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_local_link_and_image_leads_somewhere(pages):
    anchors = {path: {tag["id"] for tag in page.select("[id]")} for path, page in pages.items()}
    missing = set()
    for path, page in pages.items():
        for tag in page.select("[href], [src]"):
            parts = urllib.parse.urlsplit(link := tag.get("href") or tag.get("src") or "")
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            known = anchors.get(target, set())
            if not target.exists() or (parts.fragment and urllib.parse.unquote(parts.fragment) not in known):
                missing.add((str(path.relative_to(SITE)), link))
    assert missing == set()


def test_a_page_of_the_library_shows_all_that_is_public_once_and_described(pages):
    library = {path.stem: page for path, page in pages.items() if path.parent == SITE / "api"}
    assert {"clcae_lib.metrics", "clcae_lib.editing", "clcae_lib.training.inversion"} < library.keys()
    for name, page in library.items():
        entries = [entry for entry in page.select("dt.sig[id]") if entry["id"].rpartition(".")[0] == name]
        shown = [entry["id"].rpartition(".")[2] for entry in entries]
        assert len(shown) == len(set(shown)), name
        module, public = importlib.import_module(name), set(shown)
        assert public
        assert public <= vars(module).keys()
        assert _offered(module) - public == set()
        assert not hasattr(module, "__path__") or public == _offered(module)
        assert all(entry.find_next_sibling("dd").get_text(strip=True) for entry in entries)
        assert not page.select(".py.data > dd > .field-list"), "a constant's description has no colon"


def _offered(module: ModuleType) -> set[str]:
    """What a package imports in its `__init__`, or the classes and functions that a module defines."""
    own = {n: v for n, v in vars(module).items() if n[0] != "_" and not isinstance(v, ModuleType)}
    if hasattr(module, "__path__"):
        return set(own)
    return {n for n, v in own.items() if callable(v) and getattr(v, "__module__", "") == module.__name__}


def test_solutions_are_collapsed(pages):
    notebooks = {path.stem: page for path, page in pages.items() if path.parent == SITE / "notebooks"}
    assert len(notebooks) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    for name, page in notebooks.items():
        solutions = page.select(".tag_solution")
        assert solutions, name
        assert all(cell.select("details:not([open]) .cell_input") for cell in solutions), name


def test_pages_render_without_errors_and_without_another_host(pages, address, browser):
    errors, foreign = [], []
    context = browser.new_context()
    page = context.new_page()
    page.on(
        "console", lambda m: errors.append(f"{m.text} {m.location['url']}") if m.type == "error" else None
    )
    page.on("pageerror", lambda error: errors.append(f"{error} {page.url}"))
    page.on("request", lambda r: foreign.append(r.url) if not r.url.startswith((address, "data:")) else None)
    for path, soup in pages.items():
        name = path.relative_to(SITE).as_posix()
        page.goto(address + name)
        if soup.select_one("span.math, div.math"):
            page.wait_for_selector("mjx-container", state="attached")  # drawn by the site's copy of MathJax
        if name in SHOWN:
            page.screenshot(path=SHOTS / f"site_{path.stem}.png")
    page.goto(address + "search.html?q=cross-attention")
    page.wait_for_selector("#search-results li")
    context.close()
    assert errors == []
    assert foreign == []
