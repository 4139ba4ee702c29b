"""Slider to image as a visitor has it: from the key press in Chromium to the new image on the page.

Run by `make bench`. It serves the explorer itself; other load on the machine shows in the numbers. A
generator of 1024 pixels, its weights drawn at random, is timed without a browser: previews, then the whole.
"""

import os
import sys
import time
from dataclasses import replace

import numpy as np
import torch

from clcae_lib.explorer import State, Studio
from clcae_lib.models import Generator
from clcae_lib.worlds import World
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
        visit.page.evaluate(_WATCH)
        visit.slider("yaw").focus()
        waits = []
        for move in range(moves):
            place = min(move % 20 + 1, 19 - move % 20)  # ten steps to the right, ten to the left
            visit.page.evaluate("window.took = null")
            visit.page.keyboard.press("ArrowRight" if move % 20 < 10 else "ArrowLeft")
            visit.shows(f"'yaw': {round(0.05 * place, 4)}}}" if place else "source='seed',\n)")
            waits.append(visit.page.evaluate("window.took ?? 1000"))  # a second stands for "not at all"
        visit.close()
    return np.array(waits)


class Large(World):
    """A world that has a generator of full size and nothing else."""

    name = "large"

    def generator(self, device="cpu"):
        """Return the generator."""
        return Generator(1024).eval()


def large(moves: int) -> dict[int, np.ndarray]:
    """Milliseconds of an image of the full-size generator at each side, a step in W+ between images."""
    torch.manual_seed(0)
    studio = Studio.open(Large(), device="cpu")
    state, times = State(world="large", mix_seed=1, mix_layers=(8,)), {}
    for side in (64, 128, 1024):
        studio.image(state, side=side)
        times[side] = []
        for move in range(moves if side < 1024 else 3):
            begun = time.perf_counter()
            studio.image(replace(state, mix_seed=move), side=side)
            times[side].append(1000 * (time.perf_counter() - begun))
    return {side: np.array(taken) for side, taken in times.items()}


if __name__ == "__main__":
    for side, taken in large(20).items():
        middle, slow = np.percentile(taken, [50, 95])
        print(f"1024 generator at {side}: median {middle:.0f} ms, 95th percentile {slow:.0f} ms")
    if find_browser() is None:
        sys.exit("no Chromium on this machine (on Debian: apt-get install chromium)")
    times = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
    p50, p95 = np.percentile(times, [50, 95])
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{len(times)} moves: median {p50:.0f} ms, 95th percentile {p95:.0f} ms, load {load:.1f}")
