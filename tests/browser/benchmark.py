"""Slider to picture as a visitor has it: from the key press in Chromium to the new picture on the page.

Run by `make bench`. It serves the explorer itself; other load on the machine shows in the numbers.
"""

import os
import sys

import numpy as np

from tests.browser.conftest import Visit, chromium, find_browser, voila

_WATCH = """() => {
  document.addEventListener('keydown', () => { window.pressed = performance.now(); }, true);
  let seen = null;
  setInterval(() => {
    const image = document.querySelector('img.clcae-after');
    if (image.src === seen || !image.complete || !image.naturalWidth) return;
    seen = image.src;
    window.took ??= performance.now() - window.pressed;
  }, 2);
}"""


def measure(moves: int) -> np.ndarray:
    """Milliseconds of each move; the slider rests in between, as after a click."""
    with chromium() as browser, voila() as address:
        visit = Visit(browser, address).ready()
        visit.page.wait_for_timeout(1500)
        visit.page.evaluate(_WATCH)
        visit.slider("yaw").focus()
        waits = []
        for move in range(moves):
            visit.page.evaluate("window.took = null")
            visit.page.keyboard.press("ArrowRight" if move % 20 < 10 else "ArrowLeft")
            visit.page.wait_for_timeout(1000)
            waits.append(visit.page.evaluate("window.took ?? 1000"))  # a second stands for "not at all"
        visit.close()
    return np.array(waits)


if __name__ == "__main__":
    if find_browser() is None:
        sys.exit("no Chromium on this machine (on Debian: apt-get install chromium)")
    times = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
    p50, p95 = np.percentile(times, [50, 95])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{len(times)} moves: median {p50:.0f} ms, 95th percentile {p95:.0f} ms, load {load:.1f}")
