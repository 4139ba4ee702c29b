import weakref

import pytest
import torch
from torch import nn

from clcae_lib.training import ConfigError, fit, load_config
from clcae_lib.training import _common as common
from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask, Pairs
from clcae_lib.weights import checkpoints, load_alignment
from tests.unit._tiny import WIDTHS, tiny_generator

SMALL = {
    "device": "cpu",
    "precision": "32-true",
    "steps": 6,
    "batch_size": 8,
    "embedding": 8,
    "widths": WIDTHS,
    "width": 8,
    "latent_width": 16,
    "latent_depth": 1,
    "warmup": 2,
    "validation_pairs": 20,
    "final_pairs": 24,
    "neighbour_codes": 3,
    "checkpoint_every": 3,
    "validate_every": 6,
    "log_every": 3,
    "tensorboard": False,
}


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def run(generator, folder, **changes):
    config = AlignmentConfig(**{**SMALL, **changes})
    task = AlignmentTask(config, generator, trained_on={"generator": "abc"})
    fit(task, config, folder, progress=False)
    return task


def test_training_tells_codes_apart(generator, tmp_path):
    task = run(
        generator, tmp_path, steps=100, batch_size=24, lr=1e-2, validate_every=100, checkpoint_every=100
    )
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
    card = checkpoints.read_card(tmp_path / "alignment.safetensors")
    assert card["trained_on"] == {"generator": "abc"}
    assert card["images_seen"] == 48
    assert 0 <= card["measures"]["image_r1_of_24"] <= card["measures"]["image_r10_of_24"] <= 1


@pytest.mark.parametrize("pairs", [None, 20])
def test_a_killed_run_resumes_bit_for_bit(generator, tmp_path, monkeypatch, pairs):
    whole = run(generator, tmp_path / "whole", pairs=pairs)
    step = AlignmentTask.step

    def killed(self, index):
        if index == 4:
            raise InterruptedError("killed")
        return step(self, index)

    monkeypatch.setattr(AlignmentTask, "step", killed)
    with pytest.raises(InterruptedError):
        run(generator, tmp_path / "part", pairs=pairs)
    monkeypatch.setattr(AlignmentTask, "step", step)
    part = run(generator, tmp_path / "part", pairs=pairs)
    for name, module in whole.modules.items():
        for key, value in module.state_dict().items():
            assert torch.equal(value, part.modules[name].state_dict()[key]), (name, key)


def test_fixed_pairs_come_back_and_fresh_ones_do_not(generator, tmp_path):
    fixed = run(generator, tmp_path / "fixed", pairs=8)
    codes = [fixed._batch(i)[0] for i in range(2)]
    assert torch.equal(codes[0].sort(dim=0).values, codes[1].sort(dim=0).values)
    fresh = run(generator, tmp_path / "fresh")
    assert not torch.equal(fresh._batch(0)[0].sort(dim=0).values, fresh._batch(1)[0].sort(dim=0).values)


def test_pairs_are_codes_and_their_pictures(generator):
    pairs = Pairs(generator, 5, 3, batch_size=2)
    w, pictures = pairs.take(slice(1, 4))
    torch.testing.assert_close(pictures, generator.synthesis(w).clamp(-1, 1), atol=1 / 127, rtol=0)


def test_one_batch_of_images_at_a_time_is_in_memory(generator, monkeypatch):
    """Images of 10,000 pairs at 256 pixels take 8 GB in float32."""
    alive, most = weakref.WeakSet(), []

    def noted(tensor):
        alive.add(tensor)
        most.append(len(alive))
        return tensor

    class Noted(Pairs):
        def take(self, rows):
            w, images = super().take(rows)
            return w, noted(images)

    draw = common.draw
    monkeypatch.setattr(common, "draw", lambda *values, **options: noted(draw(*values, **options)))
    pairs = Noted(generator, 12, 3, batch_size=3)
    drawn, most[:] = max(most), []
    encoder = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 8))
    pairs.embed(encoder, nn.Identity(), batch_size=2)
    assert max(drawn, *most) <= 2  # the one before may live until it is replaced


def test_sigmoid_loss_trains(generator, tmp_path):
    task = run(generator, tmp_path, loss="sigmoid", scale=10.0)
    assert task.loss.bias.item() != -10.0


def test_the_average_code_is_standardised(generator, tmp_path):
    task = run(generator, tmp_path)
    torch.testing.assert_close(task.codes.w_avg, generator.w_avg, atol=0.2, rtol=0.2)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="pairs=4 is less than one batch_size=128"):
        load_config(AlignmentConfig, None, ["pairs=4"])
    with pytest.raises(ConfigError, match="temperature"):
        load_config(AlignmentConfig, None, ["temperature=1"])
