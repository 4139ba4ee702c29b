"""The notebooks on a world of one's own photographs, by the command that docs/photographs.md gives."""

import json
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.photos.detection import has_detector
from clcae_lib.worlds import add_world
from clcae_lib.worlds.portraits.photographs import write_photographs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def album(tmp_path, repository, monkeypatch):
    """Four photographs with landmarks, and a data folder whose world `family` draws as the portraits do."""
    monkeypatch.chdir(repository)
    data = tmp_path / "data"
    data.mkdir()
    (data / "portraits").symlink_to(repository / "data" / "portraits")
    for name in ("data", "cache", "results"):
        monkeypatch.setenv(f"CLCAE_{name.upper()}", str(tmp_path / name))
    folder = tmp_path / "album"
    write_photographs(folder, 4)
    weights = repository / "data" / "portraits"
    world = add_world("family", images=folder, generator=weights / "generator.safetensors", widen=1.1)
    shutil.copy(weights / "inversion_foundation.safetensors", world.folder)
    return folder


def run(*settings, only=("08",)):
    options = [part for name in only for part in ("--only", name)]
    return CliRunner().invoke(
        app, ["run", "--profile", "smoke", *options, *(f"--set={setting}" for setting in settings)]
    )


def test_a_world_without_attributes_and_files_of_all_kinds(album, tmp_path):
    """No landmarks, damaged ones, ones of a smaller copy, and one stem twice stop no other photograph."""
    halved = json.loads((album / "portrait_02.landmarks.json").read_text())
    halved["size"] = [side // 2 for side in halved["size"]]
    halved["faces"] = [[[x / 2, y / 2] for x, y in face] for face in halved["faces"]]
    (album / "portrait_02.landmarks.json").write_text(json.dumps(halved))
    shutil.copy(album / "portrait_01.jpg", album / "plain.jpg")
    (album / "portrait_03.landmarks.json").write_text("{}")
    shutil.copy(album / "portrait_01.jpg", album / "portrait_00.png")
    (album / "portrait_00.landmarks.json").rename(album / "portrait_00.jpg.landmarks.json")
    shutil.copy(album / "portrait_01.landmarks.json", album / "portrait_00.png.landmarks.json")
    done = run(f"folder={album}", "photographs=9", "world=family")
    assert done.exit_code == 0, done.output
    results = tmp_path / "results" / "smoke" / "08_your_own_photographs"
    used = ["portrait_00.jpg", "portrait_00.png", "portrait_01.jpg", "portrait_02.jpg"]
    assert sorted(path.name for path in (results / "edited").iterdir()) == [f"{name}.png" for name in used]
    assert pd.read_csv(results / "photographs.csv")["photograph"].tolist() == used


@pytest.mark.skipif(has_detector(), reason="the extra `faces` is installed: it looks for faces itself")
def test_plain_photographs_end_with_the_reason_for_each_file_and_what_needs_factors_says_so(album):
    for path in album.glob("*.landmarks.json"):
        path.unlink()
    done = run(
        *("world=family", "08.world=portraits", f"08.folder={album}", "08.photographs=9"),
        only=("00", "04", "08"),
    )
    assert done.exit_code == 1
    assert "has no photograph that can be used" in done.output
    assert "portrait_02.jpg: no landmarks file, and no face detector installed; " in done.output
    assert (
        "write the landmarks into portrait_02.landmarks.json in its folder (data/README.md; " in done.output
    )
    assert "stack expects" not in done.output
    assert done.output.count("WorldError: world='family': th") == 2
    for remedy in ("the tour needs a drawn world", "explore this one with `clcae explore --world family`"):
        assert remedy in done.output
