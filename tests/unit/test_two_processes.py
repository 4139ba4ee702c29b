"""Trainings on two processes: what ranks share is one thing, and they end together."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from clcae_lib.training import fit
from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask
from clcae_lib.training.inversion import InversionConfig, InversionTask
from clcae_lib.weights import checkpoints
from tests.unit._tiny import ALIGNMENT, FOUNDATION, assert_equal, parts_of, tiny_generator
from tests.unit.test_adversarial import train as train_generator

pytestmark = pytest.mark.xdist_group("two_processes")  # what these tests share is made once, in one worker

ALIGNED = ALIGNMENT | {"steps": 2, "validate_every": 99}
# Samples only: the shares of two ranks are then the batch of one.
INVERTED = FOUNDATION | {"steps": 2, "validate_every": 99, "mix": 1.0}


def align(folder, **changes):
    config = AlignmentConfig(**{**ALIGNED, **changes})
    fit(task := AlignmentTask(config, tiny_generator()), config, folder, progress=False)
    return task


def invert(folder, **changes):
    config = InversionConfig(**{**INVERTED, **changes})
    fit(task := InversionTask(config, parts_of(32)), config, folder, progress=False)
    return task


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which two processes have trained all that is looked at below."""
    folder = tmp_path_factory.mktemp("two")
    train_generator(folder / "generator", steps=2)
    script = folder / "two.py"
    script.write_text(
        textwrap.dedent(
            """
            import json, pathlib, sys, time
            import torch
            from clcae_lib.inversion.e4e import CodePool
            from clcae_lib.training import fit
            from clcae_lib.training.peers import E4eTask, PeerConfig
            from tests.unit._tiny import PEER, parts_of
            from tests.unit.test_loop import Regression, TrainConfig
            from tests.unit.test_two_processes import align, invert, train_generator

            folder, two = pathlib.Path(sys.argv[1]), {"devices": 2, "threads": 1}

            def keep(name, modules, rank):
                states = {key: module.state_dict() for key, module in modules.items()}
                torch.save(states, folder / f"{name}{rank}.pt")

            task = align(folder / "alignment", **two | {"threads": 3})  # the launch sets another number
            rank = task.fabric.global_rank
            for name, changes in {
                "inversion": {},
                "body": {"body": "irse_small", "init_from_alignment": False, "start": "fresh"},
            }.items():
                task = invert(folder / name, **two, **changes)
                keep(name, task.modules, rank)

            task = train_generator(folder / "generator", **two)  # one process trained two steps of six
            keep("generator", {"generator": task.modules["generator"]}, rank)

            class SmallPool(E4eTask):
                def setup(self, fabric):
                    super().setup(fabric)
                    self.pool = CodePool(3)

            def e4e(name, steps):
                config = PeerConfig(**{**PEER, **two, "method": "e4e", "steps": 6})
                task = SmallPool(config, parts_of(32))
                task.remaining = lambda done: max(0, steps - done)
                fit(task, config, folder / name, progress=False)
                return task

            e4e("empty", 0)
            e4e("parts", 3)
            for name in ("whole", "parts"):
                task = e4e(name, 6)
                keep(name, {**task.modules}, rank)

            class Planted(Regression):
                def step(self, index):
                    out = super().step(index)
                    if self.fabric.global_rank == 1 and index == 1:
                        if self.config.seed:
                            self.modules["network"][0].weight.data[0, 0] = float("nan")
                            return {"loss": 0.0}
                        return {"loss": float("nan")}
                    return out if index == 0 or not self.config.seed else {"loss": 0.0}

            for name, seed in (("metric", 0), ("weights", 1)):
                every = {"steps": 4, "log_every": 2, "checkpoint_every": 2, "tensorboard": False}
                config = TrainConfig(**two, **every, seed=seed, device="cpu")
                try:
                    fit(Planted(config), config, folder / name, progress=False)
                    said = "nothing"
                except Exception as error:
                    said = f"{type(error).__name__}: {error}"
                (folder / f"{name}{rank}.json").write_text(json.dumps(said))
            """
        )
    )
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])}
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, str(script), str(folder)]
    with (folder / "output.txt").open("w") as output:
        options = {"cwd": root, "env": environment, "stdout": output, "stderr": output}
        process = subprocess.Popen(command, start_new_session=True, **options)
        try:
            process.wait(timeout=240)
        except subprocess.TimeoutExpired:  # a rank waits for one that left; the tests below say in which run
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return folder


def saved(folder, name):
    found = [folder / f"{name}{rank}.pt" for rank in (0, 1)]
    assert all(path.is_file() for path in found), (folder / "output.txt").read_text()[-4000:]
    return [torch.load(path, weights_only=True) for path in found]


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize(("name", "train"), [("alignment", align), ("inversion", invert)])
def test_two_ranks_learn_from_the_whole_batch_as_one_process_does(trained, tmp_path, name, train):
    """Losses and gradients agree, so every rank's negatives are gathered, and with their gradients."""
    train(tmp_path)
    assert (trained / name / "metrics.csv").is_file(), (trained / "output.txt").read_text()[-4000:]
    one, two = rows(tmp_path), rows(trained / name)
    assert len(one) == len(two) == 2
    for measure in ("loss", "gradient"):
        assert [row[measure] for row in two] == pytest.approx([row[measure] for row in one], rel=1e-3)


@pytest.mark.parametrize("name", ["inversion", "body", "generator"])
def test_ranks_have_equal_weights_and_statistics_of_normalisation(trained, name):
    assert_equal(*saved(trained, name))


def test_two_processes_resume_a_run_of_one(trained):
    state = checkpoints.load_state(trained / "generator" / "state.pt")
    assert (state["step"], state["images"]) == (6, 24)
    assert_equal(state["modules"]["generator"], saved(trained, "generator")[0]["generator"])


def test_a_resumed_e4e_equals_a_straight_one_on_every_rank(trained):
    """The discriminator is shown codes of the rank's own pool, which a state must keep for each."""
    for whole, parts in zip(saved(trained, "whole"), saved(trained, "parts"), strict=True):
        assert_equal(whole, parts)
    pool = checkpoints.load_state(trained / "parts" / "state.pt")["task"]["pool"]
    assert len(pool) == 2 * 3
    assert not torch.equal(pool[:3], pool[3:])


@pytest.mark.parametrize(("name", "what"), [("metric", "loss is"), ("weights", "weights of")])
def test_a_number_that_is_not_finite_on_one_rank_ends_both(trained, name, what):
    for rank in (0, 1):
        path = trained / f"{name}{rank}.json"
        assert path.is_file(), (trained / "output.txt").read_text()[-4000:]
        said = json.loads(path.read_text())
        assert said.startswith("FloatingPointError: step 2: "), said
        assert what in said


def test_several_processes_have_the_threads_that_were_asked_for(trained):
    assert json.loads((trained / "alignment" / "versions.json").read_text())["threads"] == 3
