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
from clcae_lib.training import ConfigError, Task, TrainConfig, fit, install
from clcae_lib.weights import checkpoints
from tests.unit._tiny import assert_equal


class Regression(Task):
    """A small network with dropout, momentum and random data: everything a resume can get wrong."""

    def setup(self, fabric):
        super().setup(fabric)
        self.network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        adam = torch.optim.Adam(self.network.parameters(), lr=0.01)
        self.count = 0
        self.modules = {"network": self.network}
        self.optimizers = {"network": fabric.setup_optimizers(adam)}

    def step(self, index):
        x = torch.randn(self.config.batch_size, 3)
        loss = (self.network(x) - x.sum(1, keepdim=True)).square().mean()
        self.update("network", loss, self.network)
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
        path = folder / "net.safetensors"
        checkpoints.save_weights(path, self.network.state_dict(), metadata={})
        (folder / "state.pt").rename(folder / "away.pt")  # a card needs no state
        self.write_card(path, measures={})
        (folder / "away.pt").rename(folder / "state.pt")


def run(folder, *, resume=True, kind=Regression, **changes):
    settings = {"steps": 6, "log_every": 2, "validate_every": 3, "sheet_every": 4, "device": "cpu"}
    config = TrainConfig(**{**settings, "checkpoint_every": 4, "tensorboard": False, **changes})
    return fit(task := kind(config), config, folder, resume=resume), task


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def state(folder):
    return checkpoints.load_state(folder / "state.pt")


@pytest.mark.parametrize(("at", "number"), [(2, signal.SIGINT), (5, None)])
def test_a_run_stopped_between_two_rows_goes_on_with_the_same_rows(tmp_path, at, number):
    class Stopped(Regression):
        """Interrupted by a person in step `at`, or killed."""

        def step(self, index):
            if index == at and number:
                os.kill(os.getpid(), number)
            elif index == at:
                raise InterruptedError("killed")
            return super().step(index)

    settings = {"steps": 9, "log_every": 4, "validate_every": 3, "checkpoint_every": 5, "threads": 1}
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises((KeyboardInterrupt, InterruptedError)):
        run(tmp_path / "parts", kind=Stopped, **settings)
    assert state(tmp_path / "parts")["step"] == (at + 1 if number else 5)
    assert signal.getsignal(signal.SIGINT) is before
    names = ("step", "images", "loss", "rare", "half")
    folders = [run(tmp_path / name, **settings)[0] for name in ("whole", "parts")]
    whole, parts = ([[row[name] for name in names] for row in rows(folder)] for folder in folders)
    assert [row[0] for row in whole] == ["3", "4", "6", "8", "9"]
    assert whole == parts


def process_state():
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    numbers = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    return numbers, flags, torch.get_num_threads(), dict(os.environ)


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
    before = process_state()
    try:
        fit(Ending(config), config, tmp_path)
    except InterruptedError:
        assert not ends
    assert process_state() == before


def test_a_run_leaves_its_records(tmp_path):
    folder, task = run(tmp_path / "run", tensorboard=True)
    names = ["config.yaml", "versions.json", "state.pt", "net.safetensors", "sheets/0000004.png"]
    assert all((folder / name).is_file() for name in names)
    assert list((folder / "tensorboard").iterdir())
    found, images = rows(folder), 6 * task.config.batch_size
    assert [row["step"] for row in found] == ["2", "3", "4", "6"]
    assert (found[2]["rare"], found[0]["rare"], found[-1]["half"]) == ("1", "", "3")
    assert float(found[-1]["images_per_second"]) > 0
    assert found[-1]["images"] == str(images)
    card = checkpoints.read_card(folder / "net.safetensors")
    assert (card["name"], card["steps"], card["images_seen"]) == ("net", 6, images)
    assert card["seconds"] >= 0


def test_a_resume_drops_the_rows_it_does_again_and_no_resume_all(tmp_path):
    folder, _ = run(tmp_path / "run", steps=3)
    with (folder / "metrics.csv").open("a") as file:
        file.write("5,99,1,1,1,1\n")
    run(folder)
    assert [row["step"] for row in rows(folder)] == ["2", "3", "4", "6"]
    assert run(folder, steps=2, resume=False)[1].count == 2
    assert [row["step"] for row in rows(folder)] == ["2"]


def test_a_compiled_training_is_the_plain_one_and_resumes_it(tmp_path, monkeypatch):
    made, original = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda call: made.append(call) or original(call, backend="eager"))
    run(tmp_path / "plain", steps=8)
    assert made == []
    run(tmp_path / "compiled", steps=4)
    run(tmp_path / "compiled", steps=8, compile=True)
    assert len(made) == 1
    assert_equal(state(tmp_path / "compiled")["modules"], state(tmp_path / "plain")["modules"])


def test_networks_that_a_task_builds_for_a_later_stage_are_compiled_too(tmp_path, monkeypatch):
    class Staged(Regression):
        def step(self, index):
            if index == 3:
                self.network = self.modules["network"] = nn.Sequential(nn.Linear(3, 1))
                self.optimizers["network"] = torch.optim.Adam(self.network.parameters())
            return super().step(index)

    made = []
    monkeypatch.setattr(torch, "compile", lambda call: made.append(call) or call)
    run(tmp_path, kind=Staged, compile=True)
    assert len(made) == 2


def test_a_run_of_other_settings_is_refused_with_the_difference_and_a_remedy(tmp_path):
    class Newer(TrainConfig):
        depth: int

    run(tmp_path, steps=3)
    with pytest.raises(ConfigError, match=r"batch_size: 16 -> 4") as error:
        run(tmp_path, batch_size=4, log_every=1)
    assert "log_every" not in str(error.value)
    config = Newer(steps=3, device="cpu", depth=2)
    with pytest.raises(ConfigError, match=r"state\.pt is not a state .*depth: Field required.*--no-resume"):
        fit(Regression(config), config, tmp_path)


WRONG = {
    "step": ["a text", -1, 2.5, None, True, torch.ones(3)],
    "seconds": ["a text", float("nan"), None],
    "images": ["a text", -1, {}],
    "sums": ["a text", {"loss": "a text"}, {"loss": float("inf")}, {"loss": 1.0, "other": 1.0}],
    "counts": [{}, {"loss": 1.5}, None],
    "task": ["a text", {"count": "a text"}, {"count": 1.5}, {"count": True}, {}, None],
    "modules": ["a text", {}, {"network": torch.ones(2)}, {"network": {"0.weight": torch.ones(2, 2)}}],
    "optimizers": ["a text", {}, {"network": {}}, {"network": {"state": {}, "param_groups": []}}],
    "lr": ["a text", None, torch.ones(2), True],
    "betas": [0.9, (0.9,), ("a", "b")],
    "exp_avg": [torch.ones(2, 2), "missing", "missing everywhere"],
    "all": [{}, {"G": torch.ones(3)}],
}


@pytest.mark.parametrize(("place", "value"), [(name, value) for name in WRONG for value in WRONG[name]])
def test_a_state_of_something_else_is_refused_in_one_sentence(tmp_path, place, value):
    folder, _ = run(tmp_path / "run", steps=4, log_every=3)
    content = state(folder) | {"sums": {"loss": 1.0}, "counts": {"loss": 1}}
    optimizer = content["optimizers"]["network"]
    if place == "all":
        content = value
    elif place in ("lr", "betas"):
        optimizer["param_groups"][0][place] = value
    elif isinstance(value, str) and value == "missing":
        del optimizer["state"][0][place]
    elif isinstance(value, str) and value == "missing everywhere":
        for moments in optimizer["state"].values():
            del moments[place]
    else:
        where = optimizer["state"][0] if place == "exp_avg" else content
        where[place] = value
    checkpoints.save_state(folder / "state.pt", content)
    with pytest.raises(
        ConfigError, match=r"state\.pt is not a state of this training .*--no-resume"
    ) as caught:
        run(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "rows", [b"\xff\xfe", b"a,b\n1,2\n", b"step\nx\n", b"step,images\n1\n", b"step\n1,2\n", b"step\n\0\n"]
)
def test_damaged_rows_of_a_run_are_named(tmp_path, rows):
    folder, _ = run(tmp_path / "run", steps=4)
    (folder / "metrics.csv").write_bytes(rows)
    with pytest.raises(ConfigError, match=r"metrics\.csv is damaged"):
        run(folder)


def test_partial_files_of_a_killed_run_are_removed_at_the_next_start(tmp_path):
    folder, _ = run(tmp_path / "run", steps=4)
    litter = [folder / ".partial-1state.pt", folder / "sheets" / ".partial-20000004.png"]
    for path in litter:
        path.write_bytes(b"half")
    run(folder)
    assert not any(path.exists() for path in litter)


def test_time_limit_stops_with_a_state_and_weights(tmp_path):
    folder, task = run(tmp_path, max_minutes=0)
    assert task.count == 0
    assert (folder / "net.safetensors").is_file()
    assert run(tmp_path)[1].count == 6


def test_what_is_not_finite_names_step_and_part_and_keeps_the_last_state(tmp_path):
    class Exploding(Regression):
        def step(self, index):
            return {**super().step(index), "loss": float("inf") if index == 4 else 1.0}

    class Broken(Regression):
        def step(self, index):
            super().step(index)
            if index == 3:
                self.network[0].weight.data[0, 0] = float("nan")
            return {"other": 0.0}

    with pytest.raises(FloatingPointError, match=r"step 5: loss is not finite.*state\.pt"):
        run(tmp_path / "loss", kind=Exploding, log_every=1, checkpoint_every=2)
    assert state(tmp_path / "loss")["step"] == 4
    with pytest.raises(FloatingPointError, match="step 4: weights of network are not finite"):
        run(tmp_path / "weights", kind=Broken, checkpoint_every=2)
    assert state(tmp_path / "weights")["step"] == 2


def test_install_copies_weights_and_cards(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match="finish the training"):
        install(tmp_path, "portraits")
    folder, _ = run(tmp_path / "run", steps=1)
    written = install(folder, "portraits")
    assert {path.name for path in written} == {"net.safetensors", "net.json"}
    assert checkpoints.check_chain(paths.world_dir("portraits")) == []


def test_sigterm_leaves_a_state_that_resumes_to_the_same_weights(tmp_path):
    program = """
        import pathlib, sys
        from tests.unit.test_loop import Regression, run

        class Noted(Regression):
            def step(self, index):
                pathlib.Path(sys.argv[1], "started").touch()
                return super().step(index)

        run(pathlib.Path(sys.argv[1], "run"), kind=Noted, steps=10**7, threads=1)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))}
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    saved = state(tmp_path / "run")
    assert saved["step"] >= 1
    _, whole = run(tmp_path / "whole", steps=saved["step"])
    assert_equal(saved["modules"]["network"], whole.network.state_dict())
