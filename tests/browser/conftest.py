"""A real Chromium and the servers it looks at; without a browser these tests are left out, and say so."""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.servers import ROOT, free_port, server

SHOTS = ROOT / "results" / "browser"
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def voila(*options: str) -> Iterator[str]:
    """Run `clcae explore` on a free port; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "clcae_lib.cli", "explore", "--device", "cpu", "--port", str(port)]
    with server([*command, *options], port, SHOTS / "voila.log") as address:
        yield address


class Visit:
    """One page of one visitor, and everything that went wrong on it."""

    def __init__(
        self, browser: Browser, address: str, *, width: int = 1280, height: int = 720, zoom: int = 1
    ) -> None:
        self.address = address
        size = {"width": width, "height": height}  # a zoomed page has fewer, and larger, pixels of its own
        self.context = browser.new_context(viewport=size, device_scale_factor=zoom)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.faults: list[str] = []
        self.foreign: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._request)
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._frame))
        self.until(self._enter, "a place is free", poll=500)

    def _enter(self) -> bool:
        """Open the page; a place that was just left is free once its kernel has ended."""
        self.faults.clear()
        return self.page.goto(self.address).status != 503

    def until(self, holds: Callable[[], bool], what: str, *, seconds: float = 60, poll: float = 50) -> None:
        """Wait until a condition holds; fail with what it is if it does not."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"after {seconds} s it is not so that {what}"
            self.page.wait_for_timeout(poll)

    def _console(self, message) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def _request(self, request) -> None:
        if not re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|data:|blob:", request.url):
            self.foreign.append(request.url)

    def _frame(self, content: str | bytes) -> None:
        """Look for what a kernel prints or reports, wherever the page shows it."""
        text = content if isinstance(content, str) else content.decode(errors="replace")
        if "Traceback (most recent call last)" in text or '"msg_type": "error"' in text:
            self.faults.append(text[-3000:])

    def ready(self) -> "Visit":
        """Wait until the explorer shows its first state."""
        self.page.wait_for_selector(".clcae-explorer .noUi-handle", state="attached", timeout=120_000)
        self.page.wait_for_selector(".clcae-readout td", state="attached", timeout=60_000)
        self.until(lambda: "State(" in self.snippet(), "the first state is shown")
        self.first = (self.snippet(), self.image())
        return self

    def image(self) -> list[int]:
        """The pixels of the edited image, as the browser has them."""
        return self.page.evaluate(
            """async () => {
              const image = document.querySelector('img.clcae-after');
              for (let tries = 0; tries < 50; tries++) {  // its address changes with each new image
                try { await image.decode(); break; } catch { await new Promise(r => setTimeout(r, 20)); }
              }
              const canvas = document.createElement('canvas');
              [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
              const context = canvas.getContext('2d');
              context.drawImage(image, 0, 0);
              return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
            }"""
        )

    def snippet(self) -> str:
        """The Python beside the image: that of the last state of which everything is drawn."""
        return self.page.locator(".clcae-snippet textarea").input_value()

    def shows(self, text: str) -> None:
        """Wait until everything is drawn of a state with this text in its Python."""
        self.until(lambda: text in self.snippet(), f"a state with {text} is shown")

    def changes_from(self, before: list[int]) -> list[int]:
        """Wait until the image is another one, and return it."""
        self.until(lambda: self.image() != before, "the image changed")
        return self.image()

    def rests(self) -> list[int]:
        """Wait until the image stays the same for a second, and return it."""
        seen = []

        def same() -> bool:
            seen.append(self.image())
            return seen[-2:-1] == seen[-1:]

        self.until(same, "the image rests", poll=1000)
        return seen[-1]

    def becomes(self, expected: list[int]) -> None:
        """Wait until the image is this one."""
        self.until(lambda: self.image() == expected, "the image is the expected one")

    def press(self, label: str, key: str, times: int = 1) -> None:
        """Press a key on a slider's handle."""
        self.slider(label).focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    def slider(self, label: str):
        """The handle of a slider, which takes the arrow keys."""
        return self.page.locator(f".clcae-explorer .noUi-handle[aria-label='{label}']").first

    def drag(self, label: str, *, steps: int = 5) -> list[list[int]]:
        """Pull a slider to the right with the mouse, and return the image of each step."""
        handle, images = self.slider(label), [self.image()]
        handle.scroll_into_view_if_needed()
        place = handle.bounding_box()
        x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for step in range(1, steps + 1):
            self.page.mouse.move(x + 8 * step, y)
            images.append(self.changes_from(images[-1]))
        self.page.mouse.up()
        return images[1:]

    def open(self, tab: str) -> None:
        """Bring a tab to the front."""
        self.page.locator(".clcae-explorer").get_by_role("tab", name=tab).click()

    def button(self, name: str):
        """A button of the explorer."""
        return self.page.locator(".clcae-explorer").get_by_role("button", name=name, exact=True)

    def reset(self) -> None:
        """Return to the beginning, and wait until all of it is drawn."""
        self.button("Reset").click()
        self.until(lambda: (self.snippet(), self.image()) == self.first, "the first state is shown again")

    def upload(self, button: str, path: Path) -> None:
        """Choose a file, as a visitor does."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator(".clcae-upload", has_text=button).click()  # its name ends in a count
        chooser.value.set_files(path)

    def shoot(self, name: str) -> None:
        """Keep a screenshot of the page."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")

    def check(self, *, allowed: str = "") -> None:
        """Fail on errors of the console, on requests that leave the machine, and on error outputs."""
        faults = [fault for fault in self.faults if not allowed or allowed not in fault]
        self.faults.clear()
        assert not faults, faults
        assert not self.foreign, self.foreign
        shown = "[data-mime-type='application/vnd.jupyter.error'], .jupyter-widgets-error-widget"
        assert self.page.locator(shown).count() == 0, "an error is shown as an output"

    def close(self) -> None:
        """Leave as one who closes the page: its kernel ends and the place is free."""
        self.page.goto("about:blank")
        self.context.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium; without one the tests are left out, unless CLCAE_REQUIRE_BROWSER=1 makes that a failure."""
    if find_browser() is None:
        reason = "no Chromium on this machine (on Debian: apt-get install chromium), so nothing was looked at"
        if os.environ.get("CLCAE_REQUIRE_BROWSER") == "1":
            pytest.fail(f"CLCAE_REQUIRE_BROWSER=1, but {reason}")
        pytest.skip(reason)
    with chromium() as running:
        yield running
