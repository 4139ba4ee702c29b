"""Settings: defaults, file, overrides, and errors that name the parameter."""

import pytest

from clcae_lib.training import ConfigError, TrainConfig, load_config
from clcae_lib.training.adversarial import GeneratorConfig
from clcae_lib.training.alignment import AlignmentConfig
from clcae_lib.training.config import differences
from clcae_lib.training.inversion import InversionConfig
from clcae_lib.training.judges import JudgesConfig
from clcae_lib.training.peers import PeerConfig


def test_overrides_beat_the_file_which_beats_the_defaults(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("seed: 3\nsteps: 7\n")
    config = load_config(TrainConfig, file, ["steps=9"])
    assert (config.seed, config.steps, config.batch_size) == (3, 9, TrainConfig().batch_size)
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        load_config(TrainConfig, tmp_path / "absent.yaml")


def test_numbers_null_lists_and_text_are_read_as_they_are_written():
    settings = ["lr=3e-4", "size=null", "stages=[{resolution: 64, images: 5}]"]
    config = load_config(GeneratorConfig, None, settings)
    assert (config.lr, config.size) == (pytest.approx(3e-4), None)
    assert [stage.images for stage in config.stages] == [5]
    config = load_config(InversionConfig, None, ["alignment=off", "feature_attention=off", "device=cpu # 1"])
    assert (config.alignment, config.feature_attention, config.device) == ("off", "off", "cpu # 1")


def test_a_short_name_and_the_fields_own_are_one_setting(tmp_path):
    (tmp_path / "old.yaml").write_text("copy_: b\nkind: oracle\n")
    assert load_config(JudgesConfig, tmp_path / "old.yaml").copy_ == "b"
    assert load_config(JudgesConfig, tmp_path / "old.yaml", ["copy=a"]).copy_ == "a"
    assert load_config(JudgesConfig, None, ["copy=a", "copy_=b"]).copy_ == "b"


@pytest.mark.parametrize(("name", "side"), [("ffhq", 1024), ("cars", 512)])
def test_a_world_of_photographs_has_the_published_sizes(name, side):
    for preset in ("foundation", "published"):
        config = load_config(InversionConfig, None, [f"world={name}", f"preset={preset}"])
        assert (config.body, config.lr, config.batch_size, config.hidden) == ("irse50", 1e-4, 2, None)
    assert load_config(AlignmentConfig, None, [f"world={name}"]).body == "irse50"
    peer = load_config(PeerConfig, None, [f"world={name}"])
    assert (peer.body, peer.start) == ("irse50", "fresh")
    generator = load_config(GeneratorConfig, None, [f"world={name}", "stages.0.images=8"])
    assert (generator.resolution, generator.stages[0].images) == (side, 8)
    assert generator.channels[side] == 32768 // side


def test_one_field_of_one_default_stage_can_be_set():
    config = load_config(GeneratorConfig, None, ["stages.1.images=77", "channels.64=24"])
    defaults = GeneratorConfig()
    assert config.stages[1].images == 77
    assert config.stages[1].lr == defaults.stages[1].lr
    assert config.stages[0] == defaults.stages[0]
    assert config.channels == {**defaults.channels, 64: 24}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stepz=3", ["stepz", "did you mean 'steps'"]),
        ("steps=many", ["steps", "many"]),
        ("batch_size=0", ["batch_size", "greater than or equal to 1"]),
        ("precision=16-mixed", ["precision", "bf16-mixed"]),
        ("stages.9.images=3", ["stages.9.images", "'9'"]),
        ("nothing.at=3", ["nothing"]),
        ("seed", ["seed", "name=value"]),
        ("stages.0.image=3", ["stages.0.image"]),
        ("resolution=32", ["stages", "resolution=32"]),
        ("stages=[]", ["stages"]),
        ("devices=3", ["batch_size", "devices=3"]),
    ],
)
def test_a_wrong_setting_is_named(override, words):
    with pytest.raises(ConfigError) as error:
        load_config(GeneratorConfig, None, [override])
    for word in words:
        assert word in str(error.value)


def test_free_settings_may_change_and_others_are_listed():
    old, new = TrainConfig(), TrainConfig(steps=1, log_every=2, max_minutes=3, batch_size=5)
    assert differences(old.fixed({}), new.fixed({})) == ["batch_size: 16 -> 5"]


def test_stages_to_come_are_free_and_past_ones_are_not():
    old = GeneratorConfig()
    new = load_config(GeneratorConfig, None, ["stages.1.images=9", "stages.2.lr=0.1"])
    assert not differences(old.fixed({"stage": 1}), new.fixed({"stage": 1}))
    found = differences(old.fixed({"stage": 2}), new.fixed({"stage": 2}))
    assert [line.split(":")[0] for line in found] == ["stages.1", "stages.2"]
