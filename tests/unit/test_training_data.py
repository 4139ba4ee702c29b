"""What trainings share: schedules, EMA weights, random numbers, images and codes."""

import threading

import pytest
import torch
from torch import nn

from clcae_lib.training import data, optim
from clcae_lib.training.data import Shuffled
from clcae_lib.training.records import tile
from tests.unit._tiny import SampleImages, tiny_generator


def test_the_learning_rate_rises_then_falls_to_its_floor():
    rates = [optim.cosine(step, 100, warmup=10, floor=0.1) for step in range(101)]
    assert rates[0] == rates[100] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.55)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_ema_weights_move_half_the_way_in_their_half_life():
    assert optim.half_life(1000, target=5000, ramp=0.05) == 50
    assert optim.half_life(10**7, target=5000, ramp=0.05) == 5000
    average, model = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.zeros_(average.weight)
    nn.init.ones_(model.weight)
    for _ in range(5):
        optim.update_ema(average, model, images=2, half_life=10)
    assert average.weight.item() == pytest.approx(0.5)


def test_noise_is_left_out_where_it_has_no_strength():
    generator = tiny_generator()
    assert data.noise_mode(generator, training=True) == "none"
    generator.conv1.noise.weight.data.fill_(0.1)
    assert data.noise_mode(generator, training=True) == "random"
    assert data.noise_mode(generator, training=False) == "fixed"


def test_ranks_share_one_draw():
    generator = tiny_generator()
    whole = data.draw_z(generator, 6, 1, 2)
    halves = [data.draw_z(generator, 3, 1, 2, start=start, total=6) for start in (0, 3)]
    torch.testing.assert_close(whole, torch.cat(halves))
    assert not torch.equal(whole, data.draw_z(generator, 6, 1, 3))


def test_images_are_kept_as_bytes():
    images = SampleImages(tiny_generator(), 5, seed=0)
    memory = data.InMemory(images)
    found = data.as_images(memory.read(torch.tensor([4, 0])), "cpu")
    torch.testing.assert_close(found, images.images([4, 0]), atol=1 / 255 + 1e-6, rtol=0)


class OnDisk:
    """Ten images that say when they are read; the last one cannot be."""

    streamed = True

    def __init__(self):
        self.read, self.second = [], threading.Event()

    def __len__(self):
        return 10

    def images(self, rows):
        self.read += rows
        if 9 in rows:
            raise OSError("9.png is damaged")
        if 2 in rows:
            self.second.set()
        return torch.tensor(rows, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def test_images_on_disk_are_read_once_and_the_next_ones_while_a_step_computes():
    source = OnDisk()
    ahead = data.ready_to_train(source)
    assert len(ahead) == 10
    first = ahead.read(torch.tensor([1, 0, 1]), torch.tensor([2, 3]))
    assert first[:, 0, 0, 0].tolist() == [1, 0, 1]
    assert source.second.wait(60), "asked for before the second step"
    assert ahead.read(torch.tensor([2, 3]), torch.tensor([9]))[:, 0, 0, 0].tolist() == [2, 3]
    assert sorted(source.read)[:4] == [0, 1, 2, 3]
    with pytest.raises(OSError, match=r"9\.png"):
        ahead.read(torch.tensor([9]))
    assert ahead.read(range(4, 6)).shape == (2, 3, 2, 2)


def test_evaluation_ends_even_after_an_error():
    trained, still, seen = nn.Dropout(), nn.Dropout().eval(), []

    def fail():
        with optim.evaluating(trained, still):
            seen.append(trained.training)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert (seen, trained.training, still.training) == ([False], True, False)


def test_shuffled_visits_everything_once_an_epoch_wherever_it_starts():
    order = Shuffled(7, seed=1)
    whole = order.take(0, 21)
    for epoch in range(3):
        assert sorted(whole[7 * epoch : 7 * epoch + 7].tolist()) == list(range(7))
    assert whole[:7].tolist() != whole[7:14].tolist()
    assert torch.equal(Shuffled(7, seed=1).take(5, 11), whole[5:16])
    with pytest.raises(ValueError, match="size=0"):
        Shuffled(0)


def test_tile_puts_images_in_rows_on_white():
    sheet = tile(torch.zeros(3, 3, 2, 2), columns=2)
    assert sheet.shape == (3, 4, 4)
    assert sheet[:, :2].abs().max() == 0
    assert (sheet[:, 2:, 2:] == 1).all()
