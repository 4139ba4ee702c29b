"""The feature editor: what it does not change, where it is used, and that it learns."""

import shutil
from dataclasses import replace

import pytest
import torch

from clcae_lib import paths
from clcae_lib.editing import Direction, apply
from clcae_lib.inversion import ClcaeInverter, Inversion, make_inverter
from clcae_lib.inversion.inversion import Editing, Plain
from clcae_lib.models import FeatureEditor
from clcae_lib.training import ConfigError, fit
from clcae_lib.training.feature_editor import FeatureEditorConfig, FeatureEditorTask
from clcae_lib.weights import WeightsError, load_feature_editor
from clcae_lib.weights.checkpoints import save_weights
from clcae_lib.worlds import WorldError, get_world
from tests.unit._tiny import RUN, tiny_generator

YAW = Direction(torch.linspace(-1, 1, 8), "yaw")


def editor(*, trained, channels=6, **options):
    """An editor with its initial weights, or with random ones in the place of trained ones."""
    torch.manual_seed(3)
    network = FeatureEditor(channels, width=8, blocks=2, flows=2, **options)
    if trained:
        torch.nn.init.normal_(network.head.weight, std=0.1)
    return network.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


@pytest.fixture(scope="module")
def inversion(generator):
    codes = Inversion.from_w(generator.sample_w(3, generator=torch.Generator().manual_seed(1)), generator)
    return replace(codes, feature=generator.activation(codes.w_plus + 0.3))


def carried(generator, inversion, network, strength):
    """F after an edit of this strength."""
    decoder = Plain() if network is None else Editing(network)
    return apply(generator, replace(inversion, decoder=decoder), YAW, strength).feature


def test_before_training_it_is_the_formula_and_an_edit_of_strength_0_never_changes_f(generator, inversion):
    formula = carried(generator, inversion, None, 1.0)
    torch.testing.assert_close(carried(generator, inversion, editor(trained=False), 1.0), formula)
    trained = editor(trained=True)
    assert (carried(generator, inversion, trained, 1.0) - formula).abs().max() > 0.01
    torch.testing.assert_close(carried(generator, inversion, trained, 0.0), inversion.feature)


def test_a_flow_moves_the_residual(generator):
    network = editor(trained=False)
    network.head.bias[-4:] = torch.tensor([1.0, 0.0, 0.0, -2.0])  # right by one pixel; up by two
    residual, far = torch.randn(1, 6, 16, 16), torch.full((1, 6, 16, 16), 9.0)
    found = network(residual, torch.zeros_like(far), far)
    torch.testing.assert_close(found[:, :3, :, :-1], residual[:, :3, :, 1:])
    torch.testing.assert_close(found[:, 3:, 2:], residual[:, 3:, :-2])


def test_parts_and_edits_of_an_inversion_keep_the_editor(generator, inversion):
    decoder = Editing(editor(trained=True))
    codes = replace(inversion, decoder=decoder)
    edited = apply(generator, codes, YAW, 1.0)
    for made in (codes[1], codes.to("cpu"), Inversion.cat([codes[0], codes[1]]), edited):
        assert made.decoder.network is decoder.network


@pytest.fixture
def portraits(tmp_path, monkeypatch):
    """The embedded world without a feature editor, and the file that one belongs into."""
    folder, shipped = tmp_path / "portraits", paths.root() / "data" / "portraits"
    folder.mkdir()
    for name in ("generator", "inversion_foundation"):
        shutil.copy(shipped / f"{name}.safetensors", folder)
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    return get_world("portraits"), folder / "feature_editor.safetensors"


def save(network, path):
    save_weights(path, network.state_dict(), metadata={"kind": "feature_editor", "config": network.config})


def test_it_is_a_switch_that_changes_edits_and_no_inversion(portraits):
    world, path = portraits
    images, yaw = torch.rand(2, 3, 64, 64), Direction(torch.linspace(-1, 1, 128), "yaw")

    def edited(**options):
        inverter = ClcaeInverter.load(world, device="cpu", **options)
        codes = inverter.invert(images)
        return codes, apply(inverter.generator, codes, yaw).feature

    without, formula = edited()
    assert torch.equal(edited(feature_editor=True)[1], formula), "the world has none"
    with pytest.raises(WorldError, match="clcae train feature_editor --world portraits"):
        make_inverter("clcae_edited", world, device="cpu")
    save(editor(trained=True, channels=96), path)
    codes, feature = edited(feature_editor=True)
    for part in ("w", "w_plus", "feature"):
        assert torch.equal(getattr(codes, part), getattr(without, part))
    assert (feature - formula).abs().max() > 0.01
    assert torch.equal(edited()[1], formula)
    for name, decoder in {"clcae": Plain, "clcae_edited": Editing}.items():
        made = make_inverter(name, world, device="cpu").invert(images)
        assert type(made.decoder) is decoder
    save(editor(trained=True, channels=96, side=8), path)
    assert torch.equal(edited(feature_editor=True)[1], formula), "it is for an F of another side"


def test_an_editor_for_another_generator_is_refused(generator, tmp_path):
    save(editor(trained=False, channels=10), tmp_path / "editor.safetensors")
    with pytest.raises(WeightsError, match=r"editor\.safetensors was trained for another generator"):
        load_feature_editor(tmp_path / "editor.safetensors", generator)


def test_an_encoder_without_f_is_refused(portraits, monkeypatch):
    world, _ = portraits
    inverter = ClcaeInverter.load(world, device="cpu")
    inverter.encoder.config["feature_attention"] = "off"
    monkeypatch.setattr(ClcaeInverter, "load", lambda *_, **__: inverter)
    with pytest.raises(ConfigError, match="its encoder has no F; train one with feature_attention"):
        FeatureEditorTask(FeatureEditorConfig(), world)


def test_training_brings_the_residual_closer_and_its_file_makes_the_same_editor(tmp_path):
    small = RUN | {"batch_size": 4, "samples": 8, "validation_pairs": 4, "width": 16, "blocks": 1}
    config = FeatureEditorConfig(**small | {"steps": 20, "warmup": 2, "lr": 1e-3, "validate_every": 99})
    task = FeatureEditorTask(config, get_world("portraits"))
    fit(task, config, tmp_path, progress=False)
    pairs = task.pairs(task.bank, torch.arange(8), torch.Generator().manual_seed(0))
    assert task.compare(pairs, pairs.given[0])["feature"] == 1
    assert task.compare(pairs, task.editor(*pairs.given))["feature"] < 0.95
    found = load_feature_editor(tmp_path / "feature_editor.safetensors", task.generator)
    torch.testing.assert_close(found(*pairs.given), task.editor(*pairs.given), rtol=1e-2, atol=1e-2)
