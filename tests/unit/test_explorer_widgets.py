"""Every control of the explorer without a browser: its value goes into the state, and the picture follows."""

import asyncio
import base64
import io
import json
import os
import threading
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tornado.web import HTTPError

from clcae_lib.explorer import app, server
from clcae_lib.explorer.app import Explorer
from clcae_lib.explorer.server import configuration, write_page
from clcae_lib.explorer.state import ExplorerError, State
from clcae_lib.explorer.widgets import readout_table
from tests.unit._explorer import open_studio

WORLD = "tiny"


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield open_studio(patch, tmp_path_factory.mktemp("world"))


@pytest.fixture
def explorer(studio):
    shown = Explorer(studio, state=State(world=WORLD, seed=2), rest=0.02)
    assert shown.wait()
    yield shown
    shown.close()


def settle(explorer):
    assert explorer.wait()
    return explorer.views.after.value, explorer.views.status.value


def key(explorer):
    return next(iter(explorer.controls.sliders))


def seen(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_what_is_shown_is_what_the_renderer_draws(explorer):
    picture, status = settle(explorer)
    assert np.array_equal(seen(picture), explorer.studio.picture(explorer.state))
    assert "clcae-error" not in status
    assert "State(" in explorer.snippet.value


@pytest.mark.parametrize(
    ("control", "value", "field", "expected"),
    [
        ("seed", 7, "seed", 7),
        ("source", "gallery", "source", "gallery"),
        ("truncation", 0.2, "truncation", 0.2),
        ("mix", True, "mix_seed", 1),
    ],
)
def test_a_control_changes_state_and_picture(explorer, control, value, field, expected):
    before, _ = settle(explorer)
    getattr(explorer.controls, control).value = value
    after, status = settle(explorer)
    assert "clcae-error" not in status
    assert getattr(explorer.state, field) == expected
    assert after != before
    assert np.array_equal(seen(after), explorer.studio.picture(explorer.state))


def test_every_slider_makes_an_edit_and_zero_takes_it_away(explorer):
    before, _ = settle(explorer)
    for name, slider in explorer.controls.sliders.items():
        slider.value = 2.0
        after, status = settle(explorer)
        assert dict(explorer.state.edits) == {name: 2.0}
        assert "clcae-error" not in status
        assert after != before, name
        slider.value = 0.0
    assert settle(explorer)[0] == before


def test_gallery_method_and_space_reach_the_renderer(explorer):
    controls = explorer.controls
    controls.thumbnails.children[1].children[1].click()
    assert (explorer.state.source, explorer.state.index) == ("gallery", 1)
    pictures = {}
    for space in ("w", "w_plus", "f"):
        controls.space.value = space
        pictures[space], status = settle(explorer)
        assert explorer.state.space == space
        assert "clcae-error" not in status
    assert pictures["w"] != pictures["f"]
    controls.later.click()
    settle(explorer)
    for method in controls.method.options:
        controls.method.value = method
        assert explorer.state.method == method


def test_mixed_rows_and_lock_and_strip_reach_the_renderer(explorer):
    controls = explorer.controls
    controls.mix.value = True
    controls.mix_seed.value, controls.mix_layers.value = 5, (0, 1)
    assert (explorer.state.mix_seed, explorer.state.mix_layers) == (5, (0, 1))
    controls.lock_identity.value = True
    assert explorer.state.lock_identity is True
    controls.lock_identity.value = False
    controls.strip.value, controls.strip_range.value = key(explorer), 1.5
    _, status = settle(explorer)
    assert "clcae-error" not in status
    strip = explorer.views.strip.children
    assert "-1.5" in strip[0].children[1].value
    assert len({box.children[0].value for box in strip}) == len(strip) == 5


def test_undo_redo_and_reset_move_controls_and_picture(explorer):
    first, _ = settle(explorer)
    slider = explorer.controls.sliders[key(explorer)]
    for value in np.linspace(0.1, 2.0, 20):
        slider.value = float(value)
    second, _ = settle(explorer)
    assert second != first
    explorer.undo.click()
    assert settle(explorer)[0] == first
    assert slider.value == 0, "one undo takes the whole drag back"
    assert explorer.undo.disabled
    explorer.redo.click()
    assert settle(explorer)[0] == second
    assert slider.value == 2.0
    explorer.reset.click()
    assert settle(explorer)[0] == first


def upload(explorer, name, data, widget=None):
    widget = widget or explorer.controls.upload
    file = {"name": name, "type": "image/png", "size": len(data), "content": memoryview(data)}
    widget.value = ({**file, "last_modified": datetime(2026, 1, 1)},)
    return settle(explorer)


def picture_file(seed=0, kind="PNG"):
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, format=kind)
    return file.getvalue()


def test_an_upload_is_shown_and_another_one_too(explorer):
    before, _ = settle(explorer)
    first, status = upload(explorer, "me.png", picture_file(0))
    assert "clcae-error" not in status
    assert explorer.state.source == "upload"
    assert explorer.controls.source.value == "upload"
    second, _ = upload(explorer, "me.png", picture_file(1))
    assert len({before, first, second}) == 3


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("face.png", b"#!/bin/sh\necho owned"),
        ("<img src=x onerror=alert(1)>.png", b"<script>alert(1)</script>"),
        ("cut.png", picture_file()[:60]),
        ("huge.png", b"\x89PNG\r\n\x1a\n" + bytes(9_000_000)),
    ],
    ids=["script", "markup", "cut", "huge"],
)
def test_a_bad_upload_is_refused_in_a_sentence_without_its_markup(explorer, name, data):
    before, _ = settle(explorer)
    after, status = upload(explorer, name, data)
    assert "clcae-error" in status
    assert "<img" not in status
    assert "<script" not in status
    assert after == before


def test_a_file_that_the_browser_held_back_is_told_too(explorer):
    explorer.controls.upload.error = "100000000 bytes"
    assert "more than 8 MB" in settle(explorer)[1]


def test_exports_are_whole_files(explorer):
    explorer.controls.sliders[key(explorer)].value = 1.0
    starts = {"png": b"\x89PNG", "gif": b"GIF8", "json": b"{", "safetensors": b""}
    for kind, button in explorer.export_buttons.items():
        button.click()
        _, status = settle(explorer)
        assert f"The {kind} file is ready" in status
        data = base64.b64decode(explorer.saved.value.split("base64,")[1].split('"')[0])
        assert data.startswith(starts[kind])
        assert f'download="explorer.{kind}"' in explorer.saved.value
        if kind == "json":
            assert State.from_json(data.decode()) == explorer.state


def test_a_saved_state_loads_and_a_foreign_one_is_refused(explorer):
    kept = State(world=WORLD, seed=5, edits={key(explorer): -1.0})
    _, status = upload(explorer, "s.json", kept.to_json().encode(), explorer.load)
    assert "clcae-error" not in status
    assert explorer.state == kept
    assert explorer.controls.sliders[key(explorer)].value == -1.0
    for text in ("no json", json.dumps({"sneed": 1}), json.dumps({"world": WORLD, "edits": {"<b>": 1}})):
        _, status = upload(explorer, "s.json", text.encode(), explorer.load)
        assert "clcae-error" in status
        assert "<b>" not in status
    _, status = upload(
        explorer, "s.json", State(world=WORLD, edits={"none": 1}).to_json().encode(), explorer.load
    )
    assert "no such control" in status
    assert explorer.state == kept


def test_an_error_of_the_renderer_and_a_fault_in_a_callback_reach_the_status_line(explorer, monkeypatch):
    def fail(state):
        raise ExplorerError("the <em>lamp</em> is broken")

    monkeypatch.setattr(explorer.studio, "picture", fail)
    explorer.controls.seed.value = 9
    _, status = settle(explorer)
    assert "the &lt;em&gt;lamp&lt;/em&gt; is broken" in status
    monkeypatch.setattr(explorer.controls, "read", lambda: 1 / 0)
    explorer.controls.seed.value = 10
    assert "ZeroDivisionError" in explorer.views.status.value


def test_another_world_is_opened_and_one_that_cannot_be_is_told(explorer):
    explorer.controls.world.options = (WORLD, "nowhere")

    def refuse(name, *, device):
        raise ExplorerError(f"There is no world {name}.")

    explorer._open = refuse
    explorer.controls.world.value = "nowhere"
    _, status = settle(explorer)
    assert "There is no world nowhere" in status
    assert explorer.controls.world.value == WORLD


def test_a_change_waits_until_the_worker_has_shown_an_upload(explorer):
    settle(explorer)
    slider, done, early = explorer.controls.sliders[key(explorer)], threading.Event(), []

    def drag():
        slider.value = 1.0
        done.set()

    def halfway(_):
        assert threading.current_thread() is not threading.main_thread()
        threading.Thread(target=drag).start()
        early.append(done.wait(0.3))

    explorer.controls.source.observe(halfway, names="value")
    upload(explorer, "me.png", picture_file(0))
    assert done.wait(10)
    picture, status = settle(explorer)
    assert early == [False], "the slider changed the state while the upload did"
    assert "clcae-error" not in status
    assert explorer.state.source == "upload"
    assert dict(explorer.state.edits) == {key(explorer): 1.0}
    assert np.array_equal(seen(picture), explorer.studio.picture(explorer.state))


def test_controls_can_be_used_while_another_world_is_opened(explorer):
    gate = threading.Event()
    explorer.controls.world.options = (WORLD, "nowhere")

    def refuse(name, *, device):
        assert gate.wait(30)
        raise ExplorerError(f"There is no world {name}.")

    explorer._open = refuse
    explorer.controls.world.value = "nowhere"
    explorer.controls.world.value = WORLD
    explorer.controls.seed.value = 11
    assert explorer.state.seed == 11
    assert explorer.worker.wait(0.01) is False
    gate.set()
    assert "There is no world nowhere" in settle(explorer)[1]
    assert explorer.state.seed == 11


def test_serving_leaves_the_environment_as_it_was(monkeypatch):
    def launch(*_, **__):
        assert "voila" in os.environ["JUPYTER_PATH"] or "explorer" in os.environ["JUPYTER_PATH"]
        raise KeyboardInterrupt

    monkeypatch.setattr("clcae_lib.explorer.studio.Studio.open", lambda *_, **__: None)
    monkeypatch.setattr("voila.app.Voila.launch_instance", launch)
    for before in (None, "/somewhere"):
        monkeypatch.delenv("JUPYTER_PATH", raising=False)
        if before:
            monkeypatch.setenv("JUPYTER_PATH", before)
        with pytest.raises(KeyboardInterrupt):
            server.serve("portraits")
        assert os.environ.get("JUPYTER_PATH") == before


def test_every_control_has_a_name(explorer):
    for control in explorer.controls._inputs():
        assert control.description
    for button in (
        explorer.undo,
        explorer.redo,
        explorer.reset,
        explorer.copy,
        *explorer.export_buttons.values(),
    ):
        assert button.description
        assert button.tooltip


def test_a_readout_escapes_what_it_shows(explorer):
    table = pd.DataFrame({"before": [0.0], "after": [1.0], "change": [1.0]}, index=["<script>"])
    assert "<script>" not in readout_table(table)
    assert "no oracle" in readout_table(None)


def test_the_server_is_local_limited_and_capped(tmp_path):
    config = configuration(host="127.0.0.1", port=1, visitors=2, idle=60, folder=tmp_path)
    assert config.Voila.ip == "127.0.0.1"
    assert config.Voila.tornado_settings["websocket_max_message_size"] <= 10_000_000
    assert config.MappingKernelManager.cull_idle_timeout == 60
    assert config.VoilaConfiguration.file_allowlist == []
    assert config.CappedKernels.visitors == 2


def test_visitors_who_come_at_the_same_instant_do_not_pass_the_cap_together(monkeypatch):
    kernels, running = server.CappedKernels(visitors=2), []
    monkeypatch.setattr(kernels, "list_kernel_ids", lambda: list(running))

    async def start(self, **_):
        await asyncio.sleep(0.01)
        running.append(str(len(running)))
        return running[-1]

    monkeypatch.setattr(server.AsyncMappingKernelManager, "start_kernel", start)

    async def arrive(count):
        return await asyncio.gather(*(kernels.start_kernel() for _ in range(count)), return_exceptions=True)

    *served, turned_away = asyncio.run(arrive(3))
    assert served == ["0", "1"]
    assert isinstance(turned_away, HTTPError)
    assert "All 2 places are taken" in str(turned_away)
    running.pop()
    assert asyncio.run(arrive(2))[0] == "1"


def test_a_large_picture_is_previewed_while_a_slider_moves_and_whole_at_rest(studio, monkeypatch):
    monkeypatch.setattr(app, "LARGE", 16)
    monkeypatch.setattr(app, "PREVIEW", 8)
    shown = Explorer(studio, state=State(world=WORLD, seed=2), rest=0.05)
    assert shown.wait()
    sides = []
    shown.views.after.observe(lambda change: sides.append(len(seen(change["new"]))), names="value")
    shown.controls.sliders[key(shown)].value = 1.0
    picture, _ = settle(shown)
    assert sides == [8, studio.side]
    assert np.array_equal(seen(picture), studio.picture(shown.state))
    shown.close()


def test_the_page_runs_nothing_that_a_visitor_wrote(tmp_path):
    page = json.loads(write_page(tmp_path, world="a'; import os", device="cpu").read_text())
    source = "".join(page["cells"][0]["source"])
    compile(source, "page", "exec")
    assert """"a'; import os\"""" in source
