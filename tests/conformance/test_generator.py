"""The generator against the published one: names, shapes, and the numbers of every way to call it."""

import pytest
import torch
from torch import Tensor

from clcae_lib.models import Generator
from tests.conformance import fill, golden

STEP = 11  # pictures are compared at every eleventh pixel, an odd step, so that all phases are hit
SIZES = [256, 512, 1024]


@pytest.fixture(scope="module")
def expected():
    return golden.fixture("generator256")


@pytest.fixture(scope="module")
def generator() -> Generator:
    return fill.fill(Generator(256)).requires_grad_(False)


@pytest.fixture(scope="module")
def w(generator) -> Tensor:
    return generator.mapping(fill.vector("z", (2, 512)))


@pytest.fixture(scope="module")
def w_plus() -> Tensor:
    return fill.vector("wplus", (2, 14, 512))


@pytest.fixture(scope="module")
def decoded(generator, w_plus) -> tuple[Tensor, list[Tensor]]:
    return generator.synthesis(w_plus, return_features=True)


def assert_image(image: Tensor, expected: dict, name: str) -> None:
    golden.assert_golden(image[:, :, ::STEP, ::STEP], expected[name])
    golden.assert_golden(image.mean((2, 3)), expected[f"{name}.mean"])
    golden.assert_golden(image.std((2, 3), correction=0), expected[f"{name}.std"])


@pytest.mark.parametrize("size", SIZES)
def test_names_shapes_and_order_are_the_published_ones(size):
    with torch.device("meta"):
        generator = Generator(size)
    found, published = golden.layout(generator), golden.manifest(f"generator_{size}")
    assert list(found.items()) == list(published.items())


def test_filters_are_the_published_ones(generator):
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    torch.testing.assert_close(generator.convs[0].conv.blur.kernel, line[:, None] * line / 16)
    torch.testing.assert_close(generator.to_rgbs[0].upsample.kernel, line[:, None] * line / 16)


def test_mapping(w, expected):
    golden.assert_golden(w, expected["w_from_z"])


def test_truncation(generator, w, expected):
    truncated = generator.truncate(w, fill.latent_avg(), 0.7)
    golden.assert_golden(truncated, expected["w_truncated"])
    assert_image(generator.synthesis(truncated), expected, "image_from_z_trunc0.7")


def test_image_from_w(generator, w, expected):
    assert_image(generator.synthesis(w), expected, "image_from_z")


def test_image_from_w_plus(decoded, expected):
    assert_image(decoded[0], expected, "image_from_wplus")


@pytest.mark.parametrize("index", range(14))
def test_activations(decoded, expected, index):
    feature = decoded[1][index]
    channels = feature if index == 5 else feature[:, ::8]
    golden.assert_golden(channels.mean((2, 3)), expected[f"features/{index}.mean"])
    golden.assert_golden(channels.std((2, 3), correction=0), expected[f"features/{index}.std"])


def test_activation_five_in_full(decoded, expected):
    assert len(decoded[1]) == 14
    golden.assert_golden(decoded[1][5][:, ::31], expected["features/5"])


@pytest.mark.parametrize("blend", [1.0, 0.5])
def test_feature_replaces_activation_five(generator, w_plus, expected, blend):
    feature = fill.vector("features_in", (2, 512, 16, 16))
    image = generator.synthesis(w_plus, feature=feature, feature_blend=blend)
    assert_image(image, expected, f"image_from_wplus_f_scale{blend}")


def test_feature_at_the_neighbouring_index_is_caught(generator, w_plus, expected):
    feature = fill.vector("features_in", (2, 512, 16, 16))
    image = generator.synthesis(w_plus, feature=feature, feature_index=4)[:, :, ::STEP, ::STEP]
    assert golden.distance(image, expected["image_from_wplus_f_scale1.0"]) > 100 * golden.TOLERANCE


def test_style_mixing(generator, w, expected):
    mixed = torch.cat((w[:1, None].expand(-1, 4, -1), w[1:, None].expand(-1, 10, -1)), dim=1)
    assert_image(generator.synthesis(mixed), expected, "image_style_mix_inject4")


def test_every_case_of_the_fixture_is_compared(expected):
    images = {
        "image_from_z_trunc0.7",
        "image_from_z",
        "image_from_wplus",
        "image_from_wplus_f_scale1.0",
        "image_from_wplus_f_scale0.5",
        "image_style_mix_inject4",
    }
    compared = images | {f"{name}.{kind}" for name in images for kind in ("mean", "std")}
    compared |= {f"features/{index}.{kind}" for index in range(14) for kind in ("mean", "std")}
    assert compared | {"w_from_z", "w_truncated", "features/5"} == set(expected)
