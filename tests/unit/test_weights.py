"""Official layouts are recognised by names, sized by shapes, and converted to what the project loads."""

import argparse
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from clcae_lib import cli
from clcae_lib.editing import load_directions, load_ganspace
from clcae_lib.files import sha256
from clcae_lib.models import (
    Generator,
    PublishedEncoder,
    PublishedImageEncoder,
    PublishedLatentEncoder,
)
from clcae_lib.models.identity import ArcFace
from clcae_lib.weights import (
    Contents,
    WeightsError,
    checkpoints,
    convert_file,
    inspect_file,
    load_encoder,
    load_generator,
    read_weights,
    recognise,
)
from tests.conformance import golden
from tests.conformance.official import PublishedInversion
from tests.nvidia_pickle import small_tensors, write_legacy, write_snapshot
from tests.unit._tiny import tiny_generator

BODY = {"widths": (4, 4, 6, 8, 12), "units": (2, 1, 3, 2)}
DIM = 12


def randomised(network):
    draw = torch.Generator().manual_seed(3)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("running_var"):
            tensor.copy_(torch.randn(tensor.shape, generator=draw))
    return network


def tiny_inversion():
    decoder = Generator(64, DIM, 2, channels={4: 8, 8: 8, 16: 6, 32: 6, 64: 4})
    encoder = PublishedEncoder(64, style_dim=DIM, feature_channels=6, style_hidden=5, hidden=7, **BODY)
    return PublishedInversion(encoder, decoder)


def arcface():
    return ArcFace(6, **BODY).state_dict()


def moco():
    names = ("conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight", "fc.weight")
    encoders = {f"module.encoder_{e}.{name}": torch.randn(2, 3) for name in names for e in "qk"}
    return {"epoch": 800, "arch": "resnet50", "state_dict": encoders | {"module.queue": torch.randn(4, 9)}}


def alexnet():
    names = ("features.0", "features.3", "features.6", "features.8", "features.10", "classifier.1")
    return {f"{name}.weight": torch.zeros(2) for name in names}


def pca():
    draw = torch.Generator().manual_seed(0)
    return {
        "mean": torch.randn(1, DIM, generator=draw),
        "comp": torch.randn(4, 1, DIM, generator=draw),
        "std": torch.rand(4, generator=draw),
    }


def inversion_checkpoint():
    options = argparse.Namespace(dataset_type="ffhq_encode", learning_rate=1e-4, resize_outputs=False)
    return {"state_dict": tiny_inversion().state_dict(), "opts": options, "iter": 200_000}


OFFICIAL = {
    "generator": lambda: {"g_ema": tiny_generator().state_dict(), "latent_avg": torch.full((8,), 0.25)},
    "inversion_checkpoint": inversion_checkpoint,
    "contrastive_image": lambda: PublishedImageEncoder(64, dim=DIM, **BODY).state_dict(),
    "contrastive_latent": lambda: PublishedLatentEncoder(DIM).state_dict(),
    "arcface": arcface,
    "moco": moco,
    "alexnet": alexnet,
    "direction": lambda: torch.randn(1, DIM),
    "components": pca,
    "lpips_heads": lambda: {f"lin{i}.model.1.weight": torch.zeros(1, 2, 1, 1) for i in range(5)},
    "training": lambda: {"state_dict": {"a": torch.zeros(2)}, "optimizer_states": [], "epoch": 1},
    "unknown": lambda: {"weight": torch.zeros(2)},
}
SIZES = {"generator": (32, 8), "inversion_checkpoint": (64, DIM), "contrastive_image": (64, DIM)}


@pytest.fixture
def write(tmp_path):
    """A function that writes a file in an official layout, and returns its path."""

    def make(kind, name="official.pt", *, archive=True):
        content = OFFICIAL[kind]()
        if kind == "arcface":  # as a training wraps it
            content = {"state_dict": {f"module.{key}": value for key, value in content.items()}}
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=archive)
        return tmp_path / name

    return make


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
@pytest.mark.parametrize("kind", OFFICIAL)
def test_official_layouts_are_recognised(write, kind, archive):
    path = write(kind, archive=archive)
    report = inspect_file(path)
    assert report["kind"] == kind
    assert report["container"] == ("torch archive" if archive else "torch stream")
    assert (report["resolution"], report["style_dim"]) == SIZES.get(
        kind, (report["resolution"], report["style_dim"])
    )
    assert report["bytes"] == path.stat().st_size
    assert report["sha256"] == sha256(path)
    plain = [t for _, t in _tensors(OFFICIAL[kind]())]
    assert report["tensors"] == len(plain)
    assert report["parameters"] == sum(t.numel() for t in plain)


def _tensors(tree):
    if isinstance(tree, torch.Tensor):
        return [("", tree)]
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [found for item in items for found in _tensors(item)]


BASE = torch.arange(10.0)
TENSORS = {
    "transposed": torch.randn(3, 4).t(),
    "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    "view": BASE[2:5],
    "strided": BASE[1::3],
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0, 3),
    "parameter": torch.nn.Parameter(torch.randn(3)),
    **{str(kind): torch.ones(3, 2, dtype=kind) for kind in (torch.bfloat16, torch.float64, torch.int64)},
    **{str(kind): torch.ones(3, 2, dtype=kind) for kind in (torch.uint8, torch.bool, torch.float16)},
}


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])
def test_tensors_of_every_kind_are_read_bit_for_bit(tmp_path, archive, protocol):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    content = {"state_dict": TENSORS, "optimizer": optimizer, "side": torch.Size([3]), "dtype": torch.float32}
    path = tmp_path / "all.pt"
    torch.save(content, path, _use_new_zipfile_serialization=archive, pickle_protocol=protocol)
    stored = read_weights(path)
    for name, tensor in TENSORS.items():
        loaded = stored.tensors[f"state_dict.{name}"]
        assert loaded.dtype == tensor.dtype
        assert torch.equal(loaded, tensor), name
    assert stored.tree["optimizer"]["param_groups"] == optimizer["param_groups"]
    assert stored.tree["side"] == (3,)


def as_stored(layout):
    """Tensors of a manifest: shapes only."""
    return {name: torch.empty(shape, device="meta") for name, (shape, _, _) in layout.items()}


MANIFESTS = {
    "afpsp_ffhq_256": ("inversion_checkpoint", lambda c: PublishedEncoder(**c), "encoder."),
    "generator_256": ("generator", lambda c: Generator(**c), ""),
    "generator_512": ("generator", lambda c: Generator(**c), ""),
    "generator_1024": ("generator", lambda c: Generator(**c), ""),
    "image_encoder": ("contrastive_image", lambda c: PublishedImageEncoder(**c), ""),
    "latent_encoder": ("contrastive_latent", lambda c: PublishedLatentEncoder(**c), ""),
    "arcface_irse50": ("arcface", None, ""),
    "lpips_alex": ("lpips", None, ""),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_full_networks_are_recognised_and_rebuilt_from_their_shapes(tmp_path, name):
    kind, build, prefix = MANIFESTS[name]
    layout = golden.manifest(name)
    tensors = as_stored(layout)
    found = recognise(Contents(tmp_path / "full.pt", "torch archive", tensors, dict(tensors)))
    assert found.kind == kind
    if build is not None:
        with torch.device("meta"):
            own = build(found.facts["config"]).state_dict()
        expected = {key.removeprefix(prefix): v[0] for key, v in layout.items() if key.startswith(prefix)}
        assert {key: list(value.shape) for key, value in own.items()} == expected
    if kind == "arcface":
        assert found.facts["config"] == {
            "widths": [64, 64, 128, 256, 512],
            "units": [3, 4, 14, 3],
            "dim": 512,
        }
        assert found.facts["resolution"] == 112


def test_a_generator_keeps_its_images_and_its_mean(write, tmp_path):
    target = convert_file(write("generator"), tmp_path / "data" / "generator.safetensors")
    original, loaded = tiny_generator(), load_generator(target)
    assert torch.equal(loaded.w_avg, torch.full((8,), 0.25))
    assert torch.allclose(loaded.w_std, original.w_std, rtol=0.2)
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded(z), original(z))
    assert checkpoints.check_chain(target.parent) == []
    card = checkpoints.read_card(target)
    assert card["converted_from"] == {"file": "official.pt", "sha256": sha256(tmp_path / "official.pt")}


def test_an_inversion_checkpoint_gives_encoder_and_generator(tmp_path):
    network = randomised(tiny_inversion()).eval()
    options = argparse.Namespace(dataset_type="car_encode")
    state = {"state_dict": network.state_dict(), "opts": options, "iter": 3}
    torch.save(state, tmp_path / "best.pt")
    generator = load_generator(
        convert_file(tmp_path / "best.pt", tmp_path / "generator.safetensors", part="generator")
    )
    w = generator.sample_w(2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(generator.synthesis(w), network.decoder.synthesis(w))
    assert checkpoints.read_metadata(tmp_path / "generator.safetensors")["w_avg"] == "measured"
    path = convert_file(tmp_path / "best.pt", tmp_path / "inversion_published.safetensors")
    said = checkpoints.read_metadata(path)
    assert (said["preset"], said["domain"], said["steps"]) == ("published", "cars", 3)
    encoder = load_encoder(path, generator)
    assert said["config"]["height"] == 48, "an encoder of cars reads images of 4 to 3"
    network.encoder.config["height"] = 48
    network.encoder.attach(generator)
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(5)) * 2 - 1
    with torch.no_grad():
        for mine, official in zip(encoder(images), network.encoder(images), strict=True):
            assert torch.equal(mine, official)


def test_encoders_and_identity_networks_keep_their_names(write, tmp_path):
    for kind, build in {
        "contrastive_image": PublishedImageEncoder,
        "contrastive_latent": PublishedLatentEncoder,
    }.items():
        path = convert_file(write(kind), tmp_path / f"{kind}.safetensors")
        tensors, metadata = checkpoints.load_weights(path, kind=kind)
        checkpoints.load_into(build(**metadata["config"]), tensors, source=path)
    path = convert_file(write("arcface"), tmp_path / "arcface.safetensors")
    tensors, metadata = checkpoints.load_weights(path, kind="arcface")
    assert tensors.keys() == arcface().keys()
    assert metadata["config"] == {"widths": [4, 4, 6, 8, 12], "units": [2, 1, 3, 2], "dim": 6}
    path = convert_file(write("moco", "moco.pth.tar", archive=False), tmp_path / "moco.safetensors")
    tensors, metadata = checkpoints.load_weights(path, kind="moco")
    assert sorted(tensors) == ["conv1.weight", "fc.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"]


@pytest.mark.parametrize("shape", [(1, DIM), (1, 18, DIM)])
def test_directions_are_the_same_after_conversion(tmp_path, shape):
    torch.manual_seed(0)
    torch.save(torch.randn(shape), tmp_path / "smile.pt")
    path = convert_file(tmp_path / "smile.pt", tmp_path / "directions.safetensors")
    original, converted = load_directions(tmp_path / "smile.pt")["smile"], load_directions(path)["smile"]
    assert torch.equal(original.vector, converted.vector)
    assert (original.name, original.space) == (converted.name, converted.space)
    np.save(tmp_path / "age.npy", np.random.default_rng(0).standard_normal(shape))
    assert inspect_file(tmp_path / "age.npy")["container"] == "npy"
    path = convert_file(tmp_path / "age.npy", tmp_path / "age.safetensors")
    assert torch.equal(
        load_directions(path)["age"].vector, load_directions(tmp_path / "age.npy")["age"].vector
    )


def test_components_are_the_same_after_conversion(write, tmp_path):
    source = write("components")
    path = convert_file(source, tmp_path / "pca.safetensors")
    before, after = load_ganspace(source), load_ganspace(path)
    for name in ("mean", "vectors", "std"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    with pytest.raises(WeightsError, match="holds 'directions', not 'components'"):
        load_ganspace(convert_file(write("direction"), tmp_path / "other.safetensors"))


@pytest.mark.parametrize(("protocol", "whole"), [(2, False), (3, False), (4, True), (5, False)])
def test_snapshots_of_every_protocol(tmp_path, protocol, whole):
    tensors = small_tensors()
    name = "synthesis.b8.conv0.weight"
    tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)
    path = write_snapshot(
        tmp_path / "a.pkl", tensors, protocol=protocol, whole=whole, img_resolution=16, w_dim=8, c_dim=0
    )
    report = inspect_file(path)
    assert (report["kind"], report["resolution"], report["style_dim"]) == ("nvidia", 16, 8)
    assert report["details"]["config"]["conv_clamp"] == 256
    stored = read_weights(path).tensors
    for name, tensor in tensors.items():
        assert torch.equal(stored[f"G_ema.{name}"], tensor)
    generator = load_generator(convert_file(path, tmp_path / "generator.safetensors"))
    assert torch.equal(generator.w_avg, tensors["mapping.w_avg"])
    assert torch.equal(generator.convs[1].conv.weight[0], tensors["synthesis.b8.conv1.weight"])
    assert torch.equal(generator.noises.noise_2[0, 0], tensors["synthesis.b8.conv1.noise_const"])


UNSUPPORTED = {
    "StyleGAN3": (
        {"synthesis.input.freqs": torch.zeros(4, 2), "mapping.w_avg": torch.zeros(8)},
        {},
        "StyleGAN3",
    ),
    "conditional": (small_tensors(), {"c_dim": 10}, r"conditional generator \(c_dim > 0\)"),
    "classes": (small_tensors() | {"mapping.embed.weight": torch.zeros(8, 3)}, {}, "conditional generator"),
    "z": (small_tensors() | {"mapping.fc0.weight": torch.zeros(8, 16)}, {}, "z and w differ in length"),
    "filter": (
        small_tensors() | {"synthesis.b8.resample_filter": torch.ones(4, 4) / 16},
        {},
        r"a low-pass filter other than \[1, 3, 3, 1\]",
    ),
    "extra": (
        small_tensors() | {"synthesis.b8.skip.weight": torch.zeros(2)},
        {},
        r"1 tensor\(s\) that do not fit.*b8\.skip\.weight: \[2\] in the file, none expected",
    ),
    "nan": (small_tensors() | {"mapping.w_avg": torch.full((8,), torch.nan)}, {}, "not finite in w_avg"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_other_generators_are_refused_with_one_sentence(tmp_path, case):
    tensors, settings, message = UNSUPPORTED[case]
    path = write_snapshot(tmp_path / "other.pkl", tensors, **settings)
    with pytest.raises(WeightsError, match=message) as caught:
        convert_file(path, tmp_path / "out.safetensors")
    assert str(caught.value).startswith(f"{path} ")
    assert not (tmp_path / "out.safetensors").exists()
    assert inspect_file(path)["kind"] == ("nvidia_stylegan3" if case == "StyleGAN3" else "nvidia")


@pytest.mark.parametrize("protocol", [2, 4])
def test_tensorflow_snapshots_give_the_same_generator(tmp_path, protocol):
    tensors = small_tensors()
    old = write_legacy(tmp_path / "tf.pkl", tensors, protocol=protocol, resolution=16)
    report = inspect_file(old)
    assert (report["kind"], report["resolution"], report["style_dim"]) == ("nvidia_tensorflow", 16, 8)
    old = load_generator(convert_file(old, tmp_path / "old.safetensors"))
    new = write_snapshot(tmp_path / "new.pkl", tensors)
    new = load_generator(convert_file(new, tmp_path / "new.safetensors"))
    for (name, mine), other in zip(old.state_dict().items(), new.state_dict().values(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6), name  # 1 is taken from the bias and added again
    assert torch.equal(old.w_avg, new.w_avg)


def test_a_checkpoint_that_lacks_a_tensor_says_which(tmp_path):
    state = tiny_inversion().state_dict()
    del state["encoder.latlayer1.bias"]
    torch.save({"state_dict": state}, tmp_path / "best.pt")
    with pytest.raises(
        WeightsError, match=r"best\.pt has 1 tensor\(s\).*latlayer1\.bias: none in the file, \[12\]"
    ):
        convert_file(tmp_path / "best.pt", tmp_path / "out.safetensors")


def test_half_precision_rounds_matrices_and_is_checked(write, tmp_path):
    path = convert_file(write("generator"), tmp_path / "half.safetensors", half=True)
    loaded, original = load_generator(path), tiny_generator()
    assert torch.equal(loaded.convs[0].conv.weight, original.convs[0].conv.weight.half().float())
    assert torch.equal(loaded.convs[0].activate.bias, original.convs[0].activate.bias)
    full = convert_file(write("generator"), tmp_path / "full.safetensors")
    assert path.stat().st_size < 0.7 * full.stat().st_size


def test_half_precision_that_would_overflow_is_refused(tmp_path):
    torch.save(pca() | {"mean": torch.full((1, DIM), 1e6)}, tmp_path / "pca.pt")
    with pytest.raises(WeightsError, match=r"pca\.pt has numbers in mean that exceed.*leave --half out"):
        convert_file(tmp_path / "pca.pt", tmp_path / "out.safetensors", half=True)
    convert_file(tmp_path / "pca.pt", tmp_path / "out.safetensors")


def test_what_is_written_wrongly_never_takes_its_place(write, tmp_path, monkeypatch):
    source, target = write("generator"), tmp_path / "generator.safetensors"
    real = checkpoints.save_weights

    def careless(path, tensors, **options):
        return real(path, tensors | {"w_avg": tensors["w_avg"] + 1}, **options)

    monkeypatch.setattr(checkpoints, "save_weights", careless)
    with pytest.raises(WeightsError, match="w_avg was not written correctly"):
        convert_file(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["official.pt"]


def test_a_target_is_replaced_only_on_request(write, tmp_path):
    source, target = write("direction"), tmp_path / "d.safetensors"
    convert_file(source, target)
    before = sha256(target)
    source = write("components", "other.pt")
    with pytest.raises(WeightsError, match=r"d\.safetensors exists; give another target, or .*--force"):
        convert_file(source, target)
    assert sha256(target) == before
    convert_file(source, target, force=True)
    assert checkpoints.read_metadata(target)["kind"] == "components"
    with pytest.raises(WeightsError, match=r"is the source itself"):
        convert_file(target, target, force=True)
    with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
        convert_file(source, tmp_path / "x.pt")


def test_what_is_not_converted_says_what_it_is(write, tmp_path):
    for kind, message in (
        ("alexnet", "AlexNet.*not converted"),
        ("unknown", "is unknown, which is not converted"),
    ):
        with pytest.raises(WeightsError, match=message):
            convert_file(write(kind), tmp_path / "out.safetensors")
    with pytest.raises(WeightsError, match="has no part 'encoder'; leave --part out"):
        convert_file(write("generator"), tmp_path / "out.safetensors", part="encoder")
    with pytest.raises(WeightsError, match=r"no part 'decoder'"):
        convert_file(write("inversion_checkpoint"), tmp_path / "out.safetensors", part="decoder")


def test_the_projects_own_files_are_known(repository, tmp_path):
    report = inspect_file(repository / "data" / "portraits" / "generator.safetensors")
    assert (report["kind"], report["resolution"], report["style_dim"]) == ("own:generator", 64, 128)
    report = inspect_file(repository / "data" / "portraits" / "inversion_published.safetensors")
    assert (report["kind"], report["details"]["preset"]) == ("own:inversion", "published")
    assert "load_encoder" in report["fits"]
    checkpoints.save_state(tmp_path / "state.pt", {"modules": {}, "optimizers": {}, "step": 7})
    assert inspect_file(tmp_path / "state.pt")["kind"] == "training"


def call(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_the_commands(write, tmp_path):
    source, target = write("generator"), tmp_path / "generator.safetensors"
    result = call("inspect", source)
    assert result.exit_code == 0, result.output
    assert "StyleGAN2 generator in the PyTorch (rosinality) layout" in result.output
    report = json.loads(call("inspect", "--json", source).output)
    assert (report["kind"], report["resolution"], report["sha256"]) == ("generator", 32, sha256(source))
    result = call("convert", source, target, "--half")
    assert result.exit_code == 0, result.output
    assert "load_generator" in result.output
    assert load_generator(target).size == 32
    result = call("convert", source, target)
    assert result.exit_code == 2
    assert "error:" in result.output
    assert "--force" in result.output
    (tmp_path / "evil.pkl").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    result = call("inspect", tmp_path / "evil.pkl")
    assert result.exit_code == 2
    assert "evil.pkl is refused: it names posix.system" in result.output
    assert "Traceback" not in result.output
    assert call("inspect", tmp_path / "none.pt").exit_code == 2
