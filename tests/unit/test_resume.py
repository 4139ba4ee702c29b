"""Every training that is killed and resumed equals one that was not, bit for bit."""

import pytest
import torch

from clcae_lib.training import fit
from clcae_lib.weights import checkpoints
from tests.device.drivers import trainings
from tests.unit._tiny import assert_equal

TRAININGS = trainings()
STAGED = "generator relativistic"  # killed in its first stage, at its end, and in the next one
KILLED = [*((STAGED, "32-true", at) for at in (1, 2, 3)), (STAGED, "bf16-mixed", 3)]
ALIKE = ("inversion single", "inversion none", "inversion unaligned", "identity", "perceptual")
KILLED += [(name, "32-true", 3) for name in TRAININGS if name not in (STAGED, *ALIKE)]


@pytest.mark.parametrize(("name", "precision", "killed"), KILLED)
@pytest.mark.usefixtures("shared_renders")
def test_a_killed_training_resumes_bit_for_bit(name, precision, killed, tmp_path):
    changes = {"precision": precision, "checkpoint_every": 1 if name == STAGED else 2}
    whole, dying, resumed = (TRAININGS[name](4, **changes) for _ in range(3))
    step = dying.step

    def stop(index):
        if index == killed:
            raise InterruptedError
        return step(index)

    dying.step = stop
    fit(whole, whole.config, tmp_path / "whole", progress=False)
    with pytest.raises(InterruptedError):
        fit(dying, dying.config, tmp_path / "part", progress=False)
    torch.rand(7)
    fit(resumed, resumed.config, tmp_path / "part", progress=False)
    states = [checkpoints.load_state(tmp_path / name / "state.pt") for name in ("whole", "part")]
    for field in ("step", "images", "task", "modules", "optimizers"):
        assert_equal(states[0][field], states[1][field], field)
