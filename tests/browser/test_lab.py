"""The notebook 04 in JupyterLab, run and used with a real browser."""

import json
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


def test_the_notebook_runs_and_its_explorer_works(browser, lab, tmp_path):
    visit = Visit(browser, f"{lab}lab/tree/explorer.ipynb")
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
    before = visit.rests()
    assert before not in visit.drag("pitch")
    visit.shows("'pitch'")
    visit.shoot("lab_edited")
    visit.button("Undo").click()
    visit.becomes(before)
    visit.button("PNG").click()
    with page.expect_download() as download:
        page.locator("a.clcae-save[download='explorer.png']").click()
    assert download.value.suggested_filename == "explorer.png"
    download.value.save_as(tmp_path / "explorer.png")
    visit.open("Source")
    visit.upload("Upload an image", tmp_path / "explorer.png")
    visit.changes_from(before)
    visit.check()
    visit.close()
