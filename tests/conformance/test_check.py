"""The command that checks any file of golden numbers, on files that these tests make."""

import numpy as np
import pytest
import torch

from tests.conformance import bench, cases, check, golden
from tests.conformance.official import PublishedInversion

pytestmark = pytest.mark.xdist_group("conformance")
NAMES = (
    "latent_base",
    "feature_offset",
    "feature_refine.mean",
    "image_f_scale0.5",
    "image_wplus.std",
    "shapes",
)


@pytest.fixture(scope="module")
def cars():
    """Cars at 256 pixels: their networks have the very weights of the faces', which are there already."""
    faces = bench.shared().inversion
    made = bench.Bench("cars", 256, batch=1)
    made.inversion = PublishedInversion(faces.encoder, faces.decoder, domain="cars")
    return made


@pytest.fixture
def car_file(cars, monkeypatch, tmp_path):
    """A function that writes a car's numbers, some replaced, and returns the file."""
    encoder, average = cars.inversion.encoder, bench.shared().average
    encoder.average = cars.average
    monkeypatch.setattr(check, "Bench", lambda domain, size, *, batch: cars)

    def write(**changes):
        with torch.no_grad():
            arrays = {
                f"{case}/{n}": _kept(cars, f"{case}/{n}") for case in ("plain", "noresize") for n in NAMES
            }
        arrays |= {name.replace("__", "/"): value for name, value in changes.items()}
        np.savez(tmp_path / "cars.npz", **arrays)
        return str(tmp_path / "cars.npz")

    yield write
    encoder.average = average


def _kept(cars, name):
    value = np.asarray(cases.cases_networks.inversion(cars, name, {}))
    return value[:, :, ::11, ::11] if "image" in name and value.ndim == 4 else value


def test_cars_are_flat_padded_and_cut(cars, car_file, capsys):
    assert check.main([car_file(), "--domain", "cars"]) == 0
    assert "12 arrays, 0 wrong" in capsys.readouterr().out
    image = cars.image("f", edit=False, resize=True)
    assert image.shape == (1, 3, 192, 256)
    assert cars.codes(edit=False)[0].feature.shape == (1, 512, 16, 16)


def test_a_spoiled_array_fails(car_file, cars, capsys):
    spoiled = _kept(cars, "plain/latent_base").copy()
    spoiled[0, 7] += 0.01
    assert check.main([car_file(plain__latent_base=spoiled), "--domain", "cars"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("WRONG")] == ["plain/latent_base"]


def test_unknown_names_and_other_shapes_are_reported(car_file, capsys):
    path = car_file(plain__image_q=np.ones((1, 3, 5, 5)), plain__latent_base=np.ones((1, 3)))
    assert check.main([path, "--domain", "cars"]) == 1
    out = capsys.readouterr().out
    assert "unknown array: no case has this name" in out
    assert "is [1, 3] in the file, [1, 512] here" in out
    assert "14 arrays" not in out
    assert "13 arrays, 2 wrong" in out


def test_nothing_but_numbers_that_are_none_fails(car_file, capsys):
    assert check.main([car_file(plain__latent_base=np.full((1, 512), np.nan)), "--domain", "cars"]) == 1
    assert "inf" in capsys.readouterr().out


def test_bad_files_give_one_line(tmp_path, capsys):
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    np.savez(tmp_path / "texts.npz", a=np.array(["x"]))
    np.savez(tmp_path / "no_arrays.npz")
    for name, content in (("empty", b""), ("cut", b"PK\x03\x04 cut"), ("pickle", b"\x80\x04N.")):
        (tmp_path / f"{name}.npz").write_bytes(content)
    for name in ("objects", "texts", "no_arrays", "empty", "cut", "pickle", "missing"):
        path = tmp_path / f"{name}.npz"
        assert check.main([str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}: ")
        assert "numbers" in error
        assert len(error.splitlines()) == 1


def test_a_size_that_no_network_has_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        check.main(["x.npz", "--size", "300"])
    assert stop.value.code == 2
    assert "300 is not" in capsys.readouterr().err


def test_strides_are_found_by_the_numbers():
    image = np.random.default_rng(0).normal(size=(1, 3, 1024, 1024)).astype(np.float32)
    row = cases._row("x", image, image[:, :, ::43, ::43])
    assert row.distance == 0
    assert golden.distance(image[:, :, ::44, ::44], image[:, :, ::43, ::43]) > 1
