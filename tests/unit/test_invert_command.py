"""`clcae invert` on files in the official layouts: images, codes, a table, resume, failures by name."""

import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.weights.checkpoints import load_weights
from clcae_lib.worlds.settings import BUILT_IN
from tests.conformance import fill
from tests.conformance.official import build_inversion
from tests.unit.test_weights_build import written


def filled(make):
    """The state dict of a network with every tensor drawn from its name."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in make().state_dict().items()}
    values = {name: fill.weight(name, shape) for name, shape in shapes.items()}
    rest = make().state_dict() if any(value is None for value in values.values()) else {}
    return {name: rest[name] if v is None else torch.as_tensor(v) for name, v in values.items()}


def official_files(folder, size, domain):
    state = filled(lambda: build_inversion(size, domain=domain))
    written(folder / "clcae.pt", {"state_dict": state, "iter": 5})
    decoder = {name.removeprefix("decoder."): v for name, v in state.items() if name.startswith("decoder.")}
    written(folder / "stylegan2.pt", {"g_ema": decoder, "latent_avg": torch.full((512,), 0.2)})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "layers"), [("ffhq", 256, 14), ("cars", 256, 14)])
def test_a_folder_is_inverted_resumed_and_failures_are_named(tmp_path, monkeypatch, name, size, layers):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder, photos, out = tmp_path / "data" / name, tmp_path / "photos", tmp_path / "out"
    folder.mkdir(parents=True)
    photos.mkdir()
    official_files(folder, size, "cars" if name == "cars" else "faces")
    settings = {"resolution": size, "already_aligned": True}
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
    assert codes["w_plus"].shape == (1, layers, 512)
    assert said["measures"][0]["psnr"] == pytest.approx(table.loc["a.jpg", "psnr"])
    with Image.open(out / "a.jpg.f.png") as image:
        assert image.size == (size, size)

    before = (out / "a.jpg.safetensors").stat().st_mtime_ns
    Image.new("RGB", (320, 240), (10, 20, 160)).save(photos / "b.png")
    assert "2 inverted, 2 not" in CliRunner().invoke(app, command).output
    assert (out / "a.jpg.safetensors").stat().st_mtime_ns == before
    assert (out / "b.png.safetensors").is_file()
