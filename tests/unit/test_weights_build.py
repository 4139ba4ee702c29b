"""Networks from files in the official layouts, as published and as they are passed on, of any width."""

import argparse

import pytest
import torch
from lightning_fabric import Fabric

from clcae_lib.models import ArcFace, Generator, PublishedImageEncoder, PublishedLatentEncoder
from clcae_lib.models.identity import MocoFeatures
from clcae_lib.models.published import resize_as_pil
from clcae_lib.training.inversion import AlignmentTerm
from clcae_lib.weights import (
    WeightsError,
    export_generator,
    inspect_file,
    load_arcface,
    load_contrastive,
    load_generator,
    load_inversion,
    load_moco,
)
from tests.conformance.golden import manifest
from tests.unit._tiny import tiny_generator
from tests.unit.test_weights import BODY, DIM, tiny_inversion


def written(path, content, **options):
    torch.save(content, path, **options)
    return path


def state(generator=None, prefix=""):
    return {f"{prefix}{name}": t.clone() for name, t in (generator or tiny_generator()).state_dict().items()}


MEAN = torch.full((8,), 0.25)
LAYOUTS = {  # as they are met in reports; what is written, and the name of the file
    "as published": (lambda: {"g_ema": state(), "latent_avg": MEAN, "args": argparse.Namespace(a=1)}, "a.pt"),
    "a mean code for every layer": (lambda: {"g_ema": state(), "latent_avg": MEAN.repeat(8, 1)}, "a.pt"),
    "DataParallel's names": (lambda: state(prefix="module."), "a.pt"),
    "a bare state dict": (state, "a.PT"),
    "one dictionary under two names": (lambda: dict.fromkeys(("g", "g_ema"), state()), "a.pt"),
    "another ending": (lambda: {"g_ema": state()}, "a.weights.pkl"),
}


@torch.no_grad()
@pytest.mark.parametrize("lr_mlp", [0.01, 0.1])
def test_an_exported_generator_is_what_readers_of_the_official_layout_expect(tmp_path, lr_mlp):
    """They load it strictly, and give the mapping network the learning-rate multiplier 0.01."""
    original = Generator(256, 8, 8, channels={4 << level: 4 for level in range(7)}, lr_mlp=lr_mlp)
    original.measure_w(100)
    path = export_generator(tmp_path / "g.pt", original)
    stored, official = torch.load(path, weights_only=True), manifest("generator_256")
    ranks = {name: len(shape) for name, (shape, *_) in official.items()}
    assert {name: tensor.ndim for name, tensor in stored["g_ema"].items()} == ranks
    for name, tensor in stored["g_ema"].items():
        if name.startswith("noises.") or name.endswith(".kernel"):
            assert list(tensor.shape) == official[name][0], name
    assert torch.equal(stored["latent_avg"], original.w_avg)
    loaded, z = load_generator(path), torch.randn(2, 8)
    torch.testing.assert_close(loaded.mapping(z), original.mapping(z))
    w = loaded.mapping(z)
    assert torch.equal(loaded.synthesis(w), original.synthesis(w))


@torch.no_grad()
@pytest.mark.parametrize("name", LAYOUTS)
def test_generators_as_they_are_passed_on(tmp_path, name):
    make, file = LAYOUTS[name]
    path, original = written(tmp_path / file, make()), tiny_generator()
    assert inspect_file(path)["kind"] == "generator"
    loaded = load_generator(path)
    w = torch.randn(2, 8)
    assert torch.equal(loaded.synthesis(w), original.synthesis(w))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    expected = MEAN if "mean" in name or "published" in name else original.w_avg
    torch.testing.assert_close(loaded.w_avg, expected, atol=0.1, rtol=0.1)
    assert loaded.w_std.min() > 0


def test_what_is_wrong_with_a_generator_is_named(tmp_path):
    for wrong, message in ((torch.randn(4, 8), "rows that differ"), (torch.ones(7), r"w_avg \[7\]")):
        path = written(tmp_path / "wrong.pt", {"g_ema": state(), "latent_avg": wrong})
        with pytest.raises(WeightsError, match=rf"wrong\.pt has .*{message}"):
            load_generator(path)
    tensors = state() | {"conv2.bias": torch.ones(2), "conv1.noise.weight": torch.ones(3)}
    del tensors["noises.noise_0"]
    with pytest.raises(WeightsError, match=r"other\.pt has 3 tensor\(s\) that do not fit Generator") as error:
        load_generator(written(tmp_path / "other.pt", {"g_ema": tensors}))
    for part in ("conv2.bias: [2] in the file, none expected", "noises.noise_0: none in the file"):
        assert part in str(error.value)
    assert "conv1.noise.weight: [3] in the file, [1] expected" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(
        WeightsError, match=r"no\.pt is unknown \(tensors: latent_avg\); give a file of this kind: StyleGAN2"
    ):
        load_generator(written(tmp_path / "no.pt", {"latent_avg": MEAN[:3]}))
    with pytest.raises(FileNotFoundError, match=r"absent\.pt does not exist"):
        load_generator(tmp_path / "absent.pt")


def checkpoint(path, network, **settings):
    return written(
        path, {"state_dict": network.state_dict(), "opts": argparse.Namespace(**settings), "iter": 5}
    )


@torch.no_grad()
@pytest.mark.parametrize("domain", ["faces", "cars"])
def test_an_inversion_checkpoint_takes_its_mean_code_from_the_worlds_generator(tmp_path, domain):
    network = tiny_inversion().eval()
    path, world = checkpoint(tmp_path / "best.pt", network), network.decoder
    world.w_avg.fill_(0.3)
    encoder, decoder = load_inversion(path, world, domain=domain)
    assert torch.equal(encoder.w_avg, world.w_avg)
    assert torch.equal(decoder.w_avg, world.w_avg)
    assert encoder.average.shape[-2:] == ((48, 64) if domain == "cars" else (64, 64))
    network.encoder.config["height"] = encoder.config["height"]
    network.encoder.attach(world)
    images = torch.rand(2, 3, *encoder.average.shape[-2:]) * 2 - 1
    for mine, official in zip(encoder(images), network.encoder(images), strict=True):
        assert torch.equal(mine, official)
    assert not any(t.is_meta for net in (encoder, decoder) for t in [*net.parameters(), *net.buffers()])


def test_what_is_wrong_with_an_inversion_checkpoint_is_named(tmp_path):
    network = tiny_inversion()
    tensors = {name: t for name, t in network.state_dict().items() if name != "encoder.latlayer1.bias"}
    with pytest.raises(
        WeightsError, match=r"short\.pt has 1 tensor.*latlayer1\.bias: none in the file, \[12\]"
    ):
        load_inversion(written(tmp_path / "short.pt", {"state_dict": tensors}), network.decoder)
    with pytest.raises(WeightsError, match="is for images of 64 pixels, not of 32"):
        load_inversion(checkpoint(tmp_path / "best.pt", network), Generator(32, DIM, 2))
    with pytest.raises(WeightsError, match=r"g\.pt is StyleGAN2 .* .*kind: CLCAE inversion checkpoint"):
        load_inversion(written(tmp_path / "g.pt", {"g_ema": state()}), network.decoder)


def test_the_identity_network(tmp_path):
    network, images = ArcFace(6, **BODY).eval(), torch.rand(1, 3, 64, 256)
    for prefix in ("", "module."):
        path = written(tmp_path / "irse50.pth", state(network, prefix), _use_new_zipfile_serialization=False)
        assert torch.equal(load_arcface(path)(images), network(images))
    with pytest.raises(WeightsError, match=r"g\.pt is StyleGAN2 .* .*kind: IR-SE50"):
        load_arcface(written(tmp_path / "g.pt", {"g_ema": state()}))


def test_moco_leaves_its_head_and_its_key_encoder_out(tmp_path):
    names = {
        name.replace("net.", "module.encoder_q.", 1): t for name, t in MocoFeatures().state_dict().items()
    }
    more = {"module.encoder_q.fc.0.weight": torch.ones(2, 2), "module.queue": torch.ones(2)}
    path = written(tmp_path / "moco.pth.tar", {"epoch": 800, "arch": "resnet50", "state_dict": names | more})
    images = torch.rand(2, 3, 192, 256) * 2 - 1
    torch.testing.assert_close(load_moco(path)(images).norm(dim=1), torch.ones(2))
    odd = names | {"module.encoder_q.other": torch.ones(1)}
    with pytest.raises(
        WeightsError, match=r"odd\.pth has 1 tensor.*net\.other: \[1\] in the file, none expected"
    ):
        load_moco(written(tmp_path / "odd.pth", {"state_dict": odd}))
    with pytest.raises(WeightsError, match="kind: MoCo v2 ResNet-50"):
        load_moco(written(tmp_path / "plain.pth", {"conv1.weight": torch.ones(1)}))


@torch.no_grad()
def test_the_official_pair_is_an_alignment(tmp_path):
    generator = tiny_inversion().decoder.eval()
    pair = PublishedImageEncoder(64, dim=DIM, **BODY).eval(), PublishedLatentEncoder(DIM).eval()
    with pytest.raises(WeightsError, match="must hold the official"):
        load_contrastive(tmp_path, generator)
    written(tmp_path / "b.pt", {"state_dict": pair[0].state_dict()})
    written(tmp_path / "a.pt", state(pair[1], "module."), _use_new_zipfile_serialization=False)
    images, codes, scale = load_contrastive(tmp_path, generator)
    image, w = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randn(2, DIM)
    pair[0].average = generator.synthesis(generator.w_avg[None])
    pair[1].w_avg.copy_(generator.w_avg)
    assert torch.allclose(images(image), pair[0](image), atol=1e-5)
    assert torch.allclose(codes(w), pair[1](w), atol=1e-5)
    assert scale == pytest.approx(1 / 0.07, rel=1e-4)

    flat = load_contrastive(tmp_path, generator, height=48)[0]
    pair[0].average, cars = resize_as_pil(pair[0].average, 48, 64), image[:, :, 8:56]
    assert torch.allclose(flat(cars), pair[0](cars), atol=1e-5)

    term = AlignmentTerm((images, codes, scale))
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as a training calls it
        loss = term(image, w, fabric=Fabric(accelerator="cpu", devices=1))
    assert loss.dtype == torch.float32
    assert loss.isfinite()
