"""The official layouts, in files written here; large ones hold one number a tensor, at its full shape."""

import argparse
import os

import pytest
import torch
from lightning_fabric import Fabric

from clcae_lib.inversion import ClcaeInverter
from clcae_lib.models import ArcFace, Generator, PublishedImageEncoder, PublishedLatentEncoder, official
from clcae_lib.models.moco import MocoFeatures
from clcae_lib.models.published import DOMAINS, resize_as_pil
from clcae_lib.training.inversion import AlignmentTerm
from clcae_lib.visuals.explorer._sources import Sources
from clcae_lib.worlds import get_world
from clcae_lib.worlds.photos import BUILT_IN


def hollow(make, *, prefix="", number=0.1):
    """A state dict of the full shapes whose tensors repeat one number, so that its file is small."""
    with torch.device("meta"):
        state = make().state_dict()
    return {
        prefix + name: torch.full((), number, dtype=value.dtype).expand(value.shape)
        for name, value in state.items()
    }


def written(path, content, **options):
    torch.save(content, path, **options)
    return path


@pytest.fixture(scope="module")
def stylegan(tmp_path_factory):
    torch.manual_seed(0)
    net = Generator(8)
    content = {
        "g_ema": net.state_dict(),
        "latent_avg": torch.full((512,), 0.2),
        "args": argparse.Namespace(a=1),
    }
    return written(tmp_path_factory.mktemp("official") / "stylegan2.pt", content), net.eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inversion")
    state = hollow(lambda: official.build_inversion(256))
    opts = argparse.Namespace(output_size=256, learn_in_w=True)
    return written(folder / "inversion.pt", {"state_dict": state, "opts": opts, "iter": 5}), state


@torch.no_grad()
def test_generator_is_read_with_its_mean_code(stylegan):
    path, net = stylegan
    loaded = official.load_official_generator(path)
    assert loaded.size == 8
    assert torch.equal(loaded.w_avg, torch.full((512,), 0.2))
    assert loaded.w_std.min() > 0
    w = torch.randn(2, 512)
    assert torch.equal(loaded.synthesis(w), net.synthesis(w))
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not loaded.training


def test_a_mean_code_that_is_repeated_or_missing(tmp_path, stylegan):
    state = stylegan[1].state_dict()
    rows = written(tmp_path / "rows.pt", {"g_ema": state, "latent_avg": torch.ones(4, 512)})
    assert official.load_official_generator(rows).w_avg.shape == (512,)
    without = official.load_official_generator(written(tmp_path / "none.pt", {"g_ema": state}))
    assert without.w_avg.abs().max() > 0
    for wrong in (torch.randn(4, 512), torch.ones(7)):
        path = written(tmp_path / "wrong.pt", {"g_ema": state, "latent_avg": wrong})
        with pytest.raises(ValueError, match="latent_avg"):
            official.load_official_generator(path)


def test_differences_are_named(tmp_path, stylegan):
    state = dict(stylegan[1].state_dict())
    state["conv2.bias"] = torch.ones(2)
    del state["input.input"]
    state["conv1.noise.weight"] = torch.ones(3)
    path = written(tmp_path / "other.pt", {"g_ema": state})
    with pytest.raises(ValueError, match=r"other\.pt does not fit Generator") as error:
        official.load_official_generator(path)
    for part in (
        "missing: input.input",
        "unexpected: conv2.bias",
        "conv1.noise.weight is [3] in the file, [1]",
    ):
        assert part in str(error.value)
    with pytest.raises(ValueError, match=r'expected a dictionary with "g_ema", has latent_avg'):
        official.load_official_generator(written(tmp_path / "no.pt", {"latent_avg": torch.ones(512)}))
    with pytest.raises(FileNotFoundError, match=r"absent\.pt does not exist"):
        official.load_official_generator(tmp_path / "absent.pt")


@pytest.mark.parametrize("domain", DOMAINS)
def test_inversion_checkpoint_takes_its_mean_code_from_the_generators_file(checkpoint, tmp_path, domain):
    path, state = checkpoint
    stylegan = written(tmp_path / "stylegan.pt", {"g_ema": {}, "latent_avg": torch.full((512,), 0.3)})
    network = official.load_official_inversion(path, stylegan=stylegan, domain=domain)
    assert (network.decoder.size, network.domain) == (256, domain)
    assert torch.equal(network.encoder.w_avg, torch.full((512,), 0.3))
    assert network.encoder.average.shape[-2:] == ((192, 256) if domain == "cars" else (256, 256))
    assert set(network.state_dict()) == set(state)
    assert not any(tensor.is_meta for tensor in [*network.parameters(), *network.buffers()])


def test_inversion_checkpoint_needs_a_mean_code(checkpoint, tmp_path):
    path, _ = checkpoint
    with pytest.raises(ValueError, match="give stylegan="):
        official.load_official_inversion(path)
    bare = written(tmp_path / "bare.pt", {"g_ema": {}})
    with pytest.raises(ValueError, match="has no latent_avg"):
        official.load_official_inversion(path, stylegan=bare)


def test_what_differs_in_an_inversion_checkpoint(checkpoint, tmp_path):
    mean, state = torch.zeros(512), dict(checkpoint[1])
    del state["encoder.latlayer1.bias"]
    short = written(tmp_path / "short.pt", {"state_dict": state})
    with pytest.raises(ValueError, match=r"missing: encoder\.latlayer1\.bias"):
        official.load_official_inversion(short, latent_avg=mean)
    with pytest.raises(ValueError, match=r"missing: .*encoder\.cross_attention\.17"):
        official.load_official_inversion(checkpoint[0], size=1024, latent_avg=mean)
    other = written(tmp_path / "other.pt", {"state_dict": {"body.0.weight": torch.ones(1)}})
    with pytest.raises(ValueError, match="is no inversion checkpoint"):
        official.load_official_inversion(other, latent_avg=mean)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_contrastive_pair_and_identity_network(tmp_path, prefix, zipped):
    how = {"_use_new_zipfile_serialization": zipped}
    image = written(
        tmp_path / "image.pt", {"state_dict": hollow(PublishedImageEncoder, prefix=prefix)}, **how
    )
    latent = written(tmp_path / "latent.pt", hollow(PublishedLatentEncoder, prefix=prefix), **how)
    pair = official.load_official_contrastive(image, latent)
    assert [type(net) for net in pair] == [PublishedImageEncoder, PublishedLatentEncoder]
    assert float(pair[0].logit_scale) == pytest.approx(0.1)
    arcface = official.load_arcface(written(tmp_path / "irse50.pth", hollow(ArcFace, prefix=prefix), **how))
    assert arcface(torch.zeros(1, 3, 64, 256)).shape == (1, 512)
    with pytest.raises(ValueError, match=r"image\.pt does not fit ArcFace"):
        official.load_arcface(image)


def test_moco_leaves_its_head_and_its_key_encoder_behind(tmp_path):
    state = hollow(MocoFeatures, number=0.01)
    state = {name.replace("net.", "module.encoder_q.", 1): value for name, value in state.items()}
    more = {"module.encoder_q.fc.0.weight": torch.ones(2, 2), "module.queue": torch.ones(2)}
    path = written(tmp_path / "moco.pth.tar", {"epoch": 800, "arch": "resnet50", "state_dict": state | more})
    net = official.load_moco(path)
    pictures = torch.rand(2, 3, 192, 256) * 2 - 1
    torch.testing.assert_close(net(pictures).norm(dim=1), torch.ones(2))
    torch.testing.assert_close(net.similarity(pictures, pictures), torch.ones(2))
    with pytest.raises(ValueError, match=r"begin with 'module\.encoder_q\.', has conv1"):
        official.load_moco(written(tmp_path / "plain.pth", {"conv1.weight": torch.ones(1)}))
    odd = written(tmp_path / "odd.pth", {"state_dict": state | {"module.other": torch.ones(1)}})
    with pytest.raises(ValueError, match=r"unexpected: net\.module\.other"):
        official.load_moco(odd)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_nothing_in_a_file_is_run(tmp_path):
    mark = tmp_path / "ran"
    for zipped in (True, False):
        content = {"state_dict": {}, "opts": argparse.Namespace(x=Payload(mark))}
        path = written(tmp_path / "evil.pt", content, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"evil\.pt is damaged or holds more than tensors"):
            official.read_official(path)
        assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"text", b"\x80\x04N."])
def test_damaged_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "bad.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.pt"):
        official.read_official(path)


def test_other_contents_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a dictionary, found list"):
        official.read_official(written(tmp_path / "list.pt", [1]))
    with pytest.raises(ValueError, match="expected tensors alone; b are none"):
        official.state_dict_of(written(tmp_path / "mixed.pt", {"a": torch.ones(1), "b": 2}))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "rows"), [("ffhq", 256, 14), ("cars", 512, 16)])
def test_a_world_inverts_with_the_official_checkpoint_in_its_folder(tmp_path, monkeypatch, name, size, rows):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    folder = tmp_path / name
    folder.mkdir()
    domain = "cars" if name == "cars" else "faces"
    state = hollow(lambda: official.build_inversion(size, domain=domain), number=0.001)
    written(folder / "clcae.pt", {"state_dict": state, "iter": 5})
    decoder = {key.removeprefix("decoder."): v for key, v in state.items() if key.startswith("decoder.")}
    written(folder / "stylegan2.pt", {"g_ema": decoder, "latent_avg": torch.full((512,), 0.2)})
    monkeypatch.setitem(BUILT_IN, name, BUILT_IN[name].model_copy(update={"resolution": size}))
    inverter = ClcaeInverter.load(name, "published", "cpu")
    assert torch.equal(inverter.encoder.w_avg, torch.full((512,), 0.2))
    assert inverter.encoder.config["height"] == (192 if name == "cars" else None)
    inversion = inverter.invert(torch.zeros(1, 3, size, size))
    assert inversion.w_plus.shape == (1, rows, 512)
    assert inversion.feature.shape == (1, 512, 16, 16)
    assert "published" in Sources(get_world(name), inverter.generator, torch.device("cpu")).methods


@torch.no_grad()
def test_the_official_pair_is_an_alignment(tmp_path):
    generator = Generator(256).eval()
    pair = PublishedImageEncoder().eval(), PublishedLatentEncoder().eval()
    with pytest.raises(ValueError, match="has to hold the official"):
        official.load_official_alignment(tmp_path, generator)
    written(tmp_path / "b.pt", pair[0].state_dict())
    written(tmp_path / "a.pt", pair[1].state_dict())
    images, codes, scale = official.load_official_alignment(tmp_path, generator)
    picture, w = torch.rand(2, 3, 256, 256) * 2 - 1, torch.randn(2, 512)
    average = generator.synthesis(generator.w_avg[None])
    assert torch.allclose(images(picture), pair[0](picture, average), atol=1e-5)
    assert torch.allclose(codes(w), pair[1](w, generator.w_avg[None]), atol=1e-5)
    assert scale == pytest.approx(1 / 0.07, rel=1e-4)

    flat = official.load_official_alignment(tmp_path, generator, height=192)[0]
    squeezed, cars = resize_as_pil(average, 192, 256), picture[:, :, 32:224]
    assert torch.allclose(flat(cars), pair[0](cars, squeezed), atol=1e-5)

    term = AlignmentTerm((images, codes, scale))
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as a training calls it
        loss = term(picture, w, fabric=Fabric(accelerator="cpu", devices=1))
    assert loss.dtype == torch.float32
    assert loss.isfinite()
