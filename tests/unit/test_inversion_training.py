"""CLCAE's training: switches, presets, losses, initial weights, and the encoder it writes."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from clcae_lib.devices import make_fabric
from clcae_lib.editing import Direction, apply
from clcae_lib.inversion import ClcaeInverter
from clcae_lib.training import ConfigError, fit, load_config
from clcae_lib.training.inversion import (
    PRESETS,
    AlignmentTerm,
    InversionConfig,
    InversionTask,
)
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import World
from tests.unit import _tiny
from tests.unit._tiny import FOUNDATION, PUBLISHED

parts_of = cache(_tiny.parts_of)
PRESET_CHANGES = pytest.mark.parametrize("changes", [{}, PUBLISHED], ids=["foundation", "published"])


def task_of(parts=None, **changes):
    """A task that is not set up yet, of `foundation` at 32 pixels or `published` at 64."""
    parts = parts or parts_of(64 if "preset" in changes else 32)
    return InversionTask(InversionConfig(**{**FOUNDATION, **changes}), parts)


def ready(parts=None, **changes):
    torch.manual_seed(0)
    task = task_of(parts, **changes)
    task.setup(make_fabric("cpu"))
    return task


@pytest.mark.parametrize(
    "changes",
    [
        {"wplus_attention": "none", "feature_attention": "off"},
        {"alignment": "off", "init_from_alignment": False},
        {"weight_w": 1.0, "optimizer": "ranger", "schedule": "constant", "flip": 0.5},
        {"mix": 0.0, "ema_half_life": 0.0, "ramp": "epoch", "ramp_epoch": 2},
        {"mix": 1.0, "weight_identity": 0.0, "weight_perceptual": 0.0},
    ],
    ids="-".join,
)
def test_every_switch_trains(tmp_path, changes):
    task = task_of(steps=2, **changes)
    fit(task, task.config, tmp_path, progress=False)
    metrics = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    assert ("alignment" in metrics) == (changes.get("alignment") != "off")
    assert ("l2_f" in metrics) == (changes.get("feature_attention") != "off")
    assert ("w" in metrics) == ("weight_w" in changes)
    assert ("identity_w" in metrics) == ("weight_identity" not in changes)
    assert (tmp_path / "inversion_foundation.safetensors").is_file()


DEPARTURES = ["wplus_attention", "feature_attention", "alignment_input", "alignment", "init_from_alignment"]


@pytest.mark.parametrize("switch", [*DEPARTURES, "lpips_scales", "weight_feature", "ramp"])
def test_every_departure_is_one_switch(switch):
    meant, published = (PRESETS[preset][switch] for preset in ("foundation", "published"))
    meant = 3 if switch == "lpips_scales" else meant
    tasks = [ready(**{switch: value}) for value in (published, meant)]
    one, other = (task.config.model_dump() for task in tasks)
    assert [name for name in one if one[name] != other[name]] == [switch]
    losses = [task.step(1)["loss"].item() for task in tasks]
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)


def test_training_brings_reconstructions_closer():
    task = ready(steps=60, batch_size=8, lr=5e-3, ema_half_life=30.0)
    for index in range(60):
        if index == 10:
            first = task.validate(index)
        task.step(index)
    last = task.validate(60)
    assert last["validation/psnr_f"] > first["validation/psnr_f"] + 0.3
    assert last["validation/psnr_f"] > last["validation/psnr_w_plus"] > first["validation/psnr_w_plus"]
    assert task.seen == 480


def test_one_call_decodes_what_three_would_and_samples_have_their_code():
    task, near = ready(), {"atol": 1e-4, "rtol": 1e-3}
    generator, images = task.parts.generator, task.parts.validation.images(range(3))
    with torch.no_grad():
        codes = task.encoder(images)
        found, activation = task.decode(codes, blend=0.3, noise="none")
        plus, features = generator.run_with_activations(codes.w_plus, noise="none")
        options = {"feature": codes.feature, "feature_blend": 0.3, "noise": "none"}
        torch.testing.assert_close(found["f"], generator.synthesis(codes.w_plus, **options), **near)
        assert list(found) == ["f", "w_plus", "w"]
        torch.testing.assert_close(found["w"], generator.synthesis(codes.w, noise="none"), **near)
    torch.testing.assert_close(found["w_plus"], plus, **near)
    torch.testing.assert_close(activation, features[5], **near)
    target, known = task.batch(7)
    assert (len(target), known.shape) == (4, (2, 8))
    torch.testing.assert_close(target[:2], generator.synthesis(known, noise="none"), **near)


def test_w_plus_and_f_share_the_layers_below_f():
    task, rows = ready(), []
    for layer in (task.generator.conv1, task.generator.convs[task.feature_index - 1]):
        layer.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    task.decode(task.encoder(task.parts.validation.images(range(3))), blend=0.3, noise="none")
    assert rows == [6, 9]


def test_the_backbone_starts_from_the_alignment_the_given_weights_or_neither():
    """The published code's own initialisation changes nothing, for its keys have a prefix."""
    aligned = parts_of(32).alignment[0].body.state_dict()
    torch.manual_seed(5)
    given = {name: torch.randn_like(value) for name, value in aligned.items()}
    for init, start in ((True, given), (True, None), (False, given), (False, None)):
        task = ready(replace(parts_of(32), start=start), init_from_alignment=init)
        body = task.encoder.body.state_dict()
        same = [all(torch.equal(body[name], source[name]) for name in body) for source in (aligned, given)]
        assert same == [init, not init and start is given]
    with pytest.raises(ConfigError, match="init_from_alignment: that backbone has other layers"):
        ready(widths=(4, 6, 8, 8, 16))


def test_a_missing_alignment_is_explained():
    few = replace(parts_of(32), alignment=None)
    with pytest.raises(ConfigError, match="set alignment=off"):
        task_of(few)
    task_of(few, alignment="off", init_from_alignment=False)


def test_the_alignment_term_prefers_the_true_code_and_works_on_copies():
    class Same(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.normalize(x.flatten(1)[:, :8], dim=1)

    term = AlignmentTerm((Same(), Same(), 500.0), bank=torch.randn(32, 8))
    assert term.loss.scale == pytest.approx(100.0)
    fabric, w = make_fabric("cpu"), torch.randn(4, 8)
    images = torch.cat([w, torch.zeros(4, 4)], dim=1).reshape(4, 3, 2, 2)
    assert term(images, w, fabric=fabric) < 0.1 < term(images, w.flip(0), fabric=fabric)
    # The device "meta" is like an accelerator: a tensor that was moved there has lost its values.
    bank, alignment = torch.randn(32, 8), parts_of(32).alignment
    assert AlignmentTerm(alignment, bank=bank, device="meta").bank.is_meta
    assert torch.equal(AlignmentTerm(alignment, bank=bank).bank, alignment[1](bank))


def test_the_alignment_term_keeps_its_precision_in_mixed_training():
    torch.manual_seed(2)
    parts, fabric, w = parts_of(32), make_fabric("cpu"), torch.randn(4, 8)
    term = AlignmentTerm(parts.alignment, bank=torch.randn(32, 8))
    near = w + 1e-3 * torch.randn(4, 8)  # bfloat16 has two to three digits
    images, found = parts.generator.synthesis(w), []
    for mixed in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            found.append(term(images, near, fabric=fabric) - term(images, w, fabric=fabric))
    torch.testing.assert_close(found[0], found[1], rtol=0.1, atol=0)


def held(parts):
    """What others may see of the networks of `parts`: the place of each tensor, its order, and modes."""
    networks = {"generator": parts.generator, "perceptual": parts.perceptual, "identity": parts.identity}
    networks |= {f"judge {name}": judge for name, judge in parts.judges.items()}
    networks |= dict(zip(("images", "codes"), parts.alignment, strict=False))
    return {
        (name, key): (value.data_ptr(), value.device, value.stride(), value.requires_grad, network.training)
        for name, network in networks.items()
        for key, value in network.state_dict(keep_vars=True).items()
    }


@PRESET_CHANGES
def test_finished_weights_load_as_an_inverter_and_parts_stay_as_they_were(tmp_path, changes):
    task = task_of(**changes)
    parts, preset = task.parts, task.config.preset
    before = held(parts)
    fit(task, task.config, tmp_path, progress=False)
    assert held(parts) == before
    path = tmp_path / f"inversion_{preset}.safetensors"
    inverter = ClcaeInverter.load(World(), preset, "cpu", path=path, generator=parts.generator)
    images = parts.validation.images(range(5))
    found = inverter.invert(images, batch_size=2)
    with torch.no_grad():
        expected = task.result.eval()(images)
    torch.testing.assert_close(found.w_plus, expected.w_plus, atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(found.feature, expected.feature, atol=5e-2, rtol=1e-2)
    card = checkpoints.read_card(path)
    assert card["trained_on"] == {"generator": "abc"}
    assert {"psnr_f", "perceptual_w", "identity_w_plus"} <= set(card["measures"])


def test_presets_fill_what_is_not_given():
    assert InversionConfig().alignment == "bank"
    published = load_config(
        InversionConfig, None, ["preset=published", "alignment=off", "picture_weights.f=2"]
    )
    assert (published.alignment, published.ramp, published.picture_weights["f"]) == ("off", "epoch", 2.0)
    assert InversionConfig.model_validate(published.model_dump(mode="json")) == published


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["body=x"], "body='x': preset=foundation has small"),
        (["preset=published", "wplus_attention=spatial"], "preset=published has only 'single'"),
        (["alignment=never"], "alignment: Input should be"),
        (["average_flip=true"], "average_flip: only preset=published"),
    ],
)
def test_a_setting_that_does_not_fit_the_preset_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        load_config(InversionConfig, None, settings)


@pytest.mark.parametrize(("side", "index"), [(8, 3), (16, 5), (32, 7)])
def test_f_can_have_another_side_and_edits_follow_it(side, index):
    task = ready(parts_of(64), feature_side=side)
    assert task.feature_index == index
    generator, images = task.generator, task.parts.validation.images(range(2))
    inversion = ClcaeInverter(task.result, generator).invert(images)
    assert inversion.feature.shape[1:] == (generator.channels[side], side, side)
    own = generator.activation(inversion.w_plus, side=side)
    inside = generator.synthesis(inversion.w_plus, feature=own, feature_index=index)
    torch.testing.assert_close(inside, inversion.decode(generator, "w_plus"))
    for strength in (0.0, 1.0):
        moved = apply(generator, inversion, Direction(torch.ones(8), "some", "w"), strength)
        difference = generator.activation(moved.w_plus, side=side) - own
        torch.testing.assert_close(moved.feature, inversion.feature + difference)


def test_the_published_schedule_drops_when_validation_stops_and_resumes():
    task = ready(**PUBLISHED)
    assert task.config.schedule == "plateau"
    losses = [1.0] * 12  # the first is the best; eleven more are one too many
    for loss in losses[:6]:
        task.plateau.step(loss)
    other = task_of(**PUBLISHED)
    other.load_state(task.state())
    for loss in losses[6:11]:
        other.plateau.step(loss)
    assert other.lr_factor(100) == 1.0
    other.plateau.step(losses[11])
    assert other.lr_factor(100) == pytest.approx(0.1)
    first = task.validation_loss(4)
    assert first == task.validation_loss(4) > 0  # fixed noise, no dropout, no flips


@pytest.mark.parametrize("apart", [True, False])
def test_each_mean_image_is_mirrored_independently_only_as_published(apart):
    assert PRESETS["published"]["average_flip"]
    assert not PRESETS["foundation"]["average_flip"]
    task, seen = ready(**PUBLISHED, average_flip=apart), []
    task.encoder.eval()
    images, average = torch.zeros(64, 3, 64, 64), task.encoder.average.clone()

    def note(module, arguments, options):
        seen.append(options.get("average", module.average).expand(64, -1, -1, -1).clone())

    task.encoder.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        found = task.encode(images)
        kept, mirrored = ((seen[0] == one).flatten(1).all(dim=1) for one in (average, average.flip(3)))
        for rows, one in ((kept, average), (mirrored, average.flip(3))):
            torch.testing.assert_close(found.w[rows], task.encoder(images, average=one).w[rows])
    assert torch.equal(task.encoder.average, average)
    assert (kept | mirrored).all()
    assert (10 < kept.sum() < 54) if apart else kept.all()
