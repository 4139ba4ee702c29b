"""Every training that is killed and resumed equals one that was not, bit for bit."""

import pytest
import torch

from clcae_lib.training import fit, load_config
from clcae_lib.training.adversarial import AdversarialTask
from clcae_lib.training.alignment import AlignmentConfig, AlignmentTask
from clcae_lib.training.feature_editor import FeatureEditorConfig, FeatureEditorTask
from clcae_lib.training.inversion import InversionConfig, InversionTask
from clcae_lib.training.judges import JudgesConfig, JudgeTask
from clcae_lib.training.peers import METHODS, PeerConfig, task_of
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import get_world
from clcae_lib.worlds.portraits import dataset
from tests.unit import _tiny
from tests.unit.test_adversarial import Blobs, settings


@pytest.fixture(scope="module")
def parts():
    return {size: _tiny.parts_of(size) for size in (32, 64)}


@pytest.fixture(autouse=True)
def _few_renders(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset, "_BLOCK_AT_64", 32)


def make(name, parts):
    """A task of this name."""
    if name in METHODS:
        return task_of(PeerConfig(**_tiny.PEER, method=name), parts[32])
    if name in ("foundation", "published"):
        values = _tiny.FOUNDATION | (_tiny.PUBLISHED if name == "published" else {})
        return InversionTask(InversionConfig(**values), parts[32 if name == "foundation" else 64])
    if name in ("alignment", "pairs"):
        pairs = 20 if name == "pairs" else None
        return AlignmentTask(AlignmentConfig(**_tiny.ALIGNMENT, pairs=pairs), parts[32].generator)
    if name == "feature_editor":
        values = _tiny.RUN | {"samples": 8, "validation_pairs": 4, "width": 8, "blocks": 1}
        return FeatureEditorTask(FeatureEditorConfig(**values), get_world("portraits"))
    if name in ("32-true", "bf16-mixed"):
        return AdversarialTask(settings(precision=name, checkpoint_every=1), Blobs())
    few = ["size=32", "validation_size=16", "batch_size=8", "steps=4", "checkpoint_every=2"]
    few += ["device=cpu", "tensorboard=false", "kind=oracle", "copy=a", "validate_every=9"]
    return JudgeTask(load_config(JudgesConfig, None, few))


STAGES = [(precision, killed) for precision in ("32-true", "bf16-mixed") for killed in (2, 3, 4)]
OTHERS = ["foundation", "published", "alignment", "pairs", "oracle", "feature_editor", *METHODS]


@pytest.mark.parametrize(("name", "killed"), [*STAGES, *((name, 3) for name in OTHERS)])
def test_a_killed_training_resumes_bit_for_bit(name, killed, parts, tmp_path):
    whole, dying, resumed = (make(name, parts) for _ in range(3))
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
        _tiny.assert_equal(states[0][field], states[1][field], field)
