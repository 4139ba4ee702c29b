"""Row 21: checkpoints of pSp, e4e, ReStyle and HFGI as worlds' generators and as inverters."""

import pandas as pd
import pytest
import torch
from PIL import Image

from clcae_lib.editing import Direction, apply, interpolate
from clcae_lib.inversion.methods import make_inverter
from clcae_lib.inversion.restyle import refine
from clcae_lib.models import Generator
from clcae_lib.weights import WeightsError, inspect_file, load_generator
from clcae_lib.weights.checkpoints import load_weights
from clcae_lib.worlds import get_world
from tests.field.inputs import DIM, MEAN
from tests.field.peers import ENCODERS, SIDE, branch, checkpoint, consulted, encoder, published
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


@torch.no_grad()
def test_hfgi_restores_what_its_codes_lost_by_the_published_arithmetic(album, tmp_path, generator):  # noqa: F811
    path = checkpoint(tmp_path / "ckpt.pt", "e4e", generator, hfgi="whole")
    assert inspect_file(path)["details"]["method"] == "hfgi"
    assert "consultation branch; without the branch as --method e4e" in call("inspect", path).output
    assert add(album, path).exit_code == 0
    net = get_world("w").generator()
    images = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    made = make_inverter("hfgi", "w", weights=path, device="cpu")
    found = made.invert(images)
    lost = images - net.synthesis(found.w_plus).clamp(-1, 1)
    torch.testing.assert_close(found.decoder.lost, lost, atol=1e-4, rtol=1e-3)

    def expected(w_plus):  # side 64 sees 64 pixels, so that a quarter is 16: activation 4 is its first
        drawn, activations = net.run_with_activations(w_plus)
        scale, shift = consulted(branch(), lost, drawn.clamp(-1, 1))
        feature = activations[4] * (1 + scale) + shift
        return feature, net.synthesis(w_plus, feature=feature, feature_index=4)

    edited = apply(net, found, Direction(torch.ones(DIM), "step", "w"), 0.5)
    for codes in (found, edited):
        feature, image = expected(codes.w_plus)
        torch.testing.assert_close(codes.feature, feature, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(codes.decode(net), image, atol=1e-3, rtol=1e-3)
    between = interpolate(found, edited, 1.0)
    torch.testing.assert_close(between.decode(net), edited.decode(net), atol=1e-3, rtol=1e-3)
    own = between.decoder.activation(net, edited.w_plus, side=16)
    torch.testing.assert_close(own, net.run_with_activations(edited.w_plus)[1][4])
    plain = make_inverter("e4e", "w", weights=path, device="cpu").invert(images)
    assert torch.equal(plain.w_plus, found.w_plus)
    assert plain.feature is None


def test_the_command_inverts_with_hfgi(album, tmp_path, generator):  # noqa: F811
    path = checkpoint(tmp_path / "ckpt.pt", "e4e", generator, hfgi="whole")
    add(album, path)
    call("convert", path, get_world("w").weights("peer_hfgi"))
    for options in (["hfgi"], ["hfgi", "--weights", path], ["e4e", "--weights", path]):
        out = tmp_path / "-".join(map(str, options)).replace("/", "")
        command = ["invert", "--input", album, "--output", out, "--world", "w", "--device", "cpu", "--method"]
        done = call(*command, *options)
        assert done.exit_code == 0, done.output
        tensors, said = load_weights(out / "a.png.safetensors", kind="inversion codes")
        assert said.get("feature_index") == (4 if options[0] == "hfgi" else None)
        assert ("feature" in tensors) == (options[0] == "hfgi")


def test_a_cut_hfgi_is_its_e4e_and_unknown_backbones_give_their_generator_only(album, tmp_path, generator):  # noqa: F811
    hfgi = checkpoint(tmp_path / "hfgi.pt", "e4e", generator, hfgi="cut")
    for path in (hfgi, checkpoint(tmp_path / "c.pt", "e4e", generator, hfgi="whole", data="cars_encode")):
        assert inspect_file(path)["details"]["method"] == "e4e"
        assert "used only if it is whole and of square images" in call("inspect", path).output
    cars = checkpoint(tmp_path / "cars.pt", "restyle_e4e", generator, backbone="other")
    assert load_generator(cars).size == SIDE
    assert "its generator only; the encoder's backbone is neither" in call("inspect", cars).output
    assert "neither IR-SE nor a ResNet" in call("convert", cars, tmp_path / "cars.safetensors").output
    channels = {4: 8, 8: 8, 16: 6, 32: 6, 64: 6}
    other = checkpoint(tmp_path / "other.pt", "e4e", Generator(SIDE, DIM, 2, channels=channels))
    add(album, other)
    with pytest.raises(WeightsError, match=r"hfgi\.pt was trained with another generator.*clcae world add"):
        make_inverter("e4e", "w", weights=hfgi, device="cpu")
