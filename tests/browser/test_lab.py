"""The notebook 04 in JupyterLab, run and used with a real browser."""

import json
import re
import shutil
import sys

import pytest

from tests.browser.conftest import ROOT, SHOTS, Visit, free_port, server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("lab")]


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):
    """JupyterLab on a copy of the notebook at its smallest size, with its own settings and no news."""
    folder = tmp_path_factory.mktemp("lab")
    node = json.loads((ROOT / "notebooks" / "04_latent_explorer.ipynb").read_text())
    for cell in node["cells"]:
        if cell["metadata"].get("tags") == ["parameters"]:
            output = str(folder / "output")
            cell["source"] = [*cell["source"], f"\nportraits, timed_moves = 2, 5\noutput_dir = {output!r}\n"]
        if "explorer.close()" in "".join(cell["source"]):
            cell["source"] = [line for line in cell["source"] if "explorer.close()" not in line]
    work = folder / "work"
    work.mkdir()
    (work / "explorer.ipynb").write_text(json.dumps(node))
    shutil.copytree(ROOT / "notebooks" / "figures", work / "figures")
    settings = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    whole = settings.parent / "notebook-extension"
    whole.mkdir()
    (whole / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    port = free_port()
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="),
        *(f"--ServerApp.root_dir={work}", "--LabApp.news_url="),
    ]
    places = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_DATA_DIR": str(folder / "data")}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "config" / "lab" / "user-settings")}
    places |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    with server(command, port, SHOTS / "lab.log", **places) as address:
        yield address


@pytest.fixture(scope="module")
def visit(browser, lab):
    """The notebook after all its cells ran."""
    visit = Visit(browser, f"{lab}lab/tree/explorer.ipynb")
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.page
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    idle = page.locator("#jp-main-statusbar", has_text="| Idle")
    idle.wait_for(timeout=90_000)  # what runs earlier is lost
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(  # folded solutions show no number
        "(() => { const all = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];"
        " const shown = all.map(e => e.textContent).filter(text => text);"
        " return shown.length > 10 && shown.every(text => /\\d/.test(text)); })()",
        timeout=120_000,
    )
    visit.ready()
    page.locator(".clcae-explorer").scroll_into_view_if_needed()
    yield visit
    visit.close()


def test_the_explorer_of_the_notebook_works(visit):
    before = visit.rests()
    assert before not in visit.drag("pitch")
    visit.shows("'pitch'")
    visit.shoot("lab_edited")
    visit.check()


def test_every_button_does_what_it_says_and_no_error_is_left(visit, tmp_path):
    page, pressed = visit.page, set()

    def press(name, shows, what):
        visit.button(name).click()
        pressed.add(name)
        visit.until(shows, f"{what} after {name}")

    def upload(name, file):
        visit.upload(name, file)
        pressed.add(name)

    press("Reset", lambda: "edits=" not in visit.snippet(), "no edit is left")
    start = visit.snippet()
    visit.press("yaw", "ArrowRight", 20)
    visit.shows("'yaw': 1.0")
    edited = visit.snippet()
    press("Undo", lambda: visit.snippet() == start, "the first state is shown")
    press("Redo", lambda: visit.snippet() == edited, "the edit is shown")
    page.evaluate("navigator.clipboard.writeText('')")
    read = "navigator.clipboard.readText()"
    press("Copy", lambda: page.evaluate(read) == edited, "the clipboard has the Python")
    for name, kind in (("PNG", "png"), ("GIF", "gif"), ("codes", "safetensors"), ("state", "json")):
        link = page.locator(f"a.clcae-save[download='explorer.{kind}']")
        press(name, lambda link=link: link.count() == 1, "the link is there")
        with page.expect_download() as download:
            link.click()
        assert download.value.suggested_filename == f"explorer.{kind}"
        download.value.save_as(tmp_path / f"explorer.{kind}")
    press("Reset", lambda: visit.snippet() == start, "the first state is shown")
    upload("Load a state", tmp_path / "explorer.json")
    visit.until(lambda: visit.snippet() == edited, "the loaded state is shown")
    visit.open("Source")
    thumbnails = page.locator(".clcae-explorer .clcae-thumbs button")
    names = thumbnails.all_inner_texts()
    press("Next", lambda: names[0] not in thumbnails.all_inner_texts(), "other images are shown")
    press("Previous", lambda: thumbnails.all_inner_texts() == names, "the images are back")
    indices = {name: re.compile(rf"index={name},") for name in names} | {
        "0": re.compile("^(?!.*index=)", re.S)
    }
    for name in reversed(names):  # the Python leaves out the number 0, the default
        press(name, lambda said=indices[name]: said.search(visit.snippet()), "its image is shown")
    before = visit.image()
    upload("Upload an image", tmp_path / "explorer.png")
    visit.changes_from(before)
    visit.shows("upload")
    texts = page.locator(".clcae-explorer button").all_text_contents()
    assert {re.sub(r" \(\d+\)$", "", text.strip()) for text in texts} == pressed
    assert "clcae-error" not in page.locator(".clcae-status").inner_html()
    assert "Traceback" not in (SHOTS / "lab.log").read_text(errors="replace")
    visit.check()
