"""The training loop: records, resume bit for bit, refusals and signals."""

import csv
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from clcae_lib import paths
from clcae_lib.training import ConfigError, Shuffled, Task, TrainConfig, fit, install, tile
from clcae_lib.training._common import card
from clcae_lib.weights import checkpoints


class Regression(Task):
    """A small network with dropout, momentum and random data: everything a resume can get wrong."""

    def setup(self, fabric):
        network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        self.network, self.optimizer = fabric.setup(network, optimizer)
        self.fabric, self.count = fabric, 0
        self.modules, self.optimizers = {"network": network}, {"network": self.optimizer}

    def step(self, index):
        x = torch.randn(self.config.batch_size, 3)
        loss = (self.network(x) - x.sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        self.optimizer.step()
        self.count += 1
        return {"loss": loss} | ({"rare": 1.0} if index == 3 else {})

    def validate(self, index):
        return {"half": index / 2}

    def sheet(self, index):
        return torch.zeros(3, 4, 4)

    def state(self):
        return {"count": self.count}

    def load_state(self, state):
        self.count = state["count"]

    def finish(self, folder):
        checkpoints.save_weights(
            folder / "net.safetensors", self.modules["network"].state_dict(), metadata={}
        )
        checkpoints.write_card(folder / "net.safetensors", {"steps": self.count})


def run(folder, *, resume=True, **changes):
    settings = {"steps": 6, "log_every": 2, "validate_every": 3, "sheet_every": 4, "device": "cpu"}
    config = TrainConfig(**{**settings, "checkpoint_every": 4, "tensorboard": False, **changes})
    return fit(task := Regression(config), config, folder, resume=resume), task


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def same(left, right):
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = run(tmp_path / "whole")[1].modules["network"].state_dict()
    run(tmp_path / "parts", steps=3)
    torch.rand(7)
    parts = run(tmp_path / "parts")[1]
    assert parts.count == 6
    assert same(whole, parts.modules["network"].state_dict())


class Stopped(Regression):
    """Interrupted by a person in step `at`, or killed."""

    at, number = 2, signal.SIGINT

    def step(self, index):
        if index == self.at and self.number:
            os.kill(os.getpid(), self.number)
        elif index == self.at:
            raise InterruptedError("killed")
        return super().step(index)


@pytest.mark.parametrize(("at", "number"), [(2, signal.SIGINT), (5, None)])
def test_a_run_stopped_between_two_rows_goes_on_with_the_same_rows(tmp_path, at, number):
    settings = {"steps": 9, "log_every": 4, "validate_every": 3, "checkpoint_every": 5, "threads": 1}
    config = TrainConfig(**settings, device="cpu", tensorboard=False)
    task = Stopped(config)
    task.at, task.number = at, number
    with pytest.raises((KeyboardInterrupt, InterruptedError)):
        fit(task, config, tmp_path / "parts")
    for name in ("parts", "whole"):
        fit(Regression(config), config, tmp_path / name)
    measured = [
        [
            {key: row[key] for key in ("step", "images", "loss", "rare", "half")}
            for row in rows(tmp_path / name)
        ]
        for name in ("whole", "parts")
    ]
    assert [row["step"] for row in measured[0]] == ["3", "4", "6", "8", "9"]
    assert measured[0] == measured[1]


def states():
    python, numpy, torch_ = random.getstate(), np.random.get_state(), torch.get_rng_state()
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return python, str(numpy), torch_.tolist(), flags, torch.get_num_threads(), dict(os.environ)


@pytest.mark.parametrize("ends", [True, False])
def test_a_training_leaves_the_process_as_it_was(tmp_path, monkeypatch, ends):
    class Ending(Regression):
        def step(self, index):
            assert torch.get_num_threads() == 2
            if not ends and index == 3:
                raise InterruptedError
            return super().step(index)

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    config = TrainConfig(steps=4, device="cpu", threads=2, tensorboard=False)
    torch.manual_seed(3)
    before = states()
    try:
        fit(Ending(config), config, tmp_path)
    except InterruptedError:
        assert not ends
    assert states() == before


def test_the_card_needs_no_state_to_say_how_far_the_run_came(tmp_path):
    class Carded(Regression):
        def finish(self, folder):
            (folder / "state.pt").unlink()
            self.card = card("net", self, self.fabric, trained_on={}, measures={})

    config = TrainConfig(steps=3, device="cpu", tensorboard=False)
    task = Carded(config)
    fit(task, config, tmp_path)
    assert (task.card["steps"], task.card["images_seen"]) == (3, 3 * config.batch_size)
    assert task.card["seconds"] >= 0


def test_another_seed_is_another_run(tmp_path):
    first, second = (run(tmp_path / str(seed), seed=seed)[1].modules["network"] for seed in (0, 1))
    assert not same(first.state_dict(), second.state_dict())


def test_a_run_leaves_its_records(tmp_path):
    folder, _ = run(tmp_path / "run", tensorboard=True)
    for name in (
        "config.yaml",
        "versions.json",
        "state.pt",
        "net.safetensors",
        "net.json",
        "sheets/0000004.png",
    ):
        assert (folder / name).is_file(), name
    assert list((folder / "tensorboard").iterdir())
    found = rows(folder)
    assert [row["step"] for row in found] == ["2", "3", "4", "6"]
    assert found[2]["rare"] == "1"
    assert found[0]["rare"] == ""
    assert found[-1]["half"] == "3"
    assert float(found[-1]["images_per_second"]) > 0
    assert found[-1]["images"] == str(6 * TrainConfig().batch_size)


def test_a_resume_drops_the_rows_it_does_again(tmp_path):
    folder, _ = run(tmp_path / "run", steps=3)
    with (folder / "metrics.csv").open("a") as file:
        file.write("5,99,1,1,1,1\n")
    run(folder)
    steps = [int(row["step"]) for row in rows(folder)]
    assert steps == [2, 3, 4, 6]


def test_no_resume_starts_over(tmp_path):
    run(tmp_path, steps=3)
    _, task = run(tmp_path, steps=2, resume=False)
    assert task.count == 2
    assert [row["step"] for row in rows(tmp_path)] == ["2"]


def test_a_changed_setting_is_refused_and_named(tmp_path):
    run(tmp_path, steps=3)
    with pytest.raises(ConfigError, match=r"batch_size: 16 -> 4") as error:
        run(tmp_path, batch_size=4, log_every=1)
    assert "log_every" not in str(error.value)


def test_a_state_of_another_version_is_refused_with_a_remedy(tmp_path):
    class Newer(TrainConfig):
        depth: int

    run(tmp_path, steps=3)
    config = Newer(steps=3, device="cpu", depth=2)
    with pytest.raises(ConfigError, match=r"state\.pt is of a version .*depth: Field required.*--no-resume"):
        fit(Regression(config), config, tmp_path)


def test_time_limit_stops_with_a_state_and_weights(tmp_path):
    folder, task = run(tmp_path, max_minutes=0)
    assert task.count == 0
    assert (folder / "net.safetensors").is_file()
    assert run(tmp_path)[1].count == 6


def test_a_loss_that_explodes_names_step_and_state(tmp_path):
    class Exploding(Regression):
        def step(self, index):
            return {**super().step(index), "loss": float("inf") if index == 4 else 1.0}

    config = TrainConfig(steps=6, log_every=1, checkpoint_every=2, tensorboard=False, device="cpu")
    with pytest.raises(FloatingPointError, match=r"step 5: loss is not finite.*state\.pt"):
        fit(Exploding(config), config, tmp_path)
    assert checkpoints.load_state(tmp_path / "state.pt")["step"] == 4


def test_weights_that_explode_do_not_replace_the_state(tmp_path):
    class Broken(Regression):
        def step(self, index):
            out = super().step(index)
            if index == 3:
                self.modules["network"][0].weight.data[0, 0] = float("nan")
            return out if index < 3 else {"loss": 0.0}

    config = TrainConfig(steps=4, checkpoint_every=2, tensorboard=False, device="cpu")
    with pytest.raises(FloatingPointError, match="network"):
        fit(Broken(config), config, tmp_path)
    assert checkpoints.load_state(tmp_path / "state.pt")["step"] == 2


def test_install_copies_weights_and_cards(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match="finish the training"):
        install(tmp_path, "portraits")
    folder, _ = run(tmp_path / "run", steps=1)
    written = install(folder, "portraits")
    assert {path.name for path in written} == {"net.safetensors", "net.json"}
    assert checkpoints.check_chain(paths.world_dir("portraits")) == []


def test_sigterm_leaves_a_state_that_resumes_to_the_same_weights(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, time, pathlib
            sys.path.insert(0, sys.argv[1])
            from test_loop import Regression, TrainConfig, fit

            class Slow(Regression):
                def step(self, index):
                    pathlib.Path(sys.argv[2], "started").touch()
                    time.sleep(0.02)
                    return super().step(index)

            config = TrainConfig(steps=100000, device="cpu", tensorboard=False, threads=1)
            fit(Slow(config), config, pathlib.Path(sys.argv[2], "run"))
            """
        )
    )
    here = os.path.dirname(os.path.abspath(__file__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, str(script), here, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    done = checkpoints.load_state(tmp_path / "run" / "state.pt")["step"]
    assert done >= 1
    config = TrainConfig(steps=done, device="cpu", tensorboard=False)
    fit(task := Regression(config), config, tmp_path / "whole")
    saved = checkpoints.load_state(tmp_path / "run" / "state.pt")["modules"]["network"]
    assert same(saved, task.modules["network"].state_dict())


def test_sigint_raises_after_saving(tmp_path):
    class Interrupted(Regression):
        def step(self, index):
            if index == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return super().step(index)

    config = TrainConfig(steps=9, device="cpu", tensorboard=False)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(config), config, tmp_path)
    assert checkpoints.load_state(tmp_path / "state.pt")["step"] == 3
    assert signal.getsignal(signal.SIGINT) is before


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
