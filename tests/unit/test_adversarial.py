"""Adversarial training at a tiny size: objectives, stages, resume, weights."""

import copy
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from clcae_lib.devices import make_fabric
from clcae_lib.models.stylegan2 import Discriminator, Generator
from clcae_lib.training import ConfigError, adversarial, fit
from clcae_lib.training._ema import half_life, update_average
from clcae_lib.training._objectives import discriminator_loss, generator_loss, gradient_penalty
from clcae_lib.training.adversarial import AdversarialTask, GeneratorConfig
from clcae_lib.weights import checkpoints, load_generator
from clcae_lib.worlds import get_world
from clcae_lib.worlds.portraits import dataset
from clcae_lib.worlds.portraits.judges import build_judge


class Blobs:
    """Coloured discs on grey."""

    def __init__(self, count=24, side=16):
        source = torch.Generator().manual_seed(0)
        place = torch.rand(count, 2, 1, 1, generator=source) - 0.5
        colour = torch.rand(count, 3, 1, 1, generator=source) * 2 - 1
        axis = torch.linspace(-1, 1, side)
        distance = ((axis[None, :] - place[:, 0]) ** 2 + (axis[:, None] - place[:, 1]) ** 2).sqrt()
        self.data = torch.where(distance[:, None] < 0.4, colour, torch.zeros(()))

    def __len__(self):
        return len(self.data)

    def images(self, indices):
        return self.data[indices]


STAGES = [{"resolution": 8, "images": 12}, {"resolution": 16, "images": 12}]


def settings(**changes):
    small = {"resolution": 16, "style_dim": 16, "mapping_layers": 2, "channels": {4: 8, 8: 8, 16: 8}}
    small |= {"batch_size": 4, "penalty_every": 2, "warmup": 8, "w_samples": 50, "stages": STAGES}
    return GeneratorConfig(**{**small, "tensorboard": False, "device": "cpu", "sheet_every": 4, **changes})


def train(folder, **changes):
    config = settings(**changes)
    task = AdversarialTask(config, Blobs())
    fit(task, config, folder)
    return task


def assert_equal(left, right, where="state"):
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for name in left:
            assert_equal(left[name], right[name], f"{where}.{name}")
    elif isinstance(left, list):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_equal(one, other, f"{where}.{index}")
    else:
        assert left == right, where


@pytest.mark.parametrize("cut", [2, 3, 4])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resume_is_bit_for_bit_across_a_stage_change(tmp_path, cut, precision):
    train(tmp_path / "whole", precision=precision)
    train(tmp_path / "parts", precision=precision, steps=cut)
    train(tmp_path / "parts", precision=precision)
    whole, parts = (checkpoints.load_state(tmp_path / name / "state.pt") for name in ("whole", "parts"))
    assert whole["step"] == 6
    assert whole["task"] == {"stage": 1, "seen": 24, "seen_in_stage": 12}
    for name in ("step", "task", "modules", "optimizers"):
        assert_equal(whole[name], parts[name], name)


def test_the_stages_train_their_layers_and_no_others(tmp_path):
    start = train(tmp_path / "none", steps=0).generator
    first = train(tmp_path / "first", steps=3).generator.state_dict()
    both = train(tmp_path / "both").generator.state_dict()
    for name, before in start.named_parameters():
        if ".noise." in name:
            continue
        upper = name.startswith(("convs.2", "convs.3", "to_rgbs.1"))
        assert torch.equal(first[name], before) is upper, name
        assert not torch.equal(both[name], before), name


def test_a_stage_inherits_the_discriminator_below(tmp_path):
    task = train(tmp_path, steps=3)
    lower = copy.deepcopy(task.modules["discriminator"])
    task._advance()
    upper = task.modules["discriminator"]
    assert (lower.size, upper.size) == (8, 16)
    assert torch.equal(upper.final_linear[0].weight, lower.final_linear[0].weight)
    assert torch.equal(upper.convs[2].conv1[0].weight, lower.convs[1].conv1[0].weight)


def test_the_generator_warms_up_in_a_later_stage_only(tmp_path):
    task = train(tmp_path / "first", steps=1)
    assert task.optimizers["generator"].param_groups[0]["lr"] == pytest.approx(0.0025)
    task = train(tmp_path / "second", steps=4)
    assert task.optimizers["generator"].param_groups[0]["lr"] == pytest.approx(0.0025 / 2)
    assert task.optimizers["discriminator"].param_groups[0]["lr"] == pytest.approx(0.0025)


def test_two_processes_stay_in_step_and_resume_a_run_of_one(tmp_path):
    train(tmp_path / "run", steps=2)
    script = tmp_path / "two.py"
    script.write_text(
        textwrap.dedent(
            """
            import pathlib, sys
            import torch
            sys.path.insert(0, sys.argv[1])
            from test_adversarial import train

            folder = pathlib.Path(sys.argv[2])
            task = train(folder / "run", devices=2, threads=1)
            torch.save(task.modules["generator"].state_dict(), folder / f"rank{task.fabric.global_rank}.pt")
            """
        )
    )
    here = str(Path(__file__).resolve().parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, str(script), here, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_equal(first, second)
    state = checkpoints.load_state(tmp_path / "run" / "state.pt")
    assert (state["step"], state["images"]) == (6, 24)
    assert_equal(state["modules"]["generator"], first)


def test_shortening_the_stage_at_hand_ends_it(tmp_path):
    long = [{"resolution": 8, "images": 100}, STAGES[1]]
    train(tmp_path, stages=long, steps=2)
    task = train(tmp_path, stages=[{"resolution": 8, "images": 8}, STAGES[1]])
    assert (task.stage, task.seen, task.seen_in_stage) == (1, 20, 12)
    with pytest.raises(ConfigError, match=r"stages\.0"):
        train(tmp_path, stages=[{"resolution": 8, "images": 4}, STAGES[1]])


def test_the_final_weights_load_and_are_the_average(tmp_path):
    task = train(tmp_path)
    generator = load_generator(tmp_path / "generator.safetensors")
    card = checkpoints.read_card(tmp_path / "generator.safetensors")
    assert card["images_seen"] == 24
    assert card["seconds"] > 0
    assert generator.w_avg.abs().sum() > 0
    assert (generator.w_std > 0).all()
    z = torch.randn(4, 16)
    expected, found = task.average(z, noise="none"), generator(z, noise="fixed")
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)
    assert not torch.allclose(expected, task.generator(z, noise="none"), atol=1e-3)


def test_sheet_shows_16_renders_and_48_samples(tmp_path):
    task = train(tmp_path, steps=1)
    sheet = task.sheet(1)
    assert sheet.shape == (3, 8 * 16, 8 * 16)
    assert torch.equal(sheet, task.sheet(2))


def test_logistic_loss_trains_with_r1_only(tmp_path):
    task = train(tmp_path, loss="logistic", steps=0)
    assert {"r1", "loss_d", "loss_g"} <= (metrics := task.step(0)).keys()
    assert "r2" not in metrics
    assert "r1" not in task.step(1)


def test_mixing_cuts_inside_the_stage(tmp_path):
    task = train(tmp_path, mixing=1.0, steps=0)
    cuts = torch.cat([task._crossover(task.stages[0], torch.Generator().manual_seed(i)) for i in range(20)])
    assert set(cuts.tolist()) == {1, 2, 3}
    task = train(tmp_path / "never", mixing=0.0, steps=0)
    assert (task._crossover(task.stages[0], torch.Generator()) == task.generator.n_latent).all()


def test_it_learns_the_colour_of_the_renders(tmp_path):
    class Plain(Blobs):
        def images(self, indices):
            return torch.tensor([0.8, -0.8, 0.3])[None, :, None, None].expand(len(indices), 3, 16, 16)

    config = settings(
        stages=[{"resolution": 16, "images": 400}], lr=0.01, ema_half_life=20, precision="32-true"
    )
    task = AdversarialTask(config, Plain())
    fit(task, config, tmp_path)
    colour = task.average(torch.randn(16, 16), noise="none").mean(dim=(0, 2, 3))
    assert (colour.sign() == torch.tensor([1.0, -1.0, 1.0])).all()
    assert (colour - torch.tensor([0.8, -0.8, 0.3])).abs().max() < 0.5


def test_relativistic_losses_depend_on_the_difference_only():
    real, fake = torch.randn(5, 1), torch.randn(5, 1)
    for loss in (discriminator_loss, generator_loss):
        moved = loss(real + 3, fake + 3, kind="relativistic")
        torch.testing.assert_close(moved, loss(real, fake, kind="relativistic"))
        assert not torch.allclose(
            loss(real + 3, fake + 3, kind="logistic"), loss(real, fake, kind="logistic")
        )
    assert discriminator_loss(real + 9, fake, kind="relativistic") < generator_loss(
        real + 9, fake, kind="relativistic"
    )


def test_penalty_is_the_squared_gradient():
    images = torch.randn(2, 3, 4, 4, requires_grad=True)
    weight = torch.randn(48)
    scores = images.flatten(1) @ weight[:, None]
    torch.testing.assert_close(gradient_penalty(scores, images), weight.square().sum())


def test_penalty_in_bfloat16_agrees_with_float32(tmp_path):
    task = train(tmp_path, steps=0)
    network, real = task.modules["discriminator"], torch.rand(4, 3, 8, 8)
    penalties = []
    for enabled in (False, True):
        images = real.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            scores = network(images)
        penalties.append(gradient_penalty(scores, images))
    torch.testing.assert_close(penalties[1], penalties[0], rtol=0.05, atol=0)


def test_average_ramps_up_then_halves_in_its_half_life():
    assert half_life(1000, target=5000, ramp=0.05) == 50
    assert half_life(10**7, target=5000, ramp=0.05) == 5000
    average, model = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.zeros_(average.weight)
    nn.init.ones_(model.weight)
    for _ in range(5):
        update_average(average, model, images=2, half_life=10)
    assert average.weight.item() == pytest.approx(0.5)


def test_full_size_state_is_small():
    config = GeneratorConfig()
    generator = Generator(
        config.resolution, config.style_dim, config.mapping_layers, channels=config.channels
    )
    discriminator = Discriminator(config.resolution, channels=config.channels)
    floats = [sum(p.numel() for p in network.parameters()) for network in (generator, discriminator)]
    assert 4 * (4 * floats[0] + 3 * floats[1]) < 35e6


def test_the_last_resolution_is_measured_on_the_way_and_on_the_card(tmp_path):
    config, seen = settings(measure_every=8, validate_every=1), []

    def measure(generator):
        seen.append(copy.deepcopy(generator))
        return {"recall": 0.25, "spread": {"smile": len(seen)}, "worst_factor": "smile"}

    task = AdversarialTask(config, Blobs(), measure=measure)
    fit(task, config, tmp_path)
    rows = pd.read_csv(tmp_path / "metrics.csv").dropna(subset=["measures/recall"])
    assert rows["images"].tolist() == [20], "8 of the 12 images of the last stage, after 12 of the first"
    assert rows["measures/spread/smile"].tolist() == [1]
    assert_equal(seen[-1].state_dict(), task.average.state_dict())
    measures = checkpoints.read_card(tmp_path / "generator.safetensors")["measures"]
    assert measures == {"recall": 0.25, "spread": {"smile": 2}, "worst_factor": "smile"}


def test_a_run_measures_with_the_judges_of_its_world(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset, "_BLOCK_AT_64", 32)
    world = get_world("portraits2")
    small = {"size": 16, "measure_samples": 12, "world": "portraits2", "sheet_every": 1000}
    adversarial.train(settings(**small), tmp_path / "before")
    assert checkpoints.read_card(tmp_path / "before" / "generator.safetensors")["measures"] == {}
    for kind in ("oracle", "perceptual"):
        judge = build_judge(kind, factors=world.factors)
        metadata = {"kind": kind, "config": judge.config}
        checkpoints.save_weights(world.weights(f"{kind}_b"), judge.state_dict(), metadata=metadata)
    adversarial.train(settings(**small), tmp_path / "after")
    measures = checkpoints.read_card(tmp_path / "after" / "generator.safetensors")["measures"]
    assert {"frechet", "precision", "recall", "factors", "age_grey"} < set(measures)
    assert set(measures["spread"]) == set(world.state_names)


def test_a_training_on_the_cpu_asks_no_gpu(monkeypatch):
    def asked():
        raise AssertionError("a GPU was asked for its random state")

    task, fabric = AdversarialTask(settings(), Blobs()), make_fabric("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", asked)
    before = torch.get_rng_state()
    task.setup(fabric)
    state = torch.get_rng_state()
    task._new_discriminator()
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(state, before)
