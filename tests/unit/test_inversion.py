from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from clcae_lib.inversion import Inversion, Tuned
from tests.unit._tiny import tiny_generator


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def some(generator, count=3, *, feature=True):
    torch.manual_seed(3)
    w = generator.sample_w(count)
    shape = (count, generator.channels[16], 16, 16)
    w_plus = w[:, None] + 0.1 * torch.randn(count, generator.n_latent, generator.style_dim)
    return Inversion(w, w_plus, torch.randn(shape) if feature else None)


def test_indexing_keeps_the_batch_and_joins_again(generator):
    plain = some(generator)
    styles, tuned = torch.randn(3, sum(generator.style_sizes)), {"input.input": torch.randn(3, 1, 8, 4, 4)}
    found = Inversion(plain.w, plain.w_plus, plain.feature, styles, Tuned(tuned))
    assert len(found) == 3
    assert found[1].w.shape == (1, 8)
    assert torch.equal(found[[0, 2]].w_plus, found.w_plus[[0, 2]])
    again = Inversion.cat([found[:1], found[1:]])
    for name in ("w", "w_plus", "feature", "styles"):
        assert torch.equal(getattr(again, name), getattr(found, name))
    assert torch.equal(again.decoder.tensors["input.input"], tuned["input.input"])
    assert found[1].decoder.tensors["input.input"].shape == (1, 1, 8, 4, 4)
    assert Inversion.cat([found[:1]]).to("cpu").feature is not None


def test_spaces_decode_as_the_generator_would(generator):
    found = some(generator)
    assert found.spaces == ("w", "w_plus", "f")
    torch.testing.assert_close(found.decode(generator, "w"), generator.synthesis(found.w))
    torch.testing.assert_close(found.decode(generator, "w_plus"), generator.synthesis(found.w_plus))
    inserted = generator.synthesis(found.w_plus, feature=found.feature)
    torch.testing.assert_close(found.decode(generator), inserted)
    assert not torch.allclose(inserted, found.decode(generator, "w_plus"))


def test_tuned_images_and_plain_ones_can_be_decoded_in_threads(generator):
    plain = some(generator, 2, feature=False)
    weights = dict(generator.named_parameters())
    tuned = {name: torch.stack([weights[name] + 1] * 2) for name in ("conv1.conv.weight", "to_rgb1.bias")}
    both = (plain, Inversion(plain.w, plain.w_plus, decoder=Tuned(tuned)))
    expected = [found.decode(generator, "w_plus") for found in both]

    def decode(number):
        return [both[number % 2].decode(generator, "w_plus") for _ in range(10)]

    with ThreadPoolExecutor(4) as threads:
        for number, images in enumerate(threads.map(decode, range(4))):
            wrong = sum(not torch.equal(image, expected[number % 2]) for image in images)
            assert not wrong, f"{wrong} of {len(images)} images differ"


def test_what_is_missing_is_explained(generator):
    found = some(generator, feature=False)
    assert found.spaces == ("w", "w_plus")
    assert found[0].feature is None
    with pytest.raises(ValueError, match="space='f': this inversion can be decoded from 'w', 'w_plus'"):
        found.decode(generator, "f")
    with pytest.raises(ValueError, match="images: none were given"):
        Inversion.cat([])
