"""The contrastive alignment on a tiny generator: what it learns, its pairs and its weights."""

import weakref

import pytest
import torch
from torch import nn

from clcae_lib.training import ConfigError, data, fit, load_config
from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask, Pairs
from clcae_lib.weights import checkpoints, load_alignment
from tests.unit._tiny import ALIGNMENT, tiny_generator


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def run(generator, folder, **changes):
    config = AlignmentConfig(**{**ALIGNMENT, **changes})
    task = AlignmentTask(config, generator, trained_on={"generator": "abc"})
    fit(task, config, folder, progress=False)
    return task


def test_training_separates_codes(generator, tmp_path):
    few = {"validate_every": 100, "checkpoint_every": 100, "sheet_every": 100}
    task = run(generator, tmp_path, steps=100, batch_size=24, lr=1e-2, **few)
    found = task.validate(100)
    assert found["validation/image_r1_of_20"] > 0.3
    assert found["validation/code_r10_of_20"] > 0.8
    assert found["validation/neighbours_1"] >= found["validation/neighbours_0.1"]


def test_finish_writes_weights_and_card(generator, tmp_path):
    task = run(generator, tmp_path)
    images, codes, scale = load_alignment(tmp_path / "alignment.safetensors")
    assert scale == pytest.approx(task.loss.scale.item())
    x, w = torch.randn(2, 3, 32, 32), torch.randn(2, 8)
    torch.testing.assert_close(images(x), task.images(x).detach(), atol=1e-2, rtol=0)
    torch.testing.assert_close(codes(w), task.codes(w).detach(), atol=1e-2, rtol=0)
    torch.testing.assert_close(task.codes.w_avg, generator.w_avg, atol=0.2, rtol=0.2)
    card = checkpoints.read_card(tmp_path / "alignment.safetensors")
    assert card["trained_on"] == {"generator": "abc"}
    assert card["images_seen"] == 32
    assert 0 <= card["measures"]["image_r1_of_24"] <= card["measures"]["image_r10_of_24"] <= 1


def test_fixed_pairs_come_back_and_new_ones_do_not(generator, tmp_path):
    for pairs, same in ((8, True), (None, False)):
        task = run(generator, tmp_path / str(pairs), pairs=pairs)
        first, second = (task.batch(index)[0].sort(dim=0).values for index in range(2))
        assert torch.equal(first, second) is same


def test_pairs_are_codes_and_their_images(generator):
    w, images = Pairs(generator, 5, 3, batch_size=2).take(slice(1, 4))
    torch.testing.assert_close(images, generator.synthesis(w).clamp(-1, 1), atol=1 / 127, rtol=0)


def test_one_batch_of_images_at_a_time_is_in_memory(generator, monkeypatch):
    """Images of 10,000 pairs at 256 pixels need 8 GB in float32."""
    alive, most = weakref.WeakSet(), []

    def noted(tensor):
        alive.add(tensor)
        most.append(len(alive))
        return tensor

    class Noted(Pairs):
        def take(self, rows):
            w, images = super().take(rows)
            return w, noted(images)

    synthesise = data.synthesise
    monkeypatch.setattr(data, "synthesise", lambda *values, **options: noted(synthesise(*values, **options)))
    pairs = Noted(generator, 12, 3, batch_size=3)
    drawn, most[:] = max(most), []
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8))
    pairs.embed(encoder, nn.Identity(), batch_size=2)
    assert max(drawn, *most) <= 2  # the one before may live until it is replaced


def test_sigmoid_loss_trains(generator, tmp_path):
    assert run(generator, tmp_path, loss="sigmoid", scale=10.0).loss.bias.item() != -10.0


def test_too_few_pairs_are_refused():
    with pytest.raises(ConfigError, match="pairs=4 is less than one batch_size=128"):
        load_config(AlignmentConfig, None, ["pairs=4"])
