"""`clcae invert` on files in the official layouts: images, codes, a table, resume, failures by name."""

import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.weights.checkpoints import load_weights
from clcae_lib.worlds.settings import BUILT_IN
from tests.unit.test_weights import DIM, tiny_inversion
from tests.unit.test_weights_build import written


def official_files(folder):
    network = tiny_inversion()
    written(folder / "clcae.pt", {"state_dict": network.state_dict(), "iter": 5})
    decoder = network.decoder.state_dict()
    written(folder / "stylegan2.pt", {"g_ema": decoder, "latent_avg": torch.full((DIM,), 0.2)})


@pytest.mark.parametrize("name", ["ffhq", "cars"])
def test_a_folder_is_inverted_resumed_and_failures_are_named(tmp_path, monkeypatch, name):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder, photos, out = tmp_path / "data" / name, tmp_path / "photos", tmp_path / "out"
    folder.mkdir(parents=True)
    photos.mkdir()
    official_files(folder)
    settings = {"resolution": 64, "already_aligned": True}
    monkeypatch.setitem(BUILT_IN, name, BUILT_IN[name].model_copy(update=settings))
    Image.new("RGB", (320, 240), (90, 120, 60)).save(photos / "a.jpg")
    (photos / "broken.jpg").write_bytes((photos / "a.jpg").read_bytes()[:500])
    (photos / "notes.txt").write_text("no image")
    command = ["invert", "--world", name, "--input", str(photos), "--output", str(out), "--device", "cpu"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output  # two of the files could not be used
    assert "1 inverted, 2 not" in done.output
    table = pd.read_csv(out / "measures.csv").set_index("file")
    assert table.loc["a.jpg", "psnr"] > 0
    assert {"broken.jpg", "notes.txt"} == set(table.index[table["error"].notna()])
    codes, said = load_weights(out / "a.jpg.safetensors", kind="inversion codes")
    assert codes["w_plus"].shape == (1, 10, DIM)
    assert said["measures"][0]["psnr"] == pytest.approx(table.loc["a.jpg", "psnr"])
    with Image.open(out / "a.jpg.f.png") as image:
        assert image.size == (64, 64)

    before = (out / "a.jpg.safetensors").stat().st_mtime_ns
    Image.new("RGB", (320, 240), (10, 20, 160)).save(photos / "b.png")
    assert "2 inverted, 2 not" in CliRunner().invoke(app, command).output
    assert (out / "a.jpg.safetensors").stat().st_mtime_ns == before
    assert (out / "b.png.safetensors").is_file()

    other = ["--preset", "foundation", "--weights", str(folder / "clcae.pt")]
    refused = CliRunner().invoke(app, [*command, *other])
    assert refused.exit_code == 2
    assert "give --preset published" in " ".join(refused.output.split())
