"""Row 21: checkpoints of pSp, e4e, ReStyle and HFGI as worlds' generators and as inverters."""

import pandas as pd
import pytest
import torch
from PIL import Image

from clcae_lib.inversion.methods import make_inverter
from clcae_lib.inversion.restyle import refine
from clcae_lib.models import Generator
from clcae_lib.weights import WeightsError, inspect_file, load_generator
from clcae_lib.worlds import get_world
from tests.field.inputs import DIM, MEAN
from tests.field.peers import ENCODERS, SIDE, checkpoint, encoder, published
from tests.field.test_weights import add, album, call  # noqa: F401 - a fixture among them
from tests.unit._tiny import tiny_generator


@pytest.fixture(scope="module")
def generator():
    return tiny_generator(SIDE)


@torch.no_grad()
@pytest.mark.parametrize(
    ("method", "backbone"),
    [*((method, "irse") for method in ENCODERS), ("restyle_psp", "resnet"), ("restyle_e4e", "resnet")],
)
def test_an_official_encoder_inverts_by_the_published_arithmetic(
    album,  # noqa: F811
    tmp_path,
    generator,
    method,
    backbone,
):
    path = checkpoint(tmp_path / "best_model.pt", method, generator, backbone=backbone)
    report = inspect_file(path)
    assert (report["kind"], report["details"]["method"]) == ("peer_checkpoint", method)
    assert report["details"]["used"] == "its generator and its encoder"
    assert report["details"].get("domain") == ("faces" if backbone == "irse" else None)
    assert add(album, path).exit_code == 0
    world = get_world("w")
    torch.testing.assert_close(world.generator().w_avg, MEAN, atol=1e-3, rtol=0)
    made = make_inverter(method, world, weights=path, device="cpu")
    images = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    found = made.invert(images)

    tensors, expected = encoder(method, backbone).state_dict(), MEAN
    residual = ENCODERS[method][3]
    for _ in range(made.steps if method.startswith("restyle") else 1):
        seen = images
        if method.startswith("restyle"):
            drawn = world.generator().synthesis(expected.expand(2, 10, DIM))
            seen = torch.cat([images, drawn], dim=1)
        expected = expected + published(tensors, seen, residual=residual)
    torch.testing.assert_close(found.w_plus, expected, atol=1e-3, rtol=1e-3)
    assert found.feature is None


@torch.no_grad()
def test_restyle_compares_a_car_with_the_rows_between_the_black_ones(generator):
    network, images = encoder("restyle_e4e", "resnet"), torch.rand(2, 3, 48, SIDE) * 2 - 1
    found, expected = list(refine(network, generator, images, steps=2))[-1].w_plus, generator.w_avg
    for _ in range(2):
        drawn = generator.synthesis(expected.expand(2, 10, DIM))[:, :, 8:56]
        seen = torch.cat([images, drawn], dim=1)
        expected = expected + published(network.state_dict(), seen, residual=True)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_the_command_inverts_with_a_checkpoint_and_with_its_converted_encoder(album, tmp_path, generator):  # noqa: F811
    path = checkpoint(tmp_path / "e4e_ffhq_encode.pt", "e4e", generator)
    add(album, path)
    bare = call("invert", "--input", album, "--output", tmp_path / "out", "--world", "w", "--method", "e4e")
    assert "--method e4e needs its encoder: --weights FILE, an official checkpoint" in bare.output
    Image.new("RGB", (90, 64), "teal").save(album / "b.jpg")
    call("convert", path, tmp_path / "peer.safetensors")
    for weights in (path, tmp_path / "peer.safetensors"):
        out = tmp_path / weights.stem
        options = ["--input", album, "--output", out, "--world", "w", "--method", "e4e", "--weights", weights]
        done = call("invert", *options, "--device", "cpu")
        assert done.exit_code == 0, done.output
        assert pd.read_csv(out / "measures.csv")["psnr"].notna().all()
        assert sorted(p.name for p in out.glob("*.png")) == ["a.png.w_plus.png", "b.jpg.w_plus.png"]
    call("convert", path, get_world("w").weights("peer_e4e"))
    assert call("invert", *options[:-2], "--device", "cpu").exit_code == 0  # without --weights, the world's
    other = call("invert", *options[:-1], checkpoint(tmp_path / "psp.pt", "psp", generator))
    assert "psp.pt" in other.output
    assert "holds 'psp', not e4e" in other.output


def test_hfgi_is_its_e4e_here_and_unknown_backbones_give_their_generator_only(album, tmp_path, generator):  # noqa: F811
    hfgi = checkpoint(tmp_path / "hfgi.pt", "e4e", generator, hfgi=True)
    assert inspect_file(hfgi)["details"]["method"] == "e4e"
    assert "its residual encoder and its aligner are not used" in call("inspect", hfgi).output
    cars = checkpoint(tmp_path / "cars.pt", "restyle_e4e", generator, backbone="other")
    assert load_generator(cars).size == SIDE
    assert "its generator only; the encoder's backbone is neither" in call("inspect", cars).output
    assert "neither IR-SE nor a ResNet" in call("convert", cars, tmp_path / "cars.safetensors").output
    channels = {4: 8, 8: 8, 16: 6, 32: 6, 64: 6}
    other = checkpoint(tmp_path / "other.pt", "e4e", Generator(SIDE, DIM, 2, channels=channels))
    add(album, other)
    with pytest.raises(WeightsError, match=r"hfgi\.pt was trained with another generator.*clcae world add"):
        make_inverter("e4e", "w", weights=hfgi, device="cpu")
