"""A StyleGAN2 pickle of NVIDIA's layout gives NVIDIA's images: golden numbers of stylegan2-ada-pytorch."""

import re

import numpy as np
import pytest
import torch

from clcae_lib.weights import convert_file, load_generator, read_weights
from clcae_lib.weights.build import to_generator
from clcae_lib.weights.nvidia import find_generator
from tests.conformance import fill, golden
from tests.nvidia_pickle import write_snapshot

STEP = 3
NOISE = 1e-4  # of the rms; NVIDIA's own arithmetic in float32 against float64 differs by up to 4.6e-6
RULES = (  # the first that matches: name, spread, middle
    (r"^mapping\.fc\d+\.weight$", 100.0, 0.0),
    (r"^mapping\.fc\d+\.bias$", 10.0, 0.0),
    (r"^mapping\.w_avg$", 0.3, 0.0),
    (r"\.affine\.bias$", 0.1, 1.0),
    (r"\.torgb\.weight$", 0.2, 0.0),
    (r"\.(noise_strength|conv[01]\.bias|torgb\.bias)$", 0.1, 0.0),
    (r"", 1.0, 0.0),
)


def filled(name, shape):
    if name.endswith(".resample_filter"):
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        return torch.outer(line, line)
    spread, middle = next((a, b) for pattern, a, b in RULES if re.search(pattern, name))
    values = middle + spread * fill.normal(name, tuple(shape), fill.WEIGHTS)
    return torch.from_numpy(np.asarray(values, np.float32).reshape(shape))


@pytest.fixture(scope="module")
def tensors():
    return {name: filled(name, shape) for name, (shape, _, _) in golden.manifest("nvidia_small64").items()}


@pytest.fixture(scope="module")
def snapshot(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("nvidia") / "network-snapshot.pkl"
    return write_snapshot(path, tensors, img_resolution=64, z_dim=512, w_dim=512, c_dim=0, img_channels=3)


@pytest.fixture(scope="module")
def generator(snapshot):
    return to_generator(find_generator(read_weights(snapshot).tree))


@pytest.fixture(scope="module")
def expected():
    return golden.fixture("nvidia_small64")


def assert_image(image, expected, name):
    assert golden.distance(image[:, :, ::STEP, ::STEP], expected[name]) <= NOISE
    if f"{name}_mean" in expected:
        assert golden.distance(image.mean((2, 3)), expected[f"{name}_mean"]) <= NOISE
        assert golden.distance(image.std((2, 3), correction=0), expected[f"{name}_std"]) <= NOISE


def test_every_tensor_of_the_pickle_is_read_bit_for_bit(snapshot, tensors):
    found = read_weights(snapshot).tensors
    assert {name.removeprefix("G_ema.") for name in found} == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[f"G_ema.{name}"], tensor), name


@pytest.mark.parametrize("psi", [1.0, 0.7])
def test_codes_and_images_of_latents(generator, expected, psi):
    z = fill.vector("z", (2, 512))
    name = "1" if psi == 1 else str(psi)
    w = generator.truncate(generator.mapping(z), generator.w_avg, psi)
    assert golden.distance(w, expected[f"w_psi{name}"]) <= NOISE
    assert_image(generator(z, psi=psi), expected, f"img_psi{name}")


@pytest.mark.parametrize(("noise", "name"), [("fixed", "img_ws"), ("none", "img_ws_nonoise")])
def test_images_of_codes_of_every_layer(generator, expected, noise, name):
    assert_image(generator.synthesis(fill.vector("ws", (2, 10, 512)), noise=noise), expected, name)


def test_a_flipped_kernel_is_caught(generator, expected):
    flipped = type(generator)(**generator.config)
    flipped.load_state_dict(generator.state_dict())
    with torch.no_grad():
        weight = flipped.convs[0].conv.weight
        weight.copy_(weight.flip(-1, -2))
        image = flipped.synthesis(fill.vector("ws", (2, 10, 512)))
    assert golden.distance(image[:, :, ::STEP, ::STEP], expected["img_ws"]) > 1000 * NOISE


def test_the_converted_file_gives_the_same_images(snapshot, generator, tmp_path):
    target = convert_file(snapshot, tmp_path / "generator.safetensors")
    loaded = load_generator(target)
    assert torch.equal(loaded.w_avg, generator.w_avg)
    z = fill.vector("z", (2, 512))
    assert torch.equal(loaded(z, psi=0.7), generator(z, psi=0.7))
