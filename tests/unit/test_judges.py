"""The judges and their training, at a tiny size."""

import pytest
import torch

from clcae_lib.files import sha256
from clcae_lib.training.config import ConfigError, load_config
from clcae_lib.training.judges import JudgesConfig, JudgeTask, augment, train, verification
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import WorldError, get_world
from clcae_lib.worlds.portraits.factors import MEAN, NAMES, STD
from clcae_lib.worlds.portraits.judges import JUDGES, load_judge

pytestmark = [  # what these tests share is made once, in one worker
    pytest.mark.xdist_group("judges"),
    pytest.mark.usefixtures("shared_renders"),
]

TINY = ["size=32", "validation_size=16", "batch_size=8", "precision=32-true", "tensorboard=false"]
TINY += ["device=cpu", "validate_every=9", "start=random", "steps=1", "kind=oracle", "copy=a"]


def trained(folder, *settings, **options):
    """The card of a judge after a short training."""
    config = load_config(JudgesConfig, None, [*TINY, *settings])
    train(config, folder, progress=False, **options)
    return checkpoints.read_card(folder / f"{config.kind}_{config.copy_}.safetensors")


def test_shapes_and_units():
    images, others = (torch.rand(2, 3, 64, 64) * 2 - 1 for _ in range(2))
    oracle, identity, perceptual = (JUDGES[kind]().eval() for kind in ("oracle", "identity", "perceptual"))
    assert oracle(images).shape == (2, len(NAMES))
    assert torch.allclose((oracle(images) - MEAN) / STD, oracle.predictions(images), atol=1e-5)
    assert torch.allclose(identity(images).norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(identity.similarity(images, images), torch.ones(2), atol=1e-5)
    assert torch.equal(perceptual(images, images), torch.zeros(2))
    assert torch.allclose(perceptual(images, others), perceptual(others, images))
    assert (perceptual(images, others) > 0.01).all()


def test_judges_read_any_resolution():
    images = torch.rand(2, 3, 16, 16).repeat_interleave(8, 2).repeat_interleave(8, 3)
    oracle = JUDGES["oracle"]().eval()
    halved = torch.nn.functional.avg_pool2d(images, 2)
    assert torch.allclose(oracle(images), oracle(halved), atol=1e-5)


def test_roles_never_share_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    world = get_world("portraits")
    words = r"oracle_b.*clcae train judges --world portraits --set kind=oracle --set copy=b"
    with pytest.raises(WorldError, match=words):
        world.oracle("measure")
    for copy, value in (("a", 1.0), ("b", 2.0)):
        judge = JUDGES["oracle"]()
        torch.nn.init.constant_(judge.head.layers[-1].bias, value)
        metadata = {"kind": "oracle", "config": judge.config}
        checkpoints.save_weights(world.weights(f"oracle_{copy}"), judge.state_dict(), metadata=metadata)
    for role, value in (("train", 1), ("measure", 2)):
        assert world.oracle(role).head.layers[-1].bias[0] == value
    with pytest.raises(ValueError, match="identity"):
        load_judge(world.weights("oracle_a"), "identity")


def test_augmented_images_differ_a_little_and_are_a_function_of_the_seed():
    images = torch.rand(64, 3, 8, 8) * 2 - 1
    found, again = (augment(images, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(found, again)
    assert 0.01 < (found - images).abs().mean() < 0.2


def test_verification_of_perfect_and_of_useless_embeddings():
    basis = torch.eye(32)
    assert verification(basis, basis)["verification_auc"] == 1
    constant = torch.nn.functional.normalize(torch.ones(32, 8), dim=1)
    assert verification(constant, constant)["verification_auc"] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", list(JUDGES))
def test_training_writes_weights_and_a_card_for_its_world(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    changes = [f"kind={kind}", "copy=b", "steps=3", "validate_every=3"]
    card = trained(tmp_path / "portraits", *changes)  # where the world looks for its judges
    judge = getattr(get_world("portraits"), kind)("measure")
    assert judge.config["widths"]
    assert (card["world"], card["split"], card["steps"]) == ("portraits", "judge_b", 3)
    assert card["measures"]


def test_copies_differ_in_seed_and_data(tmp_path):
    cards = [trained(tmp_path, f"copy={copy}") for copy in "ab"]
    assert cards[0]["split"] != cards[1]["split"]
    assert cards[0]["seed"] != cards[1]["seed"]


def test_a_finished_judge_with_other_settings_is_an_error_that_names_them(tmp_path):
    first = trained(tmp_path)
    changes = {"lr=0.5": "lr: 0.003 -> 0.5", "seed=3": "seed: 100 -> 103", "size=40": "size: 32 -> 40"}
    for setting, words in changes.items():
        with pytest.raises(ConfigError, match=words):
            trained(tmp_path, setting)
    assert trained(tmp_path, "lr=0.5", resume=False)["sha256"] != first["sha256"]


def test_a_judge_is_trained_to_the_steps_that_are_asked_for(tmp_path):
    assert trained(tmp_path, "max_minutes=0")["steps"] == 0, "out of time, and not finished"
    for steps in (1, 3):
        assert trained(tmp_path, f"steps={steps}")["steps"] == steps
    with pytest.raises(ConfigError, match="3 steps, more than steps=2"):
        trained(tmp_path, "steps=2")


def test_the_others_start_from_the_oracle_of_their_copy(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    settings = ["start=oracle", "copy=b", "lr=1e-12", "weight_decay=0"]
    with pytest.raises(ConfigError, match=r"oracle_b\.safetensors is missing.*start=random"):
        trained(tmp_path, *settings, "kind=identity")
    trained(tmp_path, *settings)
    card = trained(tmp_path, *settings, "kind=identity")
    paths = [tmp_path / f"{kind}_b.safetensors" for kind in ("oracle", "identity")]
    oracle, identity = (load_judge(path, path.stem[:-2]) for path in paths)
    for a, b in zip(oracle.trunk.parameters(), identity.trunk.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert card["trained_on"] == {"oracle_b.safetensors": sha256(paths[0])}
    trained(tmp_path, *settings, "lr=0.5", resume=False)
    with pytest.raises(ConfigError, match=r"oracle_b\.safetensors: \w+ -> \w+"):
        trained(tmp_path, *settings, "kind=identity")


def test_an_oracle_learns_the_background(tmp_path):
    sizes = ["steps=48", "size=256", "batch_size=24", "lr=4e-3", "validation_size=48", "validate_every=99"]
    assert trained(tmp_path, *sizes)["measures"]["r2"]["background_lightness"] > 0.4


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("kind=critic", "kind"),
        ("devices=2", "devices"),
        ("world=cars", r"world='cars'.*factors.*portraits"),
        ("focus.hat=2", "no factor is called 'hat'"),
    ],
)
def test_what_no_judge_does_is_refused(setting, words):
    with pytest.raises(ConfigError, match=words):
        load_config(JudgesConfig, None, [setting])


@pytest.mark.parametrize(
    ("settings", "steps"),
    [(["kind=oracle"], 2700), (["kind=identity"], 500), (["kind=identity", "start=random"], 2700)],
)
def test_the_steps_follow_the_start_unless_they_are_given(settings, steps, tmp_path, monkeypatch):
    monkeypatch.setattr(JudgeTask, "setup", lambda task, fabric: pytest.fail(f"{task.config.steps} steps"))
    (tmp_path / "oracle_a.safetensors").write_bytes(b"")
    for given, expected in (([], steps), (["steps=7"], 7)):
        config = load_config(JudgesConfig, None, [*settings, "copy=a", "device=cpu", *given])
        with pytest.raises(pytest.fail.Exception, match=f"^{expected} steps"):
            train(config, tmp_path)
