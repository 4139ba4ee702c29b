"""The explorer's widgets: controls that set a `State`, and views of its images and measures.

No image is computed here; the spaces and edits are the paper's (arXiv 2211.11448, sections 3 and 4.3). Text
that may come from a visitor is escaped before it is shown.
"""

import html
from collections.abc import Callable, Sequence

import ipywidgets as w
import numpy as np
import pandas as pd

from clcae_lib.explorer.marking import Marking
from clcae_lib.explorer.state import State
from clcae_lib.explorer.studio import Frame, Pixels, Studio
from clcae_lib.explorer.uploads import as_png
from clcae_lib.spaces import SPACE_LABELS
from clcae_lib.worlds import world_names

REACH = 3.0
"""Range of sliders in standard deviations, plus and minus; a loaded state may extend it."""
THUMBNAILS = 8
ROWS_SHOWN = 12
_SEED = 2**31 - 1
_SAME_NAME = (
    *("world", "source", "seed", "index", "method", "space"),
    *("truncation", "lock_identity", "strip", "strip_range"),
)
"""Controls whose value is the state's field of the same name."""


class ControlPanel:
    """All controls of one studio; `changed` is called when a control changes.

    Attributes:
        sliders: sliders by the key of their control.
        inputs: every control that sets a part of the state.
        tabs: the widget that shows all controls.
        quiet: whether `show` is setting the controls, so that a change is not the visitor's.
    """

    def __init__(self, studio: Studio, changed: Callable[[], None]) -> None:
        self.studio, self.quiet = studio, False
        self.upload_text: str | None = None
        panels = {
            "Source": self._make_source(),
            "Directions": self._make_edits(),
            "Components": [*self._group("GANSpace"), *self._group("SeFa")],
            "Mix": self._make_mix(),
            "Strip": self._make_strip(),
        }
        boxes = [w.VBox(panel).add_class("clcae-panel") for panel in panels.values()]
        for box in boxes[1:3]:
            box.add_class("clcae-scroll")
        self.tabs = w.Tab(boxes, titles=list(panels), selected_index=1)
        self.inputs: list[w.Widget] = [
            *(getattr(self, name) for name in _SAME_NAME),
            *(self.mix, self.mix_seed, self.mix_layers),
            *self.sliders.values(),
        ]
        for control in self.inputs:
            control.observe(lambda _: changed(), names="value")

    def read(self) -> State:
        """Return the state that the controls describe."""
        mixed = self.mix.value and bool(self.mix_layers.value)
        return State(
            **{name: getattr(self, name).value for name in _SAME_NAME},
            upload=self.upload_text,
            edits={key: round(slider.value, 4) for key, slider in self.sliders.items()},
            mix_seed=self.mix_seed.value if mixed else None,
            mix_layers=tuple(self.mix_layers.value) if mixed else (),
        )

    def show(self, state: State) -> None:
        """Set the controls to a state; `quiet` is true while it does."""
        self.quiet = True
        try:
            self.upload_text = state.upload
            for name in _SAME_NAME:
                getattr(self, name).value = getattr(state, name)
            self.mix.value = state.mix_seed is not None
            if state.mix_seed is not None:
                self.mix_seed.value, self.mix_layers.value = state.mix_seed, state.mix_layers
            for key, slider in self.sliders.items():
                strength = state.edits.get(key, 0.0)
                reach = max(REACH, abs(strength))
                slider.min, slider.max = -reach, reach
                slider.value = strength
        finally:
            self.quiet = False

    def _make_source(self) -> list[w.Widget]:
        studio = self.studio
        worlds = tuple(dict.fromkeys((studio.world.name, *world_names())))
        self.world = w.Dropdown(options=worlds, **_named("World"))
        kinds = [("a seed", "seed"), ("the gallery", "gallery"), ("an upload", "upload")]
        self.source = w.Dropdown(options=kinds, **_named("Image from"))
        self.seed = w.BoundedIntText(0, min=0, max=_SEED, **_named("Seed"))
        last = max(0, studio.gallery_size - 1)
        self.index = w.BoundedIntText(0, min=0, max=last, **_named("Gallery number"))
        self.method = w.Dropdown(options=studio.methods or (State().method,), **_named("Inverted by"))
        spaces = [(label, space) for space, label in SPACE_LABELS.items()]
        self.space = w.Dropdown(options=spaces, value="f", **_named("Decoded from"))
        limits = "PNG, JPEG, WebP or AVIF; cut around its face, or else its centre; it is not stored"
        self.upload = file_upload(".png,.jpg,.jpeg,.webp,.avif", "Upload an image", limits)
        self.marking = Marking()
        self.thumbnails = w.HBox([]).add_class("clcae-thumbs")
        self.earlier, self.later = (
            w.Button(description=text, tooltip=f"{text} images") for text in ("Previous", "Next")
        )
        paging = w.HBox([self.earlier, self.later]).add_class("clcae-buttons")
        return [
            *(self.world, self.source, self.seed, self.index, self.thumbnails, paging),
            *(self.upload, self.marking.box, self.method, self.space),
        ]

    def _make_edits(self) -> list[w.Widget]:
        span = {"value": 0, "min": -REACH, "max": REACH, "step": 0.05, "readout_format": "+.2f"}
        self.sliders = {
            key: w.FloatSlider(**span, **_named(control.label, control.text))
            for key, control in self.studio.controls.items()
        }
        text = "share of the distance from the mean face"
        self.truncation = w.FloatSlider(value=1, min=0, max=1, step=0.02, **_named("truncation", text))
        self.lock_identity = _checkbox("Lock identity", "remove from edits what changes the person")
        left_out = [w.HTML(f"<p>Not used: {html.escape(text)}</p>") for text in self.studio.left_out]
        return [self.lock_identity, self.truncation, *self._group("directions"), *left_out]

    def _make_mix(self) -> list[w.Widget]:
        rows = range(self.studio.rows)
        self.mix = _checkbox("Mix with another face")
        self.mix_seed = w.BoundedIntText(1, min=0, max=_SEED, **_named("Its seed"))
        self.mix_layers = w.SelectMultiple(
            options=[(f"row {row} of W+", row) for row in rows],
            value=tuple(rows[len(rows) // 2 :]),
            rows=min(len(rows), 12),
            **_named("Rows taken from it", "early rows: pose and shape; late rows: colours"),
        )
        return [self.mix, self.mix_seed, self.mix_layers]

    def _make_strip(self) -> list[w.Widget]:
        chosen = [("none", None), *((c.label, key) for key, c in self.studio.controls.items())]
        self.strip = w.Dropdown(options=chosen, value=None, **_named("Show a range of"))
        span = {"value": 2, "min": 0.5, "max": REACH, "step": 0.25}
        self.strip_range = w.FloatSlider(**span, **_named("from minus to plus"))
        return [self.strip, self.strip_range]

    def _group(self, group: str) -> list[w.Widget]:
        keys = [key for key, control in self.studio.controls.items() if control.group == group]
        if not keys:
            other = "; try the components, or add a file (docs/explorer.md)" if group == "directions" else ""
            return [w.HTML(f"<p>This world has no {group}{other}.</p>")]
        title = {"directions": "Named; 1 is one standard deviation"}.get(group, f"{group}, without labels")
        return [w.HTML(f"<b>{title}</b>"), *(self.sliders[key] for key in keys)]


class Views:
    """The widgets that show results."""

    def __init__(self) -> None:
        self.after = _image("clcae-after")
        self.before, self.difference = _image("clcae-small"), _image("clcae-small")
        self.identity, self.readout = w.HTML(), w.HTML().add_class("clcae-readout")
        self.strip = w.HBox([]).add_class("clcae-strip")
        self.status, self.failed = w.HTML().add_class("clcae-status"), False

    def say(self, text: str, *, error: bool = False) -> None:
        """Show a sentence as plain text, which screen readers announce."""
        self.failed = error
        role, kind = ("alert", "clcae-error") if error else ("status", "")
        self.status.value = f'<p role="{role}" class="{kind}">{html.escape(text)}</p>'

    def show_image(self, image: Pixels) -> None:
        """Show only the edited image."""
        self.after.value = _packed(image)

    def show_frame(self, frame: Frame, *, asked: Sequence[str] = ()) -> None:
        """Show all of a frame; factors in `asked` are highlighted in the table."""
        self.show_image(frame.after)
        self.before.value, self.difference.value = _packed(frame.before), _packed(frame.difference)
        if len(self.strip.children) != len(frame.strip):
            self.strip.children = [captioned(_image("clcae-small"), "") for _ in frame.strip]
        for box, image, strength in zip(self.strip.children, frame.strip, frame.strip_strengths, strict=True):
            place, caption = box.children
            place.value, caption.value = _packed(image), _caption(f"{strength:+g} sd")
        self.readout.value = readout_table(frame.readout, asked)
        kept = "" if frame.identity is None else f"identity kept: {frame.identity:.2f} (1: unchanged)"
        self.identity.value = f'<span class="clcae-caption clcae-identity">{kept}</span>'


def captioned(image: w.Image, text: str) -> w.VBox:
    """Return an image with a line below it."""
    return w.VBox([image, w.HTML(_caption(text))]).add_class("clcae-captioned")


def thumbnail(image: Pixels, index: int, choose: Callable[[], None]) -> w.VBox:
    """Return an image of the gallery with the button that chooses it."""
    place = _image("clcae-thumb")
    place.value = _packed(image)
    return w.VBox([place, button(str(index), f"Use image {index} of the gallery", choose)])


def button(name: str, text: str, action: Callable[[], None]) -> w.Button:
    """Return a button with its tooltip and the action of a click."""
    made = w.Button(description=name, tooltip=text)
    made.on_click(lambda _: action())
    return made


def file_upload(accept: str, name: str, text: str) -> w.FileUpload:
    """Return a button that reads a file of these suffixes."""
    made = w.FileUpload(accept=accept, description=name, tooltip=text).add_class("clcae-upload")
    made.layout.width = "auto"
    return made


def readout_table(readout: pd.DataFrame | None, asked: Sequence[str] = ()) -> str:
    """Return an HTML table in standard deviations: the factors in `asked`, then those that changed most.

    Factors that are not reliable come last, in grey.
    """
    if readout is None:
        return _caption("This world has no attribute regressor, so no factor is read.")
    ranks = pd.DataFrame({"unasked": ~readout.index.isin(asked), "unreliable": ~readout["reliable"]})
    ranks["change"] = -readout["change"].abs()
    order = ranks.sort_values(list(ranks), kind="stable").index[:ROWS_SHOWN]
    rows = "".join(_row(name, readout.loc[name], name in asked) for name in order)
    heads = ("factor (sd)", "before", "after", "change", "")
    head = "".join(f'<th scope="col">{text}</th>' for text in heads)
    return f"<table><tr>{head}</tr>{rows}</table>"


def _row(name: str, values: pd.Series, asked: bool) -> str:
    change = float(values["change"])
    kind = "clcae-bar clcae-down" if change < 0 else "clcae-bar"
    bar = f'<span class="{kind}" style="width:{min(abs(change), 3) * 16:.0f}px"></span>'
    cells = f"<td>{values['before']:.2f}</td><td>{values['after']:.2f}</td><td>{change:+.2f}</td>"
    head = f'<th scope="row">{html.escape(str(name).replace("_", " "))}</th>'
    look = " ".join(["clcae-asked"] * asked + ["clcae-unreliable"] * (not values["reliable"]))
    return f'<tr class="{look}">{head}{cells}<td class="clcae-bars">{bar}</td></tr>'


def _packed(image: Pixels) -> bytes:
    """Return a PNG with fast compression, since it is sent only to a browser."""
    return as_png(image, level=1)


def _image(kind: str) -> w.Image:
    """Return an empty image widget; screen readers read its caption (a tooltip breaks ipywidgets 8.1)."""
    return w.Image(format="png", value=_packed(np.full((1, 1, 3), 232, np.uint8))).add_class(kind)


def _checkbox(name: str, text: str | None = None) -> w.Checkbox:
    return w.Checkbox(value=False, description=name, indent=False, tooltip=text)


def _caption(text: str) -> str:
    return f'<span class="clcae-caption">{html.escape(text)}</span>'


def _named(label: str, text: str | None = None) -> dict:
    return {"description": label, "tooltip": text or label, "style": {"description_width": "132px"}}
