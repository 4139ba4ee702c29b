"""Adversarial training at a tiny size: stages, losses, measures, weights."""

import copy

import pandas as pd
import pytest
import torch

from clcae_lib.devices import make_fabric
from clcae_lib.losses import sliced_wasserstein
from clcae_lib.training import ConfigError, adversarial, fit
from clcae_lib.training.adversarial import AdversarialTask, GeneratorConfig
from clcae_lib.weights import checkpoints, load_generator
from clcae_lib.worlds import get_world
from clcae_lib.worlds.portraits import dataset
from clcae_lib.worlds.portraits.judges import JUDGES
from tests.unit._tiny import assert_equal


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


def train(folder, images=None, measure=None, **changes):
    task = AdversarialTask(settings(**changes), images or Blobs(), measure=measure)
    fit(task, task.config, folder)
    return task


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


def test_a_stage_inherits_the_discriminator_below_and_warms_the_generator_up(tmp_path):
    tasks = [train(tmp_path / str(steps), steps=steps, lr=1e-30) for steps in (3, 4)]
    names = ("generator", "discriminator")
    rates = [[task.optimizers[name].param_groups[0]["lr"] for name in names] for task in tasks]
    assert rates == [pytest.approx([1e-30, 1e-30]), pytest.approx([0.5e-30, 1e-30])]
    lower, upper = (task.modules["discriminator"] for task in tasks)
    assert (lower.size, upper.size) == (8, 16)
    assert torch.equal(upper.final_linear[0].weight, lower.final_linear[0].weight)
    assert torch.equal(upper.convs[2].conv1[0].weight, lower.convs[1].conv1[0].weight)


def test_shortening_the_current_stage_ends_it(tmp_path):
    train(tmp_path, stages=[{"resolution": 8, "images": 100}, STAGES[1]], steps=2)
    task = train(tmp_path, stages=[{"resolution": 8, "images": 8}, STAGES[1]])
    assert (task.stage, task.seen, task.seen_in_stage) == (1, 20, 12)
    with pytest.raises(ConfigError, match=r"stages\.0"):
        train(tmp_path, stages=[{"resolution": 8, "images": 4}, STAGES[1]])


def test_the_final_weights_load_and_are_the_ema_weights(tmp_path):
    task = train(tmp_path)
    generator = load_generator(tmp_path / "generator.safetensors")
    assert checkpoints.read_card(tmp_path / "generator.safetensors")["images_seen"] == 24
    assert generator.w_avg.abs().sum() > 0
    assert (generator.w_std > 0).all()
    z = torch.randn(4, 16)
    expected, found = task.average(z, noise="none"), generator(z, noise="fixed")
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)
    assert not torch.allclose(expected, task.generator(z, noise="none"), atol=1e-3)
    assert task.sheet(1).shape == (3, 8 * 16, 8 * 16)
    assert torch.equal(task.sheet(1), task.sheet(2))


def test_logistic_loss_trains_with_r1_only(tmp_path):
    task = train(tmp_path, loss="logistic", steps=0)
    assert {"r1", "loss_d", "loss_g"} <= (metrics := task.step(0)).keys()
    assert "r2" not in metrics
    assert "r1" not in task.step(1)


def test_mixing_cuts_inside_the_stage(tmp_path):
    task = train(tmp_path, mixing=1.0, steps=0)
    cuts = torch.cat([task.crossover(task.stages[0], torch.Generator().manual_seed(i)) for i in range(20)])
    assert set(cuts.tolist()) == {1, 2, 3}
    task = train(tmp_path / "never", mixing=0.0, steps=0)
    assert (task.crossover(task.stages[0], torch.Generator()) == task.generator.n_latent).all()


def test_it_learns_the_colour_of_the_images(tmp_path):
    colour = torch.tensor([0.8, -0.8, 0.3])

    class Plain(Blobs):
        def images(self, indices):
            return colour[None, :, None, None].expand(len(indices), 3, 16, 16)

    stages = [{"resolution": 16, "images": 400}]
    task = train(tmp_path, Plain(), stages=stages, lr=0.01, ema_half_life=20, precision="32-true")
    found = task.average(torch.randn(16, 16), noise="none").mean(dim=(0, 2, 3))
    assert (found - colour).abs().max() < 0.29


def test_the_last_resolution_is_measured_on_the_way_and_on_the_card(tmp_path):
    seen = []

    def measure(generator):
        seen.append(copy.deepcopy(generator))
        return {"recall": 0.25, "spread": {"smile": len(seen)}, "worst_factor": "smile"}

    task = train(tmp_path, measure=measure, measure_every=8, validate_every=1)
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
    world = get_world("portraits")
    small = {"size": 16, "measure_samples": 12, "world": "portraits", "sheet_every": 1000}
    adversarial.train(settings(**small), tmp_path / "before")
    assert checkpoints.read_card(tmp_path / "before" / "generator.safetensors")["measures"] == {}
    for kind in ("oracle", "perceptual"):
        judge = JUDGES[kind]()
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
    task.setup(fabric)
    state = torch.get_rng_state()
    task.load_state({"stage": 1, "seen": 12, "seen_in_stage": 0})  # it builds a discriminator
    assert torch.equal(state, torch.get_rng_state())


class Spread(torch.nn.Module):
    """Reads the mean of each colour channel."""

    def described(self, images):
        return images.mean(dim=(2, 3))


def test_coverage_pulls_the_samples_colours_to_those_of_the_images(tmp_path):
    """The discriminator learns nothing here, so that only the term can move the generator."""
    distances = []
    for weight in (0.0, 20.0):
        stages = [{"resolution": 16, "images": 400, "coverage": weight, "batch_size": 8}]
        config = settings(stages=stages, gamma=0.0, lr=0.01, seed=1)
        task = AdversarialTask(config, Blobs(), describe=Spread())
        fit(task, config, tmp_path / str(weight))
        samples = task.generator(
            torch.randn(24, 16, generator=torch.Generator().manual_seed(0)), noise="none"
        )
        found, wanted = (Spread().described(x) for x in (samples, Blobs().data))
        distances.append(sliced_wasserstein(found, wanted, torch.eye(3)).item())
    assert distances[1] < 0.5 * distances[0]


def test_coverage_needs_a_network_and_may_begin_with_a_later_stage(tmp_path):
    stages = [STAGES[0], {**STAGES[1], "coverage": 1.0}]
    with pytest.raises(ConfigError, match="coverage"):
        train(tmp_path, stages=stages)
    task = AdversarialTask(settings(stages=stages), Blobs(), describe=Spread())
    fit(task, task.config, tmp_path)
    rows = pd.read_csv(tmp_path / "metrics.csv")
    assert rows["coverage"].iloc[-1] > 0
