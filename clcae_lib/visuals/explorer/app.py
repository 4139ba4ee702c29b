"""The explorer as a whole: widgets make states, the worker draws them, and the history remembers them.

It shows what an edit does to a face and what else it changes (arXiv 2211.11448, section 4.3), in a notebook
and, through Voila, in a page of its own. Whatever goes wrong ends as a sentence in the status line.
"""

import base64
import html
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ipywidgets as w
import numpy as np
from IPython.display import Javascript, display

from clcae_lib.visuals.explorer import export
from clcae_lib.visuals.explorer.history import History
from clcae_lib.visuals.explorer.state import MAX_JSON, ExplorerError, State
from clcae_lib.visuals.explorer.studio import Frame, Studio
from clcae_lib.visuals.explorer.uploads import MAX_BYTES, as_text, read_upload
from clcae_lib.visuals.explorer.widgets import THUMBNAILS, Controls, Views, captioned, thumbnail
from clcae_lib.visuals.explorer.worker import Result, Worker, as_sentence

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

_log = logging.getLogger(__name__)


class Explorer:
    """Sample, invert, edit, compare and take away, with sliders.

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
        self._open, self._device = open_studio, device
        studio = open_studio(studio, device=device) if isinstance(studio, str) else studio
        self._studios = {studio.world.name: studio}
        self.views, self._undrawn = Views(), False
        self._make_buttons()
        self.root = w.VBox([]).add_class("clcae-explorer")
        # Threads that wait for each other make a small picture late whenever the machine has other work.
        threads = 1 if studio.side <= SMALL else None
        self.worker = Worker(self._picture, self._frame, self._deliver, rest=rest, threads=threads)
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
        """A callback that ends in the status line, whatever happens."""

        def call(*_: Any) -> None:
            try:
                action()
            except Exception as error:
                self.views.say(str(as_sentence(error)), error=True)

        return call

    def _on_controls(self) -> None:
        state = self.controls.read()
        if state.world != self.studio.world.name:
            self.views.say(f"Opening the world {state.world}; the first time this takes a minute.")
            self.worker.do("world", self._guarded(partial(self._change_world, state.world)))
            return
        self._step(state)

    def _change_world(self, name: str) -> None:
        try:
            if name not in self._studios:
                self._studios[name] = self._open(name, device=self._device)
        except ExplorerError:
            self.controls.show(self.history.state)
            raise
        self._use(self._studios[name], State(world=name))

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
        size = self.studio.gallery_size
        self._page = max(0, min(self._page + by, (size - 1) // THUMBNAILS * THUMBNAILS))
        indices = range(self._page, min(self._page + THUMBNAILS, size))
        self.worker.do("thumbnails", self._guarded(partial(self._show_thumbnails, indices)))

    def _show_thumbnails(self, indices: range) -> None:
        pictures = self.studio.thumbnails(indices) if len(indices) else []
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
        self.worker.do("upload", self._guarded(partial(self._cut_upload, name, data)))

    def _cut_upload(self, name: str, data: bytes) -> None:
        """Read and cut an upload; in the worker's thread, since finding a face takes seconds at first."""
        picture = read_upload(data, name=name, side=self.studio.side, frame=self.studio.world.frame)
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
        self.worker.do("export", self._guarded(partial(self._save, kind, self.state)))

    def _save(self, kind: str, state: State) -> None:
        studio = self._studios[state.world]
        make = {
            "png": lambda: export.png(studio.frame(state)),
            "gif": lambda: export.gif(studio, state),
            "safetensors": lambda: export.codes(studio, state),
            "json": lambda: state.to_json().encode(),
        }
        self.saved.value = save_link(make[kind](), f"explorer.{kind}")
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
