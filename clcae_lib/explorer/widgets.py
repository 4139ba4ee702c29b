"""The explorer's widgets: controls that make a `State`, and views that show what became of it.

Nothing here draws or computes; the spaces and the edits offered are the paper's (arXiv 2211.11448, sections 3
and 4.3). A text that may come from a visitor is escaped before it is shown.
"""

import html
import io
from collections.abc import Callable, Sequence

import ipywidgets as w
import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image

from clcae_lib.explorer.state import State
from clcae_lib.explorer.studio import Frame, Studio

Picture = UInt8[np.ndarray, "h w 3"]
SPACES = (("W", "w"), ("W+", "w_plus"), ("F", "f"))
REACH = 3.0
"""Sliders go this many standard deviations each way; a loaded state may widen one."""
THUMBNAILS = 8
ROWS_SHOWN = 12
_LABEL = {"description_width": "132px"}
_SEED = 2**31 - 1


class Controls:
    """Every control of one studio.

    Args:
        studio: tells what can be chosen.
        changed: called after a control changed.

    Attributes:
        sliders: by the key of their control.
        tabs: all of it, to be shown.
        quiet: whether `show` sets the controls; what `changed` is then told is no visitor's wish.
    """

    def __init__(self, studio: Studio, changed: Callable[[], None]) -> None:
        self.studio, self.quiet = studio, False
        self.upload_text: str | None = None
        self._make_source()
        self._make_edits()
        self._make_mix()
        self._make_strip()
        for control in self._inputs():
            control.observe(lambda _: changed(), names="value")
        self.tabs = _tabs(
            {
                "Source": w.VBox(self.source_panel),
                "Directions": w.VBox([self.lock_identity, self.truncation, *self._group("directions")]),
                "Components": w.VBox([*self._group("GANSpace"), *self._group("SeFa")]),
                "Mix": w.VBox(self.mix_panel),
                "Strip": w.VBox([self.strip, self.strip_range]),
            }
        )

    def read(self) -> State:
        """The state that the controls stand for."""
        mixed = self.mix.value and bool(self.mix_layers.value)
        return State(
            world=self.world.value,
            source=self.source.value,
            seed=self.seed.value,
            index=self.index.value,
            upload=self.upload_text,
            method=self.method.value,
            space=self.space.value,
            truncation=self.truncation.value,
            edits={key: round(slider.value, 4) for key, slider in self.sliders.items()},
            mix_seed=self.mix_seed.value if mixed else None,
            mix_layers=tuple(self.mix_layers.value) if mixed else (),
            lock_identity=self.lock_identity.value,
            strip=self.strip.value,
            strip_range=self.strip_range.value,
        )

    def show(self, state: State) -> None:
        """Set the controls as a state has them; `quiet` meanwhile."""
        self.quiet = True
        try:
            self.upload_text = state.upload
            for name in (
                "world",
                "source",
                "seed",
                "index",
                "method",
                "space",
                "truncation",
                "lock_identity",
            ):
                getattr(self, name).value = getattr(state, name)
            self.lock_identity.value, self.mix.value = state.lock_identity, state.mix_seed is not None
            if state.mix_seed is not None:
                self.mix_seed.value, self.mix_layers.value = state.mix_seed, state.mix_layers
            self.strip_range.value, self.strip.value = state.strip_range, state.strip
            for key, slider in self.sliders.items():
                _set_slider(slider, state.edits.get(key, 0.0))
        finally:
            self.quiet = False

    def _inputs(self) -> list[w.Widget]:
        single = ("world", "source", "seed", "index", "method", "space", "truncation", "lock_identity")
        others = [self.mix, self.mix_seed, self.mix_layers, self.strip, self.strip_range]
        return [*(getattr(self, name) for name in single), *others, *self.sliders.values()]

    def _make_source(self) -> None:
        studio = self.studio
        methods = studio.methods or (State().method,)
        worlds = dict.fromkeys((studio.world.name, *studio.worlds))
        self.world = w.Dropdown(options=tuple(worlds), **_named("World"))
        kinds = [("a seed", "seed"), ("the gallery", "gallery"), ("an upload", "upload")]
        self.source = w.Dropdown(options=kinds, **_named("Picture from"))
        self.seed = w.BoundedIntText(0, min=0, max=_SEED, **_named("Seed"))
        self.index = w.BoundedIntText(
            0, min=0, max=max(0, studio.gallery_size - 1), **_named("Gallery number")
        )
        self.method = w.Dropdown(options=methods, **_named("Inverted by"))
        self.space = w.Dropdown(options=SPACES, value="f", **_named("Decoded from"))
        self.upload = w.FileUpload(
            accept=".png,.jpg,.jpeg,.webp",
            description="Upload a picture",
            tooltip="PNG, JPEG or WebP up to 8 MB; its face, or else its centre, is used, and it is not kept",
        )
        self.upload.add_class("clcae-upload").layout.width = "auto"
        self.thumbnails = w.HBox([]).add_class("clcae-thumbs")
        self.earlier, self.later = (
            w.Button(description=t, tooltip=f"{t} pictures") for t in ("Previous", "Next")
        )
        paging = w.HBox([self.earlier, self.later]).add_class("clcae-buttons")
        self.source_panel = [
            *(self.world, self.source, self.seed, self.index, self.thumbnails, paging),
            *(self.upload, self.method, self.space),
        ]

    def _make_edits(self) -> None:
        self.sliders = {
            key: w.FloatSlider(
                value=0,
                min=-REACH,
                max=REACH,
                step=0.05,
                readout_format="+.2f",
                **_named(control.label, control.text),
            )
            for key, control in self.studio.controls.items()
        }
        self.truncation = w.FloatSlider(
            value=1,
            min=0,
            max=1,
            step=0.02,
            **_named("truncation", "how much is left of the way from the mean face"),
        )
        self.lock_identity = w.Checkbox(
            value=False,
            description="Lock identity",
            indent=False,
            tooltip="take out of edits what changes the person",
        )

    def _make_mix(self) -> None:
        rows = range(self.studio.rows)
        self.mix = w.Checkbox(value=False, description="Mix with another face", indent=False)
        self.mix_seed = w.BoundedIntText(1, min=0, max=_SEED, **_named("Its seed"))
        self.mix_layers = w.SelectMultiple(
            options=[(f"row {row} of W+", row) for row in rows],
            value=tuple(rows[len(rows) // 2 :]),
            rows=min(len(rows), 12),
            **_named("Rows taken from it", "early rows: pose and shape; late rows: colours"),
        )
        self.mix_panel = [self.mix, self.mix_seed, self.mix_layers]

    def _make_strip(self) -> None:
        chosen = [("none", None), *((c.label, key) for key, c in self.studio.controls.items())]
        self.strip = w.Dropdown(options=chosen, value=None, **_named("Show a range of"))
        self.strip_range = w.FloatSlider(
            value=2, min=0.5, max=REACH, step=0.25, **_named("from minus to plus")
        )

    def _group(self, group: str) -> list[w.Widget]:
        keys = [key for key, control in self.studio.controls.items() if control.group == group]
        if not keys:
            return [w.HTML(f"<p>This world has no {html.escape(group)}.</p>")]
        title = {"directions": "Named; 1 is one standard deviation"}.get(group, f"{group}, without labels")
        return [w.HTML(f"<b>{html.escape(title)}</b>"), *(self.sliders[key] for key in keys)]


class Views:
    """Where results appear."""

    def __init__(self) -> None:
        self.after, self.before, self.difference = (
            _image("clcae-after"),
            _image("clcae-small"),
            _image("clcae-small"),
        )
        self.identity, self.readout = w.HTML(), w.HTML().add_class("clcae-readout")
        self.strip = w.HBox([]).add_class("clcae-strip")
        self.status, self.failed = w.HTML().add_class("clcae-status"), False

    def say(self, text: str, *, error: bool = False) -> None:
        """Show a sentence as plain text; screen readers read it out."""
        self.failed = error
        role, kind = ("alert", "clcae-error") if error else ("status", "")
        self.status.value = f'<p role="{role}" class="{kind}">{html.escape(text)}</p>'

    def show_picture(self, picture: Picture) -> None:
        """Show the edited picture alone."""
        self.after.value = png_bytes(picture)

    def show_frame(self, frame: Frame, *, asked: Sequence[str] = ()) -> None:
        """Show everything; factors named in `asked` stand out in the table."""
        self.show_picture(frame.after)
        self.before.value, self.difference.value = png_bytes(frame.before), png_bytes(frame.difference)
        self._show_strip(frame)
        self.readout.value = readout_table(frame.readout, asked)
        kept = "" if frame.identity is None else f"identity kept: {frame.identity:.2f} (1 is all of it)"
        self.identity.value = f'<span class="clcae-caption clcae-identity">{kept}</span>'

    def _show_strip(self, frame: Frame) -> None:
        if len(self.strip.children) != len(frame.strip):
            self.strip.children = [captioned(_image("clcae-small"), "") for _ in frame.strip]
        for box, picture, strength in zip(
            self.strip.children, frame.strip, frame.strip_strengths, strict=True
        ):
            image, caption = box.children
            image.value, caption.value = png_bytes(picture), _caption(f"{strength:+g} sd")


def captioned(image: w.Image, text: str) -> w.VBox:
    """A picture with a line below it."""
    return w.VBox([image, w.HTML(_caption(text))]).add_class("clcae-captioned")


def thumbnail(picture: Picture, index: int, chosen: Callable[[int], None]) -> w.VBox:
    """A picture of the gallery with the button that chooses it."""
    image = _image("clcae-thumb")
    image.value = png_bytes(picture)
    button = w.Button(description=str(index), tooltip=f"Take picture {index} of the gallery")
    button.on_click(lambda _: chosen(index))
    return w.VBox([image, button])


def png_bytes(picture: Picture) -> bytes:
    """A picture as PNG, packed fast rather than tight: it goes to a browser nearby."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def readout_table(readout: pd.DataFrame | None, asked: Sequence[str] = ()) -> str:
    """The factors that changed most as an HTML table, in standard deviations."""
    if readout is None:
        return _caption("This world has no oracle, so factors are not read.")
    order = readout["change"].abs().sort_values(ascending=False, kind="stable").index[:ROWS_SHOWN]
    rows = "".join(_row(name, readout.loc[name], name in asked) for name in order)
    head = '<tr><th scope="col">factor (sd)</th><th scope="col">before</th><th scope="col">after</th>'
    return f'<table>{head}<th scope="col">change</th><th scope="col"></th></tr>{rows}</table>'


def _row(name: str, values: pd.Series, asked: bool) -> str:
    change = float(values["change"])
    kind = "clcae-bar clcae-down" if change < 0 else "clcae-bar"
    bar = f'<span class="{kind}" style="width:{min(abs(change), 3) * 16:.0f}px"></span>'
    cells = f"<td>{values['before']:.2f}</td><td>{values['after']:.2f}</td><td>{change:+.2f}</td>"
    head = f'<th scope="row">{html.escape(str(name).replace("_", " "))}</th>'
    return f'<tr class="{"clcae-asked" if asked else ""}">{head}{cells}<td class="clcae-bars">{bar}</td></tr>'


def _image(kind: str) -> w.Image:
    """A place for a picture; screen readers say the caption below it (a tooltip breaks ipywidgets 8.1)."""
    return w.Image(format="png", value=png_bytes(np.full((1, 1, 3), 232, np.uint8))).add_class(kind)


def _caption(text: str) -> str:
    return f'<span class="clcae-caption">{html.escape(text)}</span>'


def _named(label: str, text: str | None = None) -> dict:
    return {"description": label, "tooltip": text or label, "style": _LABEL}


def _set_slider(slider: w.FloatSlider, value: float) -> None:
    reach = max(REACH, abs(value))
    slider.min, slider.max = -reach, reach
    slider.value = value


def _tabs(panels: dict[str, w.VBox]) -> w.Tab:
    for name, panel in panels.items():
        panel.add_class("clcae-panel")
        if name in ("Directions", "Components"):
            panel.add_class("clcae-scroll")
    return w.Tab(list(panels.values()), titles=list(panels), selected_index=1)
