"""The whole explorer: widgets produce states, the worker draws them, and the history stores them.

It shows how an edit changes a face and what else it changes (arXiv 2211.11448, section 4.3), in a notebook
or, through Voila, on a web page. Errors are shown as a sentence in the status line.
"""

import base64
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ipywidgets as w
from IPython.display import Javascript, display
from PIL import Image

from clcae_lib.errors import ClcaeError
from clcae_lib.explorer import export
from clcae_lib.explorer.state import MAX_JSON, ExplorerError, History, State
from clcae_lib.explorer.studio import Frame, Pixels, Studio
from clcae_lib.explorer.uploads import MAX_BYTES, as_text, check_size, open_upload, read_upload
from clcae_lib.explorer.widgets import (
    THUMBNAILS,
    ControlPanel,
    Views,
    button,
    captioned,
    file_upload,
    thumbnail,
)
from clcae_lib.explorer.worker import Worker
from clcae_lib.photos import Crop, align

_FOLDER = Path(__file__).parent
_READY = "Drag a slider, or focus one and press the arrow keys."
_FILES = {
    "png": ("PNG", "image/png"),
    "gif": ("GIF", "image/gif"),
    "safetensors": ("codes", "application/octet-stream"),
    "json": ("state", "application/json"),
}
"""Files to save, by suffix: the button's text and the media type."""

SMALL = 128
"""Images up to this side are drawn by one CPU thread."""
LARGE = 256
"""On a CPU, images above this side are drawn at `PREVIEW` while a slider moves, and in full when it rests."""
PREVIEW = 128
_FIRST_STATE = 600
"""Seconds after which an explorer is displayed even if its first state is not drawn yet."""

Made = TypeVar("Made")
_log = logging.getLogger(__name__)


class Explorer:
    """Sample, invert, edit, compare and save images, with sliders.

    The worker's thread computes. Code that sets widgets or changes the history holds one lock, in either
    thread; slow work is done without the lock.

    Args:
        studio: the studio that draws, or the name of a world to open one for.
        device: device of the networks, if a studio has to be opened.
        state: the first state; that of the studio if None.
        rest: seconds without a change after which everything is drawn.

    Attributes:
        controls: every control; setting a value has the effect of a visitor's drag.
        views: the widgets that show results.
        root: the widget that holds all others.
    """

    def __init__(
        self,
        studio: Studio | str = "portraits",
        *,
        device: str = "auto",
        state: State | None = None,
        rest: float = 0.15,
    ) -> None:
        self._device, self._rest, self._lock = device, rest, threading.RLock()
        studio = Studio.open(studio, device=device) if isinstance(studio, str) else studio
        self._studios = {studio.world.name: studio}
        self.views, self._undrawn = Views(), False
        self._make_buttons()
        self.root = w.VBox([]).add_class("clcae-explorer")
        # Several threads would delay small images on a busy machine, because they wait for each other.
        threads = 1 if studio.side <= SMALL else None
        self.worker = Worker(urgent="image", threads=threads)
        with self._lock:
            self._use(studio, state or studio.first)

    @property
    def state(self) -> State:
        """The current state of the controls."""
        return self.history.state

    @property
    def studio(self) -> Studio:
        """The studio of the current world."""
        return self.controls.studio

    def wait(self, timeout: float = 60.0) -> bool:
        """Block until everything is shown; return False after `timeout` seconds."""
        return self.worker.wait(timeout)

    def close(self) -> None:
        """End the thread and close the widgets."""
        self.worker.stop()
        self.root.close()

    def show(self) -> None:
        """Display the explorer once its first state is drawn.

        A page that Voila serves reads the widgets' values once, and misses changes while it reads.
        """
        self.wait(_FIRST_STATE)
        script = (_FOLDER / "browser.js").read_text(encoding="utf-8")
        display(Javascript(script.replace("LIMIT", str(MAX_BYTES))))
        display(self.root)

    def _ipython_display_(self) -> None:
        self.show()

    def _use(self, studio: Studio, state: State) -> None:
        """Build the controls of a studio and show one of its states."""
        self.history = History(state)
        self.controls = controls = ControlPanel(studio, self._guarded(self._on_controls))
        controls.show(state)
        self._watch(controls.upload, self._on_upload)
        controls.marking.points.observe(self._guarded(self._on_marks), names="value")
        controls.earlier.on_click(self._guarded(lambda: self._turn_page(-THUMBNAILS)))
        controls.later.on_click(self._guarded(lambda: self._turn_page(THUMBNAILS)))
        style = f"<style>{(_FOLDER / 'style.css').read_text(encoding='utf-8')}</style>"
        self.root.children = [w.HTML(style), self.views.status, self._columns()]
        self._page = 0
        self._turn_page(0)
        self.views.say(_READY)
        self._draw(state)

    def _columns(self) -> w.Box:
        views = self.views
        pair = w.HBox([captioned(views.before, "before"), captioned(views.difference, "difference x3")])
        pair.add_class("clcae-pair")
        after = captioned(views.after, "after")
        columns = {
            "left": [after, views.identity, pair, self._history_buttons, self._exports],
            "middle": [self.controls.tabs, views.strip],
            "right": [w.HTML("<b>What changed</b>"), views.readout, self._snippet_box],
        }
        sides = [w.VBox(parts).add_class(f"clcae-{name}") for name, parts in columns.items()]
        return w.Box(sides).add_class("clcae-columns")

    def _make_buttons(self) -> None:
        travels = {
            "Undo": "Undo the last change",
            "Redo": "Redo the change that was undone",
            "Reset": "Return to the first state",
        }
        self.undo, self.redo, self.reset = (
            button(name, text, self._guarded(partial(self._step_in_history, name.lower())))
            for name, text in travels.items()
        )
        self._history_buttons = w.HBox([self.undo, self.redo, self.reset]).add_class("clcae-buttons")
        self.export_buttons = {
            kind: button(text, f"Prepare the {text} for saving", self._guarded(partial(self._export, kind)))
            for kind, (text, _) in _FILES.items()
        }
        self.load = file_upload(".json", "Load a state", "a state saved before, as JSON")
        self._watch(self.load, self._on_load)
        self.saved = w.HTML()
        kinds = w.HBox(list(self.export_buttons.values())).add_class("clcae-buttons")
        self._exports = w.VBox([w.HTML("<b>Save</b>"), kinds, self.saved, self.load])
        self.snippet = w.Textarea(tooltip="Python that draws this image again", rows=9)
        self.snippet.add_class("clcae-snippet")
        self.copy = w.Button(description="Copy", tooltip="Copy the Python to the clipboard")
        self.copy.add_class("clcae-copy")
        self._snippet_box = w.VBox([w.HTML("<b>The same in Python</b>"), self.snippet, self.copy])

    def _guarded(self, action: Callable[[], None]) -> Callable[..., None]:
        """Return a callback that holds the lock and shows its errors in the status line."""

        def call(*_: Any) -> None:
            with self._lock:
                try:
                    action()
                except Exception as error:
                    self.views.say(str(as_sentence(error)), error=True)

        return call

    def _watch(self, upload: w.FileUpload, use: Callable[[str, bytes], None]) -> None:
        """Use each file that an upload widget gets; report a file that the browser did not send."""

        def take() -> None:
            if not upload.value:
                return
            file, upload.value = upload.value[0], ()
            name, content = str(file.get("name", "")), file["content"]
            check_size(memoryview(content).nbytes, "This file")  # before a copy is made
            use(name, bytes(content))

        def refuse() -> None:
            limit = MAX_BYTES // 1_000_000
            raise ExplorerError(f"This file has more than {limit} MB, so it was not sent: make it smaller.")

        upload.observe(self._guarded(take), names="value")
        upload.observe(self._guarded(refuse), names="error")

    def _later(
        self, name: str, make: Callable[[], Made], show: Callable[[Made], None], *, after: float = 0.0
    ) -> None:
        """Call `make` in the worker's thread and then, under the lock, `show` with its result."""

        def job() -> None:
            try:
                made = make()
            except Exception as error:
                self._guarded(partial(self._failed, name, as_sentence(error)))()
            else:
                self._guarded(partial(show, made))()

        self.worker.do(name, job, after=after)

    def _failed(self, name: str, error: ClcaeError) -> None:
        """Report an error, and set the controls back to the current state and its world."""
        self._undrawn = name in ("image", "frame")
        self.controls.show(self.history.state)
        raise error

    def _on_controls(self) -> None:
        if self.controls.quiet:
            return
        state = self.controls.read()
        if state.world != self.studio.world.name:
            self.views.say(f"Opening the world {state.world}; the first time this takes a minute.")
            self._later("world", partial(self._open, state.world), self._change_world)
            return
        self._step(state)

    def _open(self, name: str) -> Studio:
        return self._studios.get(name) or Studio.open(name, device=self._device)

    def _change_world(self, studio: Studio) -> None:
        self._studios[studio.world.name] = studio
        self._use(studio, studio.first)

    def _step(self, state: State) -> None:
        self.history.push(state)
        self._clear_error()
        self._draw(state)

    def _step_in_history(self, step: str) -> None:
        state = getattr(self.history, step)()
        self._clear_error()
        self.controls.show(state)
        self._draw(state)

    def _draw(self, state: State) -> None:
        self.undo.disabled, self.redo.disabled = not self.history.can_undo, not self.history.can_redo
        studio = self.studio
        preview = studio.side > LARGE and studio.device.type == "cpu"
        make = partial(studio.image, state, side=PREVIEW if preview else None)
        self.worker.drop("frame")
        self._later("image", make, partial(self._show_image, studio, state))

    def _show_image(self, studio: Studio, state: State, image: Pixels) -> None:
        self.views.show_image(image)
        if self._undrawn:  # a message about an upload stays until the next step
            self._clear_error()
        if state == self.state:  # else a newer state will be drawn
            show = partial(self._show_frame, state)
            self._later("frame", partial(studio.frame, state), show, after=self._rest)

    def _show_frame(self, state: State, frame: Frame) -> None:
        self.views.show_frame(frame, asked=tuple(state.edits))
        self.snippet.value = export.snippet(state)

    def _clear_error(self) -> None:
        if self.views.failed:
            self._undrawn = False
            self.views.say(_READY)

    def _turn_page(self, by: int) -> None:
        studio, size = self.studio, self.studio.gallery_size
        self._page = max(0, min(self._page + by, (size - 1) // THUMBNAILS * THUMBNAILS))
        indices = range(self._page, min(self._page + THUMBNAILS, size))
        make = partial(studio.thumbnails, indices) if len(indices) else list
        self._later("thumbnails", make, partial(self._show_thumbnails, indices))

    def _show_thumbnails(self, indices: range, images: list[Pixels]) -> None:
        self.controls.thumbnails.children = [
            thumbnail(image, index, partial(self._choose, index))
            for image, index in zip(images, indices, strict=True)
        ]

    def _choose(self, index: int) -> None:
        self.controls.index.value = index
        self.controls.source.value = "gallery"

    def _on_upload(self, name: str, data: bytes) -> None:
        self.views.say("Looking for the face in your image …")
        self._uploaded = name, data
        self._cut_upload(self.studio.world.find_crop)
        show = partial(self.controls.marking.show, name=name)
        self._later("photograph", partial(open_upload, data, name=name), show)

    def _cut_upload(self, place: Callable[[Path, Image.Image], Crop]) -> None:
        name, data = self._uploaded
        make = partial(read_upload, data, name=name, side=self.studio.side, align=place)
        self._later("upload", make, self._show_upload)

    def _on_marks(self) -> None:
        """Cut the uploaded photograph around the face that the visitor has marked."""
        if (face := self.controls.marking.face) is not None:
            framing = {"side": self.studio.side, "widen": self.studio.world.widen}
            self._cut_upload(lambda _, image: align(face, image.size, **framing))

    def _show_upload(self, image: Pixels) -> None:
        self.controls.upload_text, self.controls.source.value = as_text(image), "upload"
        self.views.say(_READY)
        self._on_controls()

    def _on_load(self, name: str, data: bytes) -> None:
        del name
        if len(data) > MAX_JSON:
            raise ExplorerError("This file is too large for a state; load one that the explorer saved.")
        state = State.from_json(data.decode("utf-8", errors="replace"))
        self.studio.check(state)
        if state.method not in self.controls.method.options:
            raise ExplorerError(f"{state.method}: the world {state.world} has no such method.")
        self.controls.show(state)
        self._step(state)

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
        """Show a link that saves a file from inside the page; nothing is written on the server."""
        address = f"data:{_FILES[kind][1]};base64,{base64.b64encode(data).decode('ascii')}"
        name = f"explorer.{kind}"
        text = f"Save {name} ({max(1, round(len(data) / 1000))} kB)"
        self.saved.value = f'<a class="clcae-save" download="{name}" href="{address}">{text}</a>'
        self.views.say(f"The {kind} file is ready: press its link to save it.")


def as_sentence(error: Exception) -> ClcaeError:
    """Return an error in a form for visitors; a bug is logged with its traceback."""
    if isinstance(error, ClcaeError):
        return error
    _log.error("A fault in the explorer", exc_info=error)
    kind = type(error).__name__
    return ExplorerError(f"An unexpected error occurred ({kind}); the last image stays. Try Reset.")
