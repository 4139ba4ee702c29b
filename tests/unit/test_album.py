"""A folder of photographs inverted one at a time: what is left out, what ends the run, and what stays."""

import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.cli.album import Album
from clcae_lib.images import load_image
from clcae_lib.inversion import MeanFaceInverter, PtiInverter, Settings
from clcae_lib.photos import Landmarks, PhotoError, save_landmarks
from clcae_lib.weights import load_generator
from clcae_lib.weights.checkpoints import load_weights
from tests.unit._tiny import tiny_generator
from tests.unit.test_worlds_photos import album, make, places  # noqa: F401 - fixtures


@pytest.fixture
def inverts(album):  # noqa: F811
    """The album's world and an inverter of it that needs no training."""
    return Album(make(album), MeanFaceInverter(tiny_generator(32)), made_by=[], spaces=["w"])


def table(folder):
    return pd.read_csv(folder / "measures.csv").set_index("file")


def test_landmark_files_are_no_photographs_and_bad_ones_stop_no_other(album, inverts, tmp_path):  # noqa: F811
    save_landmarks(album / "p03.jpg", [Landmarks(torch.ones(5, 2))], size=(96, 96))
    said = []
    inverts.invert(album, tmp_path / "out", report=said.append)
    errors = table(tmp_path / "out")["error"].dropna()
    assert set(errors.index) == {"p03.jpg", "unmarked.png", "broken.jpg", "notes.txt"}
    assert "p03.jpg: landmarks: eyes and mouth are less than a pixel apart" in errors["p03.jpg"]
    assert table(tmp_path / "out")["psnr"].notna().sum() == 23
    assert [
        line for line in said if line.startswith("perceptual is not measured: ") and "clcae fetch" in line
    ]


def test_what_is_no_fault_of_a_photograph_ends_the_run_and_the_rest_is_kept(album, inverts, tmp_path):  # noqa: F811
    plain, out = inverts.inverter.invert, tmp_path / "out"
    inverted = []

    def fails(images):
        if len(inverted) == 2:
            raise RuntimeError("CUDA error: out of memory")
        inverted.append(plain(images))
        return inverted[-1]

    inverts.inverter.invert = fails
    with pytest.raises(RuntimeError, match="out of memory"):
        inverts.invert(album, out, report=lambda _: None)
    assert table(out)["psnr"].dropna().index.tolist() == ["p00.jpg", "p01.jpg"]
    assert (out / "p01.jpg.safetensors").is_file()
    assert not (out / "p02.jpg.safetensors").exists()
    inverted[:] = [None]  # goes on with the third
    inverts.inverter.invert = lambda images: inverted.append(None) or plain(images)
    inverts.invert(album, out, report=lambda _: None)
    assert len(inverted) == 1 + 24 - 2


def test_another_judge_measures_again(album, inverts, tmp_path, monkeypatch):  # noqa: F811
    judge = tmp_path / "judge"
    judge.write_text("one")
    monkeypatch.setattr(type(inverts.world), "judge_file", lambda self, name, role: judge)
    inverts.judges["identity"] = lambda a, b: torch.tensor(0.25)
    plain, inverted = inverts.inverter.invert, []
    inverts.inverter.invert = lambda images: inverted.append(None) or plain(images)
    for content, expected in (("one", 24), ("one", 24), ("two", 48)):
        judge.write_text(content)
        inverts.invert(album, tmp_path / "out", report=lambda _: None)
        assert len(inverted) == expected


def test_results_do_not_go_among_the_photographs(album, inverts, tmp_path):  # noqa: F811
    before = sorted(album.iterdir())
    with pytest.raises(PhotoError, match="is the folder of the photographs; name another one"):
        inverts.invert(album, album / ".." / album.name)
    assert sorted(album.iterdir()) == before


def test_names_that_differ_in_the_suffix_only_have_results_of_their_own(album, inverts, tmp_path):  # noqa: F811
    with Image.open(album / "p00.jpg") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(album / "p00.png")
    (album / "p00.landmarks.json").rename(album / "p00.jpg.landmarks.json")
    (album / "p01.landmarks.json").rename(album / "p00.png.landmarks.json")
    inverts.invert(album, tmp_path / "out", report=lambda _: None)
    rows = table(tmp_path / "out")
    assert rows.loc["p00.jpg", "psnr"] != rows.loc["p00.png", "psnr"]
    assert {"p00.jpg.w.png", "p00.png.w.png"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_folder_of_folders_names_them(album, inverts, tmp_path):  # noqa: F811
    outer = tmp_path / "outer"
    outer.mkdir()
    album.rename(outer / "album")
    with pytest.raises(PhotoError, match="photographs are in its subfolders, such as"):
        inverts.invert(outer, tmp_path / "out")


def test_a_tuned_generator_is_exported_in_the_layout_of_rosinality(album, tmp_path):  # noqa: F811
    """The exported file draws the photograph's inversion from its code, without this project's help."""
    inverter = PtiInverter(MeanFaceInverter(tiny_generator(32)), settings=Settings(steps=3, lr=0.01))
    tuned = Album(make(album), inverter, made_by=[], spaces=["w"], method="pti")
    (tmp_path / "one").mkdir()
    for path in album.glob("p00*"):
        path.rename(tmp_path / "one" / path.name)
    tuned.invert(tmp_path / "one", tmp_path / "out", report=lambda _: None)
    codes = tmp_path / "out" / "p00.jpg.safetensors"

    def export(*options):
        return CliRunner().invoke(app, ["export", "own", "--output", str(tmp_path / "tuned.pt"), *options])

    assert export("--tuned", str(codes)).exit_code == 0
    stored = torch.load(tmp_path / "tuned.pt", weights_only=True)
    assert stored.keys() == {"g_ema", "latent_avg"}
    assert stored["g_ema"].keys() == tiny_generator(32).state_dict().keys()
    w = load_weights(codes)[0]["w"]
    exported = load_generator(tmp_path / "tuned.pt").synthesis(w)[0].clamp(-1, 1)
    drawn = load_image(tmp_path / "out" / "p00.jpg.w.png")
    torch.testing.assert_close(exported, drawn, atol=0.01, rtol=0)
    assert (tiny_generator(32).synthesis(w)[0].clamp(-1, 1) - drawn).abs().max() > 0.02
    assert "it exists; name another file" in export().output
    (tmp_path / "tuned.pt").unlink()
    plain = tmp_path / "data" / "own" / "generator.safetensors"
    assert "holds the weights of" in export("--tuned", str(plain)).output
    assert export().exit_code == 0
