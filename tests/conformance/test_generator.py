"""The generator against the published one: names, shapes, filters, and a mistake that must show."""

import pytest
import torch

from clcae_lib.models import Generator
from tests.conformance import bench, fill, golden, plain

pytestmark = pytest.mark.xdist_group("conformance")


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_names_shapes_and_order_are_the_published_ones(size):
    with torch.device("meta"):
        generator = Generator(size)
    found, published = golden.layout(generator), golden.manifest(f"generator_{size}")
    assert list(found.items()) == list(published.items())


def test_filters_are_the_published_ones():
    generator, line = Generator(16, 8, 1), torch.tensor([1.0, 3.0, 3.0, 1.0])
    torch.testing.assert_close(generator.convs[0].conv.blur.kernel, line[:, None] * line / 16)
    torch.testing.assert_close(generator.to_rgbs[0].upsample.kernel, line[:, None] * line / 16)


def test_training_and_inference_are_one_function():
    """Without gradients the layers run in place and scale kernels; the numbers stay the published ones."""
    generator, expected = bench.shared().generator, golden.fixture("generator256")
    w_plus = fill.vector("wplus", (2, 14, 512))
    with torch.enable_grad():
        trained = generator.synthesis(w_plus)
    for count in (2, 1):
        with torch.no_grad():
            inferred = generator.synthesis(w_plus[:count])
        golden.assert_golden(inferred, trained[:count].numpy())
        golden.assert_golden(inferred[:, :, ::11, ::11], expected["image_from_wplus"][:count])


def test_feature_at_the_neighbouring_index_is_caught():
    feature, expected = fill.vector("features_in", (2, 512, 16, 16)), golden.fixture("generator256")
    w_plus = fill.vector("wplus", (2, 14, 512))
    with torch.no_grad():
        image = bench.shared().generator.synthesis(w_plus, feature=feature, feature_index=4)
    found = golden.distance(image[:, :, ::11, ::11], expected["image_from_wplus_f_scale1.0"])
    assert found > 100 * golden.TOLERANCE


@torch.no_grad()
def test_the_benchmarks_plain_form_is_the_published_one():
    generator, expected = bench.shared().generator, golden.fixture("generator256")
    w_plus, feature = fill.vector("wplus", (2, 14, 512)), fill.vector("features_in", (2, 512, 16, 16))
    image, features = plain.decode(generator, w_plus, feature=feature)
    golden.assert_golden(image[:, :, ::11, ::11], expected["image_from_wplus_f_scale1.0"])
    golden.assert_golden(features[5][:, ::31], expected["features/5"])
