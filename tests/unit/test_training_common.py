import pytest
import torch
from torch import nn

from clcae_lib.training import _common as common
from tests.unit._tiny import Pictures, tiny_generator


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def test_rate_rises_then_falls_to_its_floor():
    rates = [common.cosine(step, 100, warmup=10, floor=0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_noise_is_left_out_where_it_has_no_strength():
    generator = tiny_generator()
    assert common.noise_of(generator, training=True) == "none"
    generator.conv1.noise.weight.data.fill_(0.1)
    assert common.noise_of(generator, training=True) == "random"
    assert common.noise_of(generator, training=False) == "fixed"


def test_ranks_share_one_draw(generator):
    whole = common.sample_codes(generator, 6, 1, 2)
    halves = [common.sample_codes(generator, 3, 1, 2, start=at, total=6) for at in (0, 3)]
    torch.testing.assert_close(whole, torch.cat(halves))
    assert not torch.equal(whole, common.sample_codes(generator, 6, 1, 3))


def test_images_are_kept_as_bytes(generator):
    pictures = Pictures(generator, 5, seed=0)
    memory = common.InMemory(pictures)
    assert len(memory) == 5
    rows = torch.tensor([4, 0])
    found = memory.images(rows, torch.device("cpu"))
    torch.testing.assert_close(found, pictures.images(rows.tolist()), atol=1 / 255 + 1e-6, rtol=0)


def test_evaluation_ends_even_after_an_error():
    trained, still, seen = nn.Dropout(), nn.Dropout().eval(), []

    def fail():
        with common.evaluating(trained, still):
            seen.append(trained.training)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert seen == [False]
    assert trained.training
    assert not still.training
