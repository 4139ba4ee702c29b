"""What decides whether steps are recorded; tests/cuda has the recorded steps themselves."""

import torch

from clcae_lib.training.adversarial import AdversarialTask
from clcae_lib.training.alignment import AlignmentTask
from clcae_lib.training.body import BodyTask
from clcae_lib.training.graphs import CudaGraphs
from clcae_lib.training.inversion import InversionTask
from clcae_lib.training.judges import JudgeTask
from clcae_lib.training.optim import make_ranger
from clcae_lib.training.peers import PeerTask


def test_on_a_cpu_a_step_runs_each_time():
    graphs, runs = CudaGraphs("cpu", enabled=True), []

    def step(x):
        runs.append(x)
        return {"double": 2 * x}

    for value in range(6):
        assert graphs("step", step, x=torch.tensor(value))["double"] == 2 * value
    assert len(runs) == 6
    assert not graphs.enabled


def test_an_optimizer_that_counts_in_python_ends_the_recording():
    weight = torch.nn.Parameter(torch.zeros(2))
    graphs = CudaGraphs("cpu", enabled=True)
    graphs.enabled = True  # as on a CUDA device
    graphs.prepare(torch.optim.Adam([weight]))
    assert graphs.enabled
    ranger = make_ranger([weight], lr=1e-3)
    graphs.prepare(ranger)
    assert not graphs.enabled
    assert isinstance(ranger.param_groups[0]["lr"], float)


def test_a_learning_rate_that_is_recorded_is_a_tensor_and_else_a_number():
    adam = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=0.5)
    graphs = CudaGraphs("cpu", enabled=False)
    graphs.enabled = True
    graphs.prepare(adam)
    assert isinstance(adam.param_groups[0]["lr"], torch.Tensor)
    assert adam.param_groups[0]["capturable"]
    graphs.enabled = False
    graphs.prepare(adam)
    assert adam.param_groups[0]["lr"] == 0.5
    assert not adam.param_groups[0]["capturable"]


def test_only_tasks_that_run_through_graphs_are_recorded():
    tasks = (AdversarialTask, AlignmentTask, InversionTask, JudgeTask, BodyTask, PeerTask)
    assert [task.recorded for task in tasks] == [True, True, True, False, False, False]


def test_a_resumed_optimizers_steps_are_where_a_recording_needs_them():
    weight = torch.nn.Parameter(torch.zeros(2))
    adam = torch.optim.Adam([weight])
    weight.grad = torch.ones(2)
    adam.step()
    graphs = CudaGraphs("meta", enabled=False)
    graphs.enabled = True
    graphs.prepare(adam)
    assert adam.state[weight]["step"].device.type == "meta"
