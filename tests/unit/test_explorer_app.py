"""Every control of the explorer without a browser: its value goes into the state, and the image follows."""

import asyncio
import base64
import io
import json
import os
import re
import socket
import threading
from datetime import datetime
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tornado.web import HTTPError
from typer.testing import CliRunner

from clcae_lib.cli import app as cli
from clcae_lib.cli.worlds import jupyter_entry
from clcae_lib.explorer import ExplorerError, State, Studio, app, from_text, server
from clcae_lib.explorer.app import Explorer
from clcae_lib.explorer.widgets import readout_table
from clcae_lib.explorer.worker import Worker
from tests.unit._explorer import SIDE, BareWorld, open_studio

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
    """Image and status line once everything is shown."""
    assert explorer.wait()
    return explorer.views.after.value, explorer.views.status.value


def key(explorer):
    return next(iter(explorer.controls.sliders))


def seen(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def test_what_is_shown_is_what_the_studio_draws(explorer):
    image, status = settle(explorer)
    assert np.array_equal(seen(image), explorer.studio.image(explorer.state))
    assert "clcae-error" not in status
    assert "State(" in explorer.snippet.value


def test_a_page_gets_the_first_state_with_its_widgets(studio, monkeypatch):
    shown = []
    monkeypatch.setattr(app, "display", lambda _: shown.append((explorer.snippet.value, explorer.wait(0))))
    explorer = Explorer(studio, state=State(world=WORLD, seed=2), rest=0.3)
    explorer.show()
    explorer.close()
    assert all("State(" in snippet and drawn for snippet, drawn in shown)
    assert shown


def test_every_input_changes_state_and_image(explorer):
    controls, first = explorer.controls, settle(explorer)[0]
    values = {
        **{"seed": (7, "seed", 7), "truncation": (0.2, "truncation", 0.2), "mix": (True, "mix_seed", 1)},
        **{"mix_seed": (5, "mix_seed", 5), "mix_layers": ((0, 1), "mix_layers", (0, 1))},
        **{"source": ("gallery", "source", "gallery"), "index": (3, "index", 3)},
        **{"space": ("w", "space", "w")},
    }
    for control, (value, field, expected) in values.items():
        before, _ = settle(explorer)
        getattr(controls, control).value = value
        after, status = settle(explorer)
        assert "clcae-error" not in status
        assert getattr(explorer.state, field) == expected
        assert after != before, control
        assert np.array_equal(seen(after), explorer.studio.image(explorer.state))
    explorer.reset.click()
    for name, slider in controls.sliders.items():
        slider.value = 2.0
        after, status = settle(explorer)
        assert dict(explorer.state.edits) == {name: 2.0}
        assert "clcae-error" not in status
        assert after != first, name
        slider.value = 0.0
    assert settle(explorer)[0] == first


def test_gallery_lock_and_strip_reach_the_studio(explorer):
    controls = explorer.controls
    controls.thumbnails.children[1].children[1].click()
    assert (explorer.state.source, explorer.state.index) == ("gallery", 1)
    controls.later.click()
    controls.lock_identity.value = True
    assert explorer.state.lock_identity is True
    controls.strip.value, controls.strip_range.value = key(explorer), 1.5
    _, status = settle(explorer)
    assert "clcae-error" not in status
    strip = explorer.views.strip.children
    assert "-1.5" in strip[0].children[1].value
    assert len({box.children[0].value for box in strip}) == len(strip) == 5


def test_undo_redo_and_reset_move_controls_and_image(explorer):
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


def image_file(seed=0):
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 255, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, format="PNG")
    return file.getvalue()


def test_an_upload_is_shown_and_another_one_too(explorer):
    before, _ = settle(explorer)
    first, status = upload(explorer, "me.png", image_file(0))
    assert "clcae-error" not in status
    assert explorer.state.source == explorer.controls.source.value == "upload"
    second, _ = upload(explorer, "me.png", image_file(1))
    assert len({before, first, second}) == 3


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("<img src=x onerror=alert(1)>.png", b"<script>alert(1)</script>"),
        ("huge.png", b"\x89PNG\r\n\x1a\n" + bytes(9_000_000)),
    ],
    ids=["markup", "huge"],
)
def test_a_bad_upload_is_refused_in_a_sentence_without_its_markup(explorer, name, data):
    before, _ = settle(explorer)
    after, status = upload(explorer, name, data)
    assert "clcae-error" in status
    assert "<img" not in status
    assert "<script" not in status
    assert after == before


def test_a_file_that_the_browser_held_back_is_reported(explorer):
    explorer.controls.upload.error = "100000000 bytes"
    assert "more than 8 MB" in settle(explorer)[1]


def test_exports_are_whole_files(explorer):
    explorer.controls.sliders[key(explorer)].value = 1.0
    starts = {"png": b"\x89PNG", "gif": b"GIF8", "json": b"{", "safetensors": b""}
    assert explorer.export_buttons.keys() == starts.keys()
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
    kept = State(world=WORLD, seed=5, edits={key(explorer): -4.0})
    _, status = upload(explorer, "s.json", kept.to_json().encode(), explorer.load)
    assert "clcae-error" not in status
    assert explorer.state == kept
    assert explorer.controls.sliders[key(explorer)].value == -4.0
    foreign = {
        "no json": "not valid JSON",
        json.dumps({"sneed": 1}): "sneed",
        json.dumps({"world": WORLD, "edits": {"<b>": 1}}): "short name",
        json.dumps({"world": WORLD, "edits": {"none": 1}}): "no such control",
        json.dumps({"world": WORLD, "method": "published"}): "no such method",
        json.dumps({"world": WORLD, "mix_seed": 1, "mix_layers": [8]}): "rows 0 to 7",
    }
    for text, said in foreign.items():
        _, status = upload(explorer, "s.json", text.encode(), explorer.load)
        assert said in status
        assert "clcae-error" in status
        assert "<b>" not in status
    assert explorer.state == kept


def test_a_hundred_quick_moves_end_in_the_last_and_are_not_queued(explorer, monkeypatch):
    gate, entered, drawn, framed = threading.Event(), threading.Event(), [], []
    image, frame = explorer.studio.image, explorer.studio.frame

    def slow(state, **options):
        entered.set()
        assert gate.wait(10)
        drawn.append(state.seed)
        return image(state, **options)

    monkeypatch.setattr(explorer.studio, "image", slow)
    monkeypatch.setattr(explorer.studio, "frame", lambda state: (framed.append(state.seed), frame(state))[1])
    explorer.controls.seed.value = 1000
    assert entered.wait(10)
    for seed in range(1001, 1101):
        explorer.controls.seed.value = seed
    gate.set()
    settle(explorer)
    assert drawn == [1000, 1100]
    assert framed == [1100], "only the state that rests gets its frame"
    assert "seed=1100" in explorer.snippet.value


def test_errors_and_faults_reach_the_status_line(explorer, monkeypatch, caplog):
    framed = []

    def fail(state, **options):
        raise ExplorerError("the <em>lamp</em> is broken") if state.seed == 9 else KeyError("a secret")

    with monkeypatch.context() as patch:
        patch.setattr(explorer.studio, "image", fail)
        patch.setattr(explorer.studio, "frame", framed.append)
        explorer.controls.seed.value = 9
        assert "the &lt;em&gt;lamp&lt;/em&gt; is broken" in settle(explorer)[1]
        explorer.controls.seed.value = 10
        _, status = settle(explorer)
        assert "KeyError" in status
        assert "secret" not in status, "the details of a fault are for the log"
        assert caplog.records[-1].exc_info
        assert framed == [], "no frame of a state that cannot be drawn"
    explorer.controls.seed.value = 11
    assert "clcae-error" not in settle(explorer)[1]
    monkeypatch.setattr(explorer.controls, "read", lambda: 1 / 0)
    explorer.controls.seed.value = 12
    assert "ZeroDivisionError" in explorer.views.status.value


def test_a_world_that_cannot_be_opened_is_reported_and_controls_work_meanwhile(explorer, monkeypatch):
    gate = threading.Event()
    explorer.controls.world.options = (WORLD, "nowhere")

    def refuse(name, *, device):
        assert gate.wait(30)
        raise ExplorerError(f"There is no world {name}.")

    monkeypatch.setattr(Studio, "open", refuse)
    explorer.controls.world.value = "nowhere"
    explorer.controls.world.value = WORLD
    explorer.controls.seed.value = 11
    assert explorer.state.seed == 11
    assert explorer.wait(0.01) is False
    gate.set()
    assert "There is no world nowhere" in settle(explorer)[1]
    assert explorer.state.seed == 11
    assert explorer.controls.world.value == WORLD


def test_another_world_is_shown_with_the_method_that_it_has(explorer, tmp_path, monkeypatch):
    other = open_studio(monkeypatch, tmp_path, BareWorld(), encoder="published")
    monkeypatch.setattr(Studio, "open", lambda name, *, device: other)
    explorer.controls.world.options = (WORLD, "bare")
    explorer.controls.world.value = "bare"
    _, status = settle(explorer)
    assert "clcae-error" not in status
    assert (explorer.state.world, explorer.state.method) == ("bare", "published")


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
    upload(explorer, "me.png", image_file(0))
    assert done.wait(10)
    image, status = settle(explorer)
    assert early == [False], "the slider changed the state while the upload did"
    assert "clcae-error" not in status
    assert explorer.state.source == "upload"
    assert dict(explorer.state.edits) == {key(explorer): 1.0}
    assert np.array_equal(seen(image), explorer.studio.image(explorer.state))


def test_a_large_image_is_previewed_while_a_slider_moves_and_whole_at_rest(explorer, monkeypatch):
    monkeypatch.setattr(app, "LARGE", 16)
    monkeypatch.setattr(app, "PREVIEW", 8)
    sides = []
    explorer.views.after.observe(lambda change: sides.append(len(seen(change["new"]))), names="value")
    explorer.controls.sliders[key(explorer)].value = 1.0
    image, _ = settle(explorer)
    assert sides == [8, explorer.studio.side]
    assert np.array_equal(seen(image), explorer.studio.image(explorer.state))


def test_every_control_has_a_name(explorer):
    assert all(control.description for control in explorer.controls.inputs)
    buttons = (explorer.undo, explorer.redo, explorer.reset, explorer.copy)
    for button in (*buttons, *explorer.export_buttons.values()):
        assert button.description
        assert button.tooltip


def test_a_readout_escapes_what_it_shows():
    values = {"before": [0.0], "after": [1.0], "change": [1.0], "reliable": [True]}
    table = pd.DataFrame(values, index=["<script>"])
    assert "<script>" not in readout_table(table)
    assert "no attribute regressor" in readout_table(None)


def test_a_readout_begins_with_the_edited_factors_and_ends_with_the_unreliable_in_grey():
    changes = {"nose": (2.0, False), "age": (0.3, True), "smile": (-1.0, True), "yaw": (0.1, True)}
    rows = [
        {"before": 0.0, "after": c, "change": c, "reliable": reliable} for c, reliable in changes.values()
    ]
    text = readout_table(pd.DataFrame(rows, index=list(changes)), ["yaw"])
    places = [text.index(f">{name}<") for name in ("yaw", "smile", "age", "nose")]
    assert places == sorted(places)
    assert text.count("clcae-unreliable") == 1
    assert text.index("clcae-unreliable") > places[2]


# ----------------------------------------------------------------------------------------- the worker


@pytest.fixture
def worker():
    made = Worker(urgent="image")
    yield made
    made.stop()
    assert "clcae-explorer" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture
def gate(worker):
    """A first job, under way, that ends when the gate is opened."""
    opened, entered = threading.Event(), threading.Event()
    worker.do("first", lambda: (entered.set(), opened.wait(10)))
    assert entered.wait(10)
    yield opened
    opened.set()


def test_jobs_of_one_name_replace_each_other_and_the_urgent_one_comes_first(worker, gate):
    done = []
    for name, word in (("export", "old"), ("other", "other"), ("image", "image"), ("export", "new")):
        worker.do(name, partial(done.append, word))
    worker.do("frame", partial(done.append, "dropped"))
    worker.drop("frame")
    assert worker.wait(0.01) is False
    gate.set()
    assert worker.wait(10)
    assert done == ["image", "new", "other"]


def test_a_job_that_is_to_rest_waits_and_a_fault_does_not_end_the_thread(worker):
    done = []
    worker.do("late", partial(done.append, "late"), after=0.1)
    worker.do("wrong", lambda: 1 / 0)
    worker.do("soon", partial(done.append, "soon"))
    assert worker.wait(10)
    assert done == ["soon", "late"]


def test_the_workers_number_of_threads_is_its_own():
    def count(found):
        found.append(torch.get_num_threads())

    inside, later, before = [], [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        worker = Worker(urgent="image", threads=1)
        worker.do("count", partial(count, inside))
        assert worker.wait(10)
        worker.stop()
        thread = threading.Thread(target=count, args=(later,))
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert (inside, later) == ([1], [2])


# ----------------------------------------------------------------------------------------- the server


def test_serving_leaves_the_environment_as_it_was(monkeypatch):
    def launch(*_, **__):
        assert "explorer" in os.environ["JUPYTER_PATH"]
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "clcae_lib.explorer.studio.Studio.open", lambda *_, **__: SimpleNamespace(left_out=())
    )
    monkeypatch.setattr("voila.app.Voila.launch_instance", launch)
    for before in (None, "/somewhere"):
        monkeypatch.delenv("JUPYTER_PATH", raising=False)
        if before:
            monkeypatch.setenv("JUPYTER_PATH", before)
        with pytest.raises(KeyboardInterrupt):
            server.serve("portraits")
        assert os.environ.get("JUPYTER_PATH") == before


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


def test_the_page_runs_nothing_that_a_visitor_wrote(tmp_path):
    page = json.loads(server.write_page(tmp_path, world="a'; import os", device="cpu").read_text())
    source = "".join(page["cells"][0]["source"])
    compile(source, "page", "exec")
    assert """"a'; import os\"""" in source


def test_a_port_that_is_taken_is_named_before_the_address_is_announced(monkeypatch):
    monkeypatch.setattr(server, "serve", lambda *_, **__: pytest.fail("served"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(cli, ["explore", "--port", str(port), "--device", "cpu"])
    assert done.exit_code == 2
    assert f"port {port} of 127.0.0.1: is used by another program; name another" in done.output
    assert "http://" not in done.output


def test_the_entry_of_jupyter_server_proxy_starts_the_explorer_below_its_path(monkeypatch, tmp_path):
    served = {}
    monkeypatch.setattr(server, "serve", lambda world, **options: served.update(options))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    entry = jupyter_entry()
    command = [part.format(port=port, base_url="/user/jane/") for part in entry["command"]]
    done = CliRunner().invoke(cli, command[command.index("explore") :])
    assert done.exit_code == 0, done.output
    assert (served["port"], served["base_url"]) == (port, "/user/jane/clcae-explorer/")
    settings = server.configuration(folder=tmp_path, **{k: v for k, v in served.items() if k != "device"})
    # The proxy quotes a path that it passes on once more (`%2B`), so the explorer never sees the user's name.
    assert not entry.get("absolute_url")
    assert (settings.Voila.base_url, settings.Voila.server_url) == ("/user/jane/clcae-explorer/", "/")
    host, origin = entry["request_headers_override"].values()
    assert host in settings.Voila.tornado_settings["local_hostnames"]
    assert origin == f"http://{host}"
    plain = server.configuration(host="localhost", port=port, visitors=1, idle=60, folder=tmp_path)
    assert (plain.Voila.base_url, plain.Voila.server_url) == ("/", "/")
    passed = server.configuration(
        host="localhost", port=port, visitors=1, idle=60, folder=tmp_path, base_url="/tools"
    )
    assert (passed.Voila.base_url, passed.Voila.server_url) == ("/tools/", "/tools/")


def test_a_face_is_marked_by_five_points_and_its_landmarks_can_be_saved(explorer):
    """Points are those of the photograph as it is shown; the file has them in the photograph's own pixels."""
    photograph = Image.new("RGB", (960, 720), "white")
    photograph.paste("navy", (500, 200, 900, 600))
    file = io.BytesIO()
    photograph.save(file, format="PNG")
    upload(explorer, "me.png", file.getvalue())
    marking = explorer.controls.marking
    assert marking.box.layout.display is None
    assert "click the left eye" in marking.hint.value
    whole = from_text(explorer.state.upload, side=SIDE)
    marking.points.value = "330,180 370,180 350,200"
    assert "click the left corner of the mouth" in marking.hint.value
    assert explorer.wait()
    assert (from_text(explorer.state.upload, side=SIDE) == whole).all()
    marking.points.value += " 335,220 365,220"
    assert explorer.wait()
    around = from_text(explorer.state.upload, side=SIDE)
    assert (around == (0, 0, 128)).all(), "the square around the marked face is blue"
    saved = re.search(r'download="(.*)" href="data:application/json;base64,(.*)"', marking.link.value)
    content = json.loads(base64.b64decode(saved[2]))
    assert (saved[1], content["size"]) == ("me.png.landmarks.json", [960, 720])
    assert content["faces"][0][0] == [660, 360]
    marking.points.value = "nonsense 1,2"
    assert marking.link.value == ""
