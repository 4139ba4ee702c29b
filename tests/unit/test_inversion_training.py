"""CLCAE's training: switches, presets, losses, initial weights, and the encoder it writes."""

from dataclasses import replace

import pytest
import torch

from clcae_lib.devices import make_fabric
from clcae_lib.editing import Direction, apply
from clcae_lib.inversion import ClcaeInverter
from clcae_lib.training import ConfigError, fit, load_config
from clcae_lib.training.encoders import Parts
from clcae_lib.training.inversion import (
    DEPARTURES,
    PRESETS,
    AlignmentTerm,
    InversionConfig,
    InversionTask,
)
from clcae_lib.weights import checkpoints
from clcae_lib.worlds import World
from tests.unit._tiny import FOUNDATION, PUBLISHED, parts_of


@pytest.fixture(scope="module")
def parts():
    return parts_of(32)


@pytest.fixture(scope="module")
def published_parts():
    return parts_of(64)


def task_of(parts, **changes):
    return InversionTask(InversionConfig(**{**FOUNDATION, **changes}), parts)


def run(parts, folder, **changes):
    task = task_of(parts, **changes)
    fit(task, task.config, folder, progress=False)
    return task


@pytest.mark.parametrize(
    "changes",
    [
        {"wplus_attention": "single", "feature_attention": "single"},
        {"wplus_attention": "none", "feature_attention": "off"},
        {"alignment": "batch", "alignment_input": "w_reconstruction"},
        {"alignment": "off", "init_from_alignment": False},
        {"lpips_scales": 3, "ramp": "epoch", "ramp_epoch": 2},
        {"weight_w": 1.0, "optimizer": "ranger", "schedule": "constant", "flip": 0.5},
        {"mix": 0.0, "ema_half_life": 0.0},
        {"mix": 1.0, "weight_identity": 0.0, "weight_perceptual": 0.0},
        PUBLISHED,
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_switch_trains(parts, published_parts, tmp_path, changes):
    parts = published_parts if "preset" in changes else parts
    task = task_of(parts, steps=2, **changes)
    fit(task, task.config, tmp_path, progress=False)
    metrics = (tmp_path / "metrics.csv").read_text().splitlines()[0].split(",")
    off = changes.get("alignment") == "off"
    assert ("alignment" in metrics) != off
    assert ("l2_f" in metrics) == (changes.get("feature_attention") != "off")
    assert ("w" in metrics) == ("weight_w" in changes)
    assert ("identity_w" in metrics) == ("weight_identity" not in changes)
    assert (tmp_path / f"inversion_{task.config.preset}.safetensors").is_file()


@pytest.mark.parametrize("switch", DEPARTURES)
def test_every_departure_is_one_switch(parts, tmp_path, switch):
    meant, published = DEPARTURES[switch]
    assert PRESETS["published"][switch] == published
    if switch != "lpips_scales":
        assert PRESETS["foundation"][switch] == meant
    by_itself, whole = task_of(parts, **{switch: published}), task_of(parts, **{switch: meant})
    one, other = by_itself.config.model_dump(), whole.config.model_dump()
    assert [name for name in one if one[name] != other[name]] == [switch]
    losses = []
    for task in (by_itself, whole):
        fit(task, task.config, tmp_path / str(task is whole), progress=False)
        losses.append(task.step(1)["loss"].item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)


def test_training_brings_reconstructions_closer(parts, tmp_path):
    task = run(parts, tmp_path, steps=60, batch_size=8, lr=5e-3, validate_every=10, ema_half_life=30.0)
    rows = [line.split(",") for line in (tmp_path / "metrics.csv").read_text().splitlines()]
    columns = {name: [row[i] for row in rows[1:] if row[i]] for i, name in enumerate(rows[0])}
    first, last = (
        {s: float(columns[f"validation/psnr_{s}"][i]) for s in ("w", "w_plus", "f")} for i in (0, -1)
    )
    assert last["f"] > first["f"] + 1.0
    assert last["f"] > last["w_plus"] > first["w_plus"]
    assert task.seen == 480


def test_one_call_decodes_what_three_would(parts, tmp_path):
    task = run(parts, tmp_path)
    images = parts.validation.images(range(3))
    with torch.no_grad():
        codes = task.encoder(images)
        pictures, activation = task.decode(codes, blend=0.3, noise="none")
        plus, features = parts.generator.run_with_activations(codes.w_plus, noise="none")
        blended = parts.generator.synthesis(
            codes.w_plus, feature=codes.feature, feature_blend=0.3, noise="none"
        )
    near = {"atol": 1e-4, "rtol": 1e-3}
    torch.testing.assert_close(pictures["f"], blended, **near)
    torch.testing.assert_close(pictures["w_plus"], plus, **near)
    torch.testing.assert_close(pictures["w"], parts.generator.synthesis(codes.w, noise="none"), **near)
    torch.testing.assert_close(activation, features[5], **near)


def test_initialisation_changes_the_body(parts, tmp_path):
    """The published code's own initialisation changes nothing, for its keys carry a prefix."""
    source = parts.alignment[0].body.state_dict()
    for wanted in (True, False):
        task = task_of(parts, init_from_alignment=wanted, steps=0)
        fit(task, task.config, tmp_path / str(wanted), progress=False)
        own = task.encoder.body.state_dict()
        assert all(torch.equal(own[name], value) for name, value in source.items()) == wanted


def held(parts):
    """What others may see of the networks of `parts`: the place of each tensor, its order, and modes."""
    networks = {"generator": parts.generator, "perceptual": parts.perceptual, "identity": parts.identity}
    networks |= {f"judge {name}": judge for name, judge in parts.judges.items()}
    networks |= dict(zip(("images", "codes"), parts.alignment or (), strict=False))
    return {
        (name, key): (value.data_ptr(), value.device, value.stride(), value.requires_grad, network.training)
        for name, network in networks.items()
        for key, value in network.state_dict(keep_vars=True).items()
    }


@pytest.mark.parametrize("changes", [{}, PUBLISHED], ids=["foundation", "published"])
def test_a_training_leaves_its_parts_as_they_were(tmp_path, changes):
    parts = parts_of(64 if changes else 32)
    before = held(parts)
    first = run(parts, tmp_path / "first", **changes)
    assert held(parts) == before
    second = run(parts, tmp_path / "second", **changes)
    for key, value in first.result.state_dict().items():
        assert torch.equal(value, second.result.state_dict()[key]), key


def test_the_alignment_term_works_on_copies_and_on_its_own_device(parts):
    """The device "meta" stands for an accelerator: a tensor that was moved there has lost its values."""
    bank = torch.randn(32, 8)
    assert AlignmentTerm(parts.alignment, bank=bank, device="meta").bank.is_meta
    expected = parts.alignment[1](bank)
    assert torch.equal(AlignmentTerm(parts.alignment, bank=bank).bank, expected)


def test_a_body_that_does_not_fit_is_explained(parts, tmp_path):
    with pytest.raises(ValueError, match="init_from_alignment: that backbone has other layers"):
        run(parts, tmp_path, widths=(4, 6, 8, 8, 16))


def test_a_missing_alignment_is_explained(parts):
    few = Parts(generator=parts.generator, images=parts.images, validation=parts.validation)
    with pytest.raises(ValueError, match="set alignment=off"):
        task_of(few)
    task_of(few, alignment="off", init_from_alignment=False)


def test_the_alignment_term_prefers_the_true_code(parts):
    class Same(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.normalize(x.flatten(1)[:, :8], dim=1)

    term = AlignmentTerm((Same(), Same(), 500.0), bank=torch.randn(32, 8))
    assert term.loss.scale == pytest.approx(100.0)
    assert term.bank.shape == (32, 8)

    fabric, w = make_fabric("cpu"), torch.randn(4, 8)
    pictures = torch.cat([w, torch.zeros(4, 4)], dim=1).reshape(4, 3, 2, 2)
    assert term(pictures, w, fabric=fabric) < 0.1 < term(pictures, w.flip(0), fabric=fabric)


def test_the_alignment_term_keeps_its_precision_in_mixed_training(parts):
    torch.manual_seed(2)
    term, fabric = AlignmentTerm(parts.alignment, bank=torch.randn(32, 8)), make_fabric("cpu")
    w = torch.randn(4, 8)
    near = w + 1e-3 * torch.randn(4, 8)  # bfloat16 has two to three digits
    pictures = parts.generator.synthesis(w)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = [term(pictures, codes, fabric=fabric) for codes in (w, near)]
    exact = [term(pictures, codes, fabric=fabric) for codes in (w, near)]
    torch.testing.assert_close(mixed[1] - mixed[0], exact[1] - exact[0], rtol=0.1, atol=0)


@pytest.mark.parametrize("changes", [{}, PUBLISHED], ids=["foundation", "published"])
def test_finished_weights_load_as_an_inverter(parts, published_parts, tmp_path, changes):
    parts = published_parts if changes else parts
    task = run(parts, tmp_path, **changes)
    preset = task.config.preset
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


def test_samples_know_their_code(parts, tmp_path):
    task = run(parts, tmp_path, mix=0.5)
    target, known = task.batch(7)
    assert target.shape[0] == 4
    assert known.shape == (2, 8)
    torch.testing.assert_close(
        target[:2], parts.generator.synthesis(known, noise="none"), atol=1e-4, rtol=1e-3
    )


def test_presets_fill_what_is_not_given():
    assert InversionConfig().alignment == "bank"
    published = load_config(
        InversionConfig, None, ["preset=published", "alignment=off", "picture_weights.f=2"]
    )
    assert (published.alignment, published.ramp, published.picture_weights["f"]) == ("off", "epoch", 2.0)
    with pytest.raises(ConfigError, match="body='x': preset=foundation has small"):
        load_config(InversionConfig, None, ["body=x"])
    with pytest.raises(ConfigError, match="preset=published has only 'single'"):
        load_config(InversionConfig, None, ["preset=published", "wplus_attention=spatial"])
    with pytest.raises(ConfigError, match="alignment: Input should be"):
        load_config(InversionConfig, None, ["alignment=never"])
    again = InversionConfig.model_validate(published.model_dump(mode="json"))
    assert again == published


@pytest.mark.parametrize(("side", "index"), [(8, 3), (16, 5), (32, 7)])
def test_f_can_sit_at_another_side_and_edits_follow_it(published_parts, side, index):
    task = task_of(published_parts, feature_side=side)
    task.setup(make_fabric("cpu"))
    assert task.feature_index == index
    generator, images = task.generator, published_parts.validation.images(range(2))
    inversion = ClcaeInverter(task.result, generator).invert(images)
    assert inversion.feature.shape[1:] == (generator.channels[side], side, side)
    own = generator.activation(inversion.w_plus, side=side)
    inside = generator.synthesis(inversion.w_plus, feature=own, feature_index=index)
    torch.testing.assert_close(inside, inversion.decode(generator, "w_plus"))
    nothing = apply(generator, inversion, Direction(torch.ones(8), "none", "w"), 0.0)
    torch.testing.assert_close(nothing.feature, inversion.feature)
    moved = apply(generator, inversion, Direction(torch.ones(8), "some", "w"), 1.0)
    difference = generator.activation(moved.w_plus, side=side) - own
    torch.testing.assert_close(moved.feature, inversion.feature + difference)


def test_the_body_starts_where_it_is_told(parts):
    torch.manual_seed(5)
    start = {name: torch.randn_like(value) for name, value in parts.alignment[0].body.state_dict().items()}
    begun = replace(parts, start=start)
    for init, expected in ((False, start), (True, parts.alignment[0].body.state_dict())):
        task = task_of(begun, init_from_alignment=init, start="pretrained")
        task.setup(make_fabric("cpu"))
        body = task.encoder.body.state_dict()
        assert all(torch.equal(body[name], value) for name, value in expected.items())


def test_the_published_schedule_drops_when_validation_stops_and_resumes(published_parts, tmp_path):
    assert InversionConfig(preset="published").schedule == "plateau"
    task = InversionTask(InversionConfig(**FOUNDATION | PUBLISHED), published_parts)
    task.setup(make_fabric("cpu"))
    losses = [1.0] * 12  # the first is the best; eleven more are one too many
    for loss in losses[:6]:
        task.plateau.step(loss)
    other = InversionTask(task.config, published_parts)
    other.load_state(task.state())
    for loss in losses[6:11]:
        other.plateau.step(loss)
    assert other.lr_factor(100) == 1.0
    other.plateau.step(losses[11])
    assert other.lr_factor(100) == pytest.approx(0.1)
    first = task.validation_loss(4)
    assert first == task.validation_loss(4) > 0  # fixed noise, no dropout, no flips


@pytest.mark.parametrize("apart", [True, False])
def test_the_mean_image_is_mirrored_independently_only_as_published(published_parts, apart):
    assert InversionConfig(preset="published").average_flip
    assert not InversionConfig().average_flip
    with pytest.raises(ValueError, match="average_flip"):
        InversionConfig(average_flip=True)
    task, seen = task_of(published_parts, **PUBLISHED, average_flip=apart), []
    task.setup(make_fabric("cpu"))
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
