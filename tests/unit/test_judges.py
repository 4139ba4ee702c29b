"""The judges and their training, at a tiny size."""

import json

import pytest
import torch

from clcae_lib.files import sha256
from clcae_lib.training.config import ConfigError, load_config
from clcae_lib.training.judges import JudgesConfig, JudgeTask, augment, train, verification
from clcae_lib.worlds import WorldError, get_world
from clcae_lib.worlds.portraits import dataset
from clcae_lib.worlds.portraits.factors import MEAN, NAMES, STD
from clcae_lib.worlds.portraits.judges import JUDGES, build_judge, load_judge

TINY = [
    "size=32",
    "validation_size=16",
    "steps=3",
    "batch_size=8",
    "precision=32-true",
    "tensorboard=false",
    "device=cpu",
    "validate_every=3",
    "start=random",
    "log_every=1",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache of renders for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(cache))
    monkeypatch.setattr(dataset, "_BLOCK_AT_64", 32)  # render no more than these tests ask for


def test_shapes_and_units():
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    oracle = build_judge("oracle").eval()
    assert oracle(images).shape == (3, len(NAMES))
    assert torch.allclose((oracle(images) - MEAN) / STD, oracle.standardised(images), atol=1e-5)
    identity = build_judge("identity").eval()
    assert torch.allclose(identity(images).norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(identity.similarity(images, images), torch.ones(3), atol=1e-5)


def test_the_perceptual_distance_is_a_distance():
    perceptual = build_judge("perceptual").eval()
    x, y = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(perceptual(x, x), torch.zeros(2))
    assert torch.allclose(perceptual(x, y), perceptual(y, x))
    assert (perceptual(x, y) > 0.01).all()


def test_judges_read_any_resolution():
    images = torch.rand(2, 3, 16, 16).repeat_interleave(8, 2).repeat_interleave(8, 3)
    oracle = build_judge("oracle").eval()
    halved = torch.nn.functional.avg_pool2d(images, 2)
    assert torch.allclose(oracle(images), oracle(halved), atol=1e-5)


def test_missing_weights_tell_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    with pytest.raises(
        WorldError, match=r"oracle_b.*clcae train judges --world portraits --set kind=oracle --set copy=b"
    ):
        get_world("portraits").oracle("measure")


def test_roles_never_share_a_file(tmp_path, monkeypatch):
    from clcae_lib.weights import checkpoints

    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    (tmp_path / "portraits").mkdir()
    for copy, value in (("a", 1.0), ("b", 2.0)):
        judge = build_judge("oracle")
        torch.nn.init.constant_(judge.head.layers[-1].bias, value)
        path = tmp_path / "portraits" / f"oracle_{copy}.safetensors"
        checkpoints.save_weights(
            path, judge.state_dict(), metadata={"kind": "oracle", "config": judge.config}
        )
    world = get_world("portraits")
    assert world.oracle("train").head.layers[-1].bias[0] == 1
    assert world.oracle("measure").head.layers[-1].bias[0] == 2
    with pytest.raises(ValueError, match="identity"):
        load_judge(world.weights("oracle_a"), "identity")


def test_augmenting_nothing_changes_nothing():
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    same = augment(images, torch.Generator().manual_seed(1), amount=0.0)
    assert torch.allclose(same, images)
    assert not torch.allclose(augment(images, torch.Generator().manual_seed(1)), images)


def test_verification_of_perfect_and_of_useless_embeddings():
    basis = torch.eye(32)
    assert verification(basis, basis)["verification_auc"] == 1
    constant = torch.nn.functional.normalize(torch.ones(32, 8), dim=1)
    assert verification(constant, constant)["verification_auc"] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["portraits", "portraits2"])
@pytest.mark.parametrize("kind", list(JUDGES))
def test_training_writes_weights_and_a_card_for_its_world(name, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    config = load_config(JudgesConfig, None, [*TINY, f"kind={kind}", "copy=b", f"world={name}"])
    train(config, tmp_path / name, progress=False)  # where the world looks for its judges
    world = get_world(name)
    judge = getattr(world, kind)("measure")
    assert judge.names == tuple(world.factor_names)
    assert judge.config["widths"]
    card = json.loads((tmp_path / name / f"{kind}_b.json").read_text())
    assert card["world"] == name
    assert card["split"] == "judge_b"
    assert card["measures"]
    assert card["steps"] == 3


def test_copies_differ_in_seed_and_data(tmp_path):
    for copy in "ab":
        config = load_config(JudgesConfig, None, [*TINY, "kind=oracle", f"copy={copy}", "steps=1"])
        train(config, tmp_path, progress=False)
    cards = [json.loads((tmp_path / f"oracle_{copy}.json").read_text()) for copy in "ab"]
    assert cards[0]["split"] != cards[1]["split"]
    assert cards[0]["seed"] != cards[1]["seed"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [("lr=0.5", "lr: 0.003 -> 0.5"), ("seed=3", "seed: 100 -> 103"), ("size=40", "size: 32 -> 40")],
)
def test_a_finished_judge_with_other_settings_is_an_error_that_names_them(tmp_path, setting, words):
    settings = [*TINY, "kind=oracle", "copy=a", "steps=1"]
    train(load_config(JudgesConfig, None, settings), tmp_path, progress=False)
    with pytest.raises(ConfigError, match=words):
        train(load_config(JudgesConfig, None, [*settings, setting]), tmp_path, progress=False)
    before = sha256(tmp_path / "oracle_a.safetensors")
    train(load_config(JudgesConfig, None, [*settings, setting]), tmp_path, progress=False, resume=False)
    assert sha256(tmp_path / "oracle_a.safetensors") != before


def test_a_finished_judge_is_trained_for_more_steps_if_asked(tmp_path):
    settings = [*TINY, "kind=oracle", "copy=a", "validate_every=9"]
    for steps in (1, 3):
        train(load_config(JudgesConfig, None, [*settings, f"steps={steps}"]), tmp_path, progress=False)
        assert json.loads((tmp_path / "oracle_a.json").read_text())["steps"] == steps
    with pytest.raises(ConfigError, match="3 steps, more than steps=2"):
        train(load_config(JudgesConfig, None, [*settings, "steps=2"]), tmp_path, progress=False)


def test_a_judge_that_ran_out_of_time_is_not_taken_for_a_finished_one(tmp_path):
    settings = [*TINY, "kind=oracle", "copy=a", "validate_every=9"]
    train(load_config(JudgesConfig, None, [*settings, "max_minutes=0"]), tmp_path, progress=False)
    assert json.loads((tmp_path / "oracle_a.json").read_text())["steps"] == 0
    train(load_config(JudgesConfig, None, settings), tmp_path, progress=False)
    assert json.loads((tmp_path / "oracle_a.json").read_text())["steps"] == 3


def test_a_judge_that_started_from_another_oracle_is_an_error(tmp_path):
    settings = [*TINY, "start=oracle", "copy=b", "steps=1"]
    for kind in ("oracle", "identity"):
        train(load_config(JudgesConfig, None, [*settings, f"kind={kind}"]), tmp_path, progress=False)
    again = load_config(JudgesConfig, None, [*settings, "kind=oracle", "lr=0.5"])
    train(again, tmp_path, progress=False, resume=False)
    with pytest.raises(ConfigError, match=r"oracle_b\.safetensors: \w+ -> \w+"):
        train(load_config(JudgesConfig, None, [*settings, "kind=identity"]), tmp_path, progress=False)


def test_an_oracle_learns_the_background(tmp_path):
    settings = [*TINY, "kind=oracle", "copy=a", "steps=60", "size=512", "batch_size=32", "lr=4e-3"]
    settings += ["validation_size=64", "validate_every=60"]
    train(load_config(JudgesConfig, None, settings), tmp_path, progress=False)
    measures = json.loads((tmp_path / "oracle_a.json").read_text())["measures"]
    assert measures["r2"]["background_lightness"] > 0.4


def test_the_others_start_from_the_oracle_of_their_copy(tmp_path):
    settings = [*TINY, "start=oracle", "copy=b", "steps=1", "lr=1e-12", "weight_decay=0"]
    train(load_config(JudgesConfig, None, [*settings, "kind=oracle"]), tmp_path, progress=False)
    train(load_config(JudgesConfig, None, [*settings, "kind=identity"]), tmp_path, progress=False)
    oracle, identity = (
        load_judge(tmp_path / f"{kind}_b.safetensors", kind) for kind in ("oracle", "identity")
    )
    for a, b in zip(oracle.trunk.parameters(), identity.trunk.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    card = json.loads((tmp_path / "identity_b.json").read_text())
    assert card["trained_on"] == {"oracle_b.safetensors": sha256(tmp_path / "oracle_b.safetensors")}


def test_without_that_oracle_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    config = load_config(JudgesConfig, None, [*TINY, "start=oracle", "kind=identity", "copy=a"])
    with pytest.raises(ConfigError, match=r"oracle_a\.safetensors is missing.*start=random"):
        train(config, tmp_path, progress=False)


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
def test_the_steps_follow_the_start(settings, steps, tmp_path, monkeypatch):
    monkeypatch.setattr(JudgeTask, "setup", lambda task, fabric: pytest.fail(f"{task.config.steps} steps"))
    (tmp_path / "oracle_a.safetensors").write_bytes(b"")
    settings += ["copy=a", "device=cpu"]
    for given, expected in (([], steps), (["steps=7"], 7)):
        with pytest.raises(pytest.fail.Exception, match=f"^{expected} steps"):
            train(load_config(JudgesConfig, None, [*settings, *given]), tmp_path)
