"""The explorer as a whole: widgets make states, the worker draws them, and the history remembers them.

It shows what an edit does to a face and what else it changes (arXiv 2211.11448, section 4.3), in a notebook
and, through Voila, in a page of its own. Whatever goes wrong ends as a sentence in the status line.
"""

import base64
import html
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ipywidgets as w
import numpy as np
from IPython.display import Javascript, display

from clcae_lib.explorer import export
from clcae_lib.explorer.history import History
from clcae_lib.explorer.state import MAX_JSON, ExplorerError, State
from clcae_lib.explorer.studio import Frame, Studio
from clcae_lib.explorer.uploads import MAX_BYTES, Upload, as_text, read_upload
from clcae_lib.explorer.widgets import THUMBNAILS, Controls, Views, captioned, thumbnail
from clcae_lib.explorer.worker import Result, Worker, as_sentence

_FOLDER = Path(__file__).parent
_MEDIA = {
    "png": "image/png",
    "gif": "image/gif",
    "safetensors": "application/octet-stream",
    "json": "application/json",
}
_READY = "Drag a slider, or focus one and press the arrow keys."

SMALL = 128
"""Pictures up to this side are drawn by one thread of the processor."""
LARGE = 256
"""A processor draws pictures above this side at `PREVIEW` while a slider moves, and whole when it rests."""
PREVIEW = 128

Made = TypeVar("Made")

_log = logging.getLogger(__name__)


class Explorer:
    """Sample, invert, edit, compare and take away, with sliders.

    The worker's thread computes. Whatever sets widgets or changes the history, in either thread, holds one
    lock meanwhile; nothing that takes long is done under it.

    Args:
        studio: what draws, or the name of a world to open one for.
        device: where the networks run, if a studio is to be opened.
        state: what is shown first; the first seed, or the world's first portrait, if None.
        rest: seconds after which a slider counts as resting and everything is drawn.
        open_studio: makes the studio of a world.

    Attributes:
        controls: every control; setting a value does what a visitor's drag does.
        views: every place for results.
        root: the widget that holds them all.

    Raises:
        ExplorerError: the world has no generator.
    """

    def __init__(
        self,
        studio: Studio | str = "portraits",
        *,
        device: str = "auto",
        state: State | None = None,
        rest: float = 0.15,
        open_studio: Callable[..., Studio] = Studio.open,
    ) -> None:
        self._open, self._device, self._lock = open_studio, device, threading.RLock()
        studio = open_studio(studio, device=device) if isinstance(studio, str) else studio
        self._studios = {studio.world.name: studio}
        self.views, self._undrawn = Views(), False
        self._make_buttons()
        self.root = w.VBox([]).add_class("clcae-explorer")
        # Threads that wait for each other make a small picture late whenever the machine has other work.
        threads = 1 if studio.side <= SMALL else None
        self.worker = Worker(self._picture, self._frame, self._deliver, rest=rest, threads=threads)
        with self._lock:
            self._use(studio, state or State(world=studio.world.name))

    @property
    def state(self) -> State:
        """What the controls stand for now."""
        return self.history.state

    @property
    def studio(self) -> Studio:
        """What draws now."""
        return self.controls.studio

    def go(self, state: State) -> None:
        """Show a state, as a step that can be undone.

        Raises:
            ExplorerError: it is of another world, or asks for a control that this one does not have.
        """
        if state.world != self.studio.world.name:
            raise ExplorerError(f"This state is of the world {state.world}: choose that world first.")
        unknown = sorted(({*state.edits} | {state.strip or ""}) - {*self.studio.controls, ""})
        if unknown:
            raise ExplorerError(f"{unknown[0]}: the world {state.world} has no such control.")
        if state.method not in self.controls.method.options:
            raise ExplorerError(f"{state.method}: the world {state.world} has no such method.")
        with self._lock:
            self.controls.show(state)
            self._step(state)

    def wait(self, timeout: float = 60.0) -> bool:
        """Block until everything asked for is shown; False if the time was up before."""
        return self.worker.wait(timeout)

    def close(self) -> None:
        """End the thread and take the widgets away."""
        self.worker.stop()
        self.root.close()

    def show(self) -> None:
        """Display the explorer."""
        script = (_FOLDER / "browser.js").read_text(encoding="utf-8")
        display(Javascript(script.replace("LIMIT", str(MAX_BYTES))))
        display(self.root)

    def _ipython_display_(self) -> None:
        self.show()

    def _use(self, studio: Studio, state: State) -> None:
        """Build the controls of a studio and show a state of it."""
        self.history = History(state)
        self.controls = controls = Controls(studio, self._guarded(self._on_controls))
        controls.show(state)
        controls.upload.observe(self._guarded(self._on_upload), names="value")
        controls.upload.observe(self._guarded(self._on_too_large), names="error")
        controls.earlier.on_click(self._guarded(lambda: self._turn(-THUMBNAILS)))
        controls.later.on_click(self._guarded(lambda: self._turn(THUMBNAILS)))
        self._page = 0
        self.root.children = [w.HTML(_style()), self.views.status, self._columns()]
        self._turn(0)
        self.views.say(_READY)
        self._refresh()
        self.worker.ask(state)

    def _columns(self) -> w.Box:
        views = self.views
        pair = w.HBox([captioned(views.before, "before"), captioned(views.difference, "difference x3")])
        after = captioned(views.after, "after")
        pair.add_class("clcae-pair")
        left = w.VBox([after, views.identity, pair, self._history_buttons, self._exports])
        middle = w.VBox([self.controls.tabs, views.strip])
        right = w.VBox([w.HTML("<b>What changed</b>"), views.readout, self._snippet_box])
        sides = [side.add_class(f"clcae-{n}") for side, n in zip((left, middle, right), _SIDES, strict=True)]
        return w.Box(sides).add_class("clcae-columns")

    def _make_buttons(self) -> None:
        self.undo, self.redo, self.reset = (
            _button(name, text, self._guarded(partial(self._travel, name.lower())))
            for name, text in (
                ("Undo", "Take the last change back"),
                ("Redo", "Take the undo back"),
                ("Reset", "Return to the beginning"),
            )
        )
        self._history_buttons = _row(self.undo, self.redo, self.reset)
        self.export_buttons = {
            kind: _button(text, f"Prepare the {text} for saving", self._guarded(partial(self._export, kind)))
            for kind, text in (("png", "PNG"), ("gif", "GIF"), ("safetensors", "codes"), ("json", "state"))
        }
        self.load = w.FileUpload(
            accept=".json", description="Load a state", tooltip="a state saved before, as JSON"
        )
        self.load.add_class("clcae-upload").layout.width = "auto"
        self.load.observe(self._guarded(self._on_load), names="value")
        self.load.observe(self._guarded(self._on_too_large), names="error")
        self.saved = w.HTML()
        self._exports = w.VBox(
            [w.HTML("<b>Save</b>"), _row(*self.export_buttons.values()), self.saved, self.load]
        )
        self.snippet = w.Textarea(
            description="", tooltip="Python that draws this picture again", rows=9, disabled=False
        )
        self.snippet.add_class("clcae-snippet")
        self.copy = w.Button(description="Copy", tooltip="Copy the Python to the clipboard").add_class(
            "clcae-copy"
        )
        self._snippet_box = w.VBox([w.HTML("<b>The same in Python</b>"), self.snippet, self.copy])

    def _guarded(self, action: Callable[[], None]) -> Callable[..., None]:
        """Return a callback that runs alone and ends in the status line, whatever happens."""

        def call(*_: Any) -> None:
            with self._lock:
                try:
                    action()
                except Exception as error:
                    self.views.say(str(as_sentence(error)), error=True)

        return call

    def _later(self, name: str, make: Callable[[], Made], show: Callable[[Made], None]) -> None:
        """Have the worker's thread make something and then, under the lock, show it."""

        def job() -> None:
            try:
                made = make()
            except Exception as error:
                self._guarded(partial(self._failed, as_sentence(error)))()
            else:
                self._guarded(partial(show, made))()

        self.worker.do(name, job)

    def _failed(self, error: ExplorerError) -> None:
        """Say what went wrong; the controls stand for the present state again, its world among them."""
        self.controls.show(self.history.state)
        raise error

    def _on_controls(self) -> None:
        if self.controls.quiet:
            return
        state = self.controls.read()
        if state.world != self.studio.world.name:
            self.views.say(f"Opening the world {state.world}; the first time this takes a minute.")
            self._later("world", partial(self._opened, state.world), self._change_world)
            return
        self._step(state)

    def _opened(self, name: str) -> Studio:
        return self._studios.get(name) or self._open(name, device=self._device)

    def _change_world(self, studio: Studio) -> None:
        self._studios[studio.world.name] = studio
        self._use(studio, State(world=studio.world.name))

    def _step(self, state: State) -> None:
        """Make a state the present one and have it drawn."""
        self.history.push(state)
        self._told(True)
        self._refresh()
        self.worker.ask(state)

    def _travel(self, where: str) -> None:
        state = getattr(self.history, where)()
        self._told(True)
        self.controls.show(state)
        self._refresh()
        self.worker.ask(state)

    def _refresh(self) -> None:
        self.undo.disabled, self.redo.disabled = not self.history.can_undo, not self.history.can_redo

    def _picture(self, state: State) -> np.ndarray:
        studio = self._studios[state.world]
        if studio.side > LARGE and studio.device.type == "cpu":
            return studio.preview(state, PREVIEW)
        return studio.picture(state)

    def _frame(self, state: State) -> Frame:
        return self._studios[state.world].frame(state)

    def _deliver(self, state: State, result: Result) -> None:
        """Show a result; called from the worker's thread."""
        with self._lock:
            if isinstance(result, ExplorerError):
                self._undrawn = True
                self.views.say(str(result), error=True)
            elif isinstance(result, Frame):
                self.views.show_frame(result, asked=tuple(state.edits))
                self.snippet.value = export.snippet(state)
            else:
                self.views.show_picture(result)
                self._told(self._undrawn)

    def _told(self, over: bool) -> None:
        """Take an error away once it is over; what was said of an upload stays until the next step."""
        if over and self.views.failed:
            self._undrawn = False
            self.views.say(_READY)

    def _turn(self, by: int) -> None:
        """Show the thumbnails of another page of the gallery."""
        studio, size = self.studio, self.studio.gallery_size
        self._page = max(0, min(self._page + by, (size - 1) // THUMBNAILS * THUMBNAILS))
        indices = range(self._page, min(self._page + THUMBNAILS, size))
        make = partial(studio.thumbnails, indices) if len(indices) else list
        self._later("thumbnails", make, partial(self._show_thumbnails, indices))

    def _show_thumbnails(self, indices: range, pictures: list[np.ndarray]) -> None:
        boxes = [thumbnail(p, i, self._choose) for p, i in zip(pictures, indices, strict=True)]
        self.controls.thumbnails.children = boxes

    def _choose(self, index: int) -> None:
        self.controls.index.value = index
        self.controls.source.value = "gallery"

    def _on_upload(self) -> None:
        if not self.controls.upload.value:
            return
        name, data = _take(self.controls.upload)
        self.views.say("Looking for the face in your picture …")
        options = {"name": name, "side": self.studio.side, "frame": self.studio.world.frame}
        self._later("upload", partial(read_upload, data, **options), self._show_upload)

    def _show_upload(self, picture: Upload) -> None:
        self.controls.upload_text, self.controls.source.value = as_text(picture), "upload"
        self.views.say(_READY)
        self._on_controls()

    def _on_load(self) -> None:
        if not self.load.value:
            return
        _, data = _take(self.load)
        if len(data) > MAX_JSON:
            raise ExplorerError("This file is too large for a state; load one that the explorer saved.")
        self.go(State.from_json(data.decode("utf-8", errors="replace")))

    def _on_too_large(self) -> None:
        limit = MAX_BYTES // 1_000_000
        raise ExplorerError(f"This file has more than {limit} MB, so it was not sent: make it smaller.")

    def _export(self, kind: str) -> None:
        self.views.say(f"Preparing the {kind} file …")
        studio, state = self.studio, self.state
        make = {
            "png": lambda: export.png(studio.frame(state)),
            "gif": lambda: export.gif(studio, state),
            "safetensors": lambda: export.codes(studio, state),
            "json": lambda: state.to_json().encode(),
        }
        self._later("export", make[kind], partial(self._show_link, kind))

    def _show_link(self, kind: str, data: bytes) -> None:
        self.saved.value = save_link(data, f"explorer.{kind}")
        self.views.say(f"The {kind} file is ready: press its link to save it.")


_SIDES = ("left", "middle", "right")


def save_link(data: bytes, name: str) -> str:
    """A link that saves a file from inside the page; nothing is written on the server."""
    media = _MEDIA.get(name.rsplit(".", 1)[-1], "application/octet-stream")
    address = f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
    text = f"Save {html.escape(name)} ({max(1, round(len(data) / 1000))} kB)"
    return f'<a class="clcae-save" download="{html.escape(name)}" href="{address}">{text}</a>'


def _take(upload: w.FileUpload) -> tuple[str, bytes]:
    """Name and content of the file in an upload widget; its size is looked at before a copy is made."""
    file = upload.value[0]
    name, content = str(file.get("name", "")), file["content"]
    size = memoryview(content).nbytes
    upload.value = ()
    if size > MAX_BYTES:
        raise ExplorerError(
            f"This file has {size / 1e6:.0f} MB; at most {MAX_BYTES // 1_000_000} are taken: make it smaller."
        )
    return name, bytes(content)


def _style() -> str:
    return f"<style>{(_FOLDER / 'style.css').read_text(encoding='utf-8')}</style>"


def _button(name: str, text: str, action: Callable[..., None]) -> w.Button:
    button = w.Button(description=name, tooltip=text)
    button.on_click(action)
    return button


def _row(*buttons: w.Widget) -> w.HBox:
    return w.HBox(buttons).add_class("clcae-buttons")
