import numpy as np
import pytest
import torch
from PIL import Image

from clcae_lib.models import (
    Generator,
    PublishedEncoder,
)
from clcae_lib.models.published import (
    resize_as_pil,
    to_published_side,
)

SMALL = {"widths": (4, 4, 6, 8, 8), "units": (1, 1, 2, 1)}


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    net = Generator(64, 8, 2, channels={4: 6, 8: 6, 16: 5, 32: 4, 64: 4}).eval().requires_grad_(False)
    net.measure_w(200)
    return net


@pytest.fixture
def encoder(generator):
    torch.manual_seed(1)
    net = PublishedEncoder(64, style_dim=8, feature_channels=5, style_hidden=4, **SMALL).eval()
    net.attach(generator)
    return net


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_image_of_the_mean_code_is_subtracted_from_the_input(encoder, generator):
    torch.testing.assert_close(encoder.w_avg, generator.w_avg)
    torch.testing.assert_close(encoder.average, generator.synthesis(generator.w_avg[None]))
    codes = encoder(images() + encoder.average)
    encoder.average = torch.zeros(1, 3, 1, 1)
    torch.testing.assert_close(codes.w, encoder(images()).w)


def test_cars_are_read_flat(generator):
    torch.manual_seed(1)
    net = PublishedEncoder(64, style_dim=8, feature_channels=5, height=48, **SMALL).eval()
    net.attach(generator)
    assert net.average.shape == (1, 3, 48, 64)
    assert net(images()[:, :, :48]).feature.shape == (2, 5, 16, 16)
    with pytest.raises(ValueError, match=r"images are \(64, 64\); this encoder reads images of \(48, 64\)"):
        net(images())


@pytest.mark.parametrize(
    ("size", "to"), [((1024, 1024), (256, 256)), ((384, 512), (192, 256)), ((512, 512), (192, 256))]
)
def test_photographs_are_made_smaller_as_pil_does(size, to):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(pixels).resize(to[::-1], Image.Resampling.BILINEAR)).astype(int)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    found = ((resize_as_pil(images, *to)[0] + 1) * 127.5).round().permute(1, 2, 0).numpy().astype(int)
    off = np.abs(found - wanted)
    assert off.max() <= 1  # PIL's fixed-point weights round a few in a thousand to the other side
    assert (off > 0).mean() < 0.005


def test_a_small_image_is_not_resized():
    small = images()
    assert to_published_side(small) is small
    assert to_published_side(torch.zeros(1, 3, 384, 512)).shape == (1, 3, 192, 256)


def test_wrong_width_is_explained():
    with pytest.raises(ValueError, match="must end in style_dim=16"):
        PublishedEncoder(64, style_dim=16, feature_channels=5, **SMALL)
