"""What this project hands to papermill, nbclient, jupyter_client, IPython and Voila is still called by them.

Each test runs the real library, and fails where a new version no longer calls what is overridden.
"""

import json
import os
import pwd
import re
import sys

import httpx
import nbformat
import pytest

from clcae_lib.suite import execute as run
from clcae_lib.suite.plan import Profile
from clcae_lib.suite.runner import run_suite
from tests.notebooks_in_small import record, write_notebook
from tests.servers import ROOT, free_port, server

GOOD = record("01_a", "1")
SHOWN = """
import sys
import clcae_lib.plots
theme, calls = sys.modules["clcae_lib.plots.theme"], []
as_png = theme.Drawing._repr_png_
theme.Drawing._repr_png_ = lambda figure: calls.append(1) or as_png(figure)
"""
OUTPUTS = """
import ipywidgets
out = ipywidgets.Output()
for number in range(3):
    with out:
        print(number, flush=True)
"""
SERVER = """
import sys
from pathlib import Path
from voila.app import Voila
from clcae_lib.explorer.server import configuration
page, port = Path(sys.argv[1]), int(sys.argv[2])
place = {"host": "127.0.0.1", "port": port, "base_url": "/user/jane/explorer/", "stripped": True}
config = configuration(**place, visitors=1, idle=900, folder=page.parent)
Voila.launch_instance([str(page)], config=config)
"""


@pytest.fixture
def foreign(tmp_path):
    """A Jupyter folder with an extension of JupyterLab, and a kernel python3 that ends immediately."""
    extension = tmp_path / "jupyter" / "labextensions" / "other" / "package.json"
    extension.parent.mkdir(parents=True)
    built = {"load": "static/entry.js", "extension": "./extension"}
    extension.write_text(json.dumps({"name": "other", "version": "1.0.0", "jupyterlab": {"_build": built}}))
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps({"argv": ["false"], "display_name": "Other", "language": "python"}))
    return kernel.parents[2]


def test_a_notebook_runs_in_this_interpreter_and_its_kernel_uses_no_port(
    suite, foreign, tmp_path, monkeypatch
):
    monkeypatch.setenv("JUPYTER_PATH", str(foreign))
    own = f"import sys, os\nassert (sys.executable, os.getcwd()) == {(sys.executable, str(tmp_path))!r}"
    sockets = (
        "import json\nfrom ipykernel import get_connection_info\n"
        "assert json.loads(get_connection_info())['transport'] == 'ipc'"
    )
    suite({"01_a": [GOOD, own, sockets]})
    assert run_suite("quick").ok


def test_a_user_without_a_name_and_a_folder_whose_path_is_too_long_for_sockets(suite, tmp_path, monkeypatch):
    def unknown(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    deep = tmp_path / ("long" * 20)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    suite({"01_a": [GOOD]})
    assert run_suite("quick").ok


def execute(tmp_path, *cells, **options):
    """The executed copy of a notebook of these cells, run in the repository."""
    write_notebook(tmp_path / "a.ipynb", *cells)
    profile, executed = Profile(name="test"), tmp_path / "b.ipynb"
    run.execute(tmp_path / "a.ipynb", executed, {"seed": 3}, profile=profile, **options)
    return nbformat.read(executed, as_version=4)


def test_every_reply_is_looked_for_again_and_progress_reported_after_each_cell(tmp_path, monkeypatch):
    looks, seen = [], []

    def counted(get_msg):
        async def get(timeout=None):
            looks.append(timeout)
            return await get_msg(timeout=timeout)

        return looking_again(get)

    looking_again = run.looking_again
    monkeypatch.setattr(run, "looking_again", counted)
    execute(tmp_path, "1", "2", watch=lambda done, total: seen.append((done, total)))
    assert looks
    assert seen == [(done, 5) for done in range(1, 6)], "title, parameters, those injected, two cells"


def test_widgets_that_print_do_not_make_a_notebook_wait_for_ever(tmp_path):
    node = execute(tmp_path, *[OUTPUTS] * 40)
    states = node.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"].values()
    outputs = [state["state"]["outputs"] for state in states if state["model_name"] == "OutputModel"]
    assert [output[0]["text"] for output in outputs] == ["0\n1\n2\n"] * 40


def test_a_notebook_shows_a_drawing_as_the_drawing_says(tmp_path):
    execute(tmp_path, SHOWN, "figure, _ = theme.new_figure()\nfigure", "assert calls")


@pytest.fixture
def served(tmp_path, foreign):
    """The address of a page that shows its interpreter, served as the explorer is, for one visitor."""
    page = tmp_path / "page" / "page.ipynb"
    page.parent.mkdir()
    cell = nbformat.v4.new_code_cell("import sys\nprint('runs in', sys.executable)")
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}), page)
    port, templates = free_port(), ROOT / "clcae_lib" / "explorer"
    environment = {"PYTHONPATH": str(ROOT), "JUPYTER_PATH": f"{templates}{os.pathsep}{foreign}"}
    command = [sys.executable, "-c", SERVER, str(page), str(port)]
    with server(command, port, tmp_path / "voila.log", **environment) as address:
        yield address


def test_the_explorer_is_served_in_this_interpreter_to_so_many_and_from_here_only(served):
    page = httpx.get(served, timeout=None)
    assert page.status_code == 200
    assert f"runs in {sys.executable}" in page.text, "OwnInterpreter"
    assert "_xsrf" in page.cookies, "give_token"
    assert 'rel="stylesheet" href="http' not in page.text, "the template's block"
    config = json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page.text, re.DOTALL)[1])
    loaded = {extension["name"] for extension in config["federated_extensions"]}
    assert loaded == {"@jupyter-widgets/jupyterlab-manager", "@voila-dashboards/widgets-manager8"}
    files = re.findall(r'<script[^>]* src="([^"]+)"', page.text)
    assert files
    for file in files:
        assert file.startswith("/user/jane/explorer/"), file
        assert httpx.get(served + file.removeprefix("/user/jane/explorer/"), timeout=60).status_code == 200
    second = httpx.get(served, timeout=None)
    assert second.status_code == 503, "CappedKernels"
    assert "All 1 places are taken" in second.text
