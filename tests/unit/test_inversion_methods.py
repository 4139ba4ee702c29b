"""The methods that need no training, on a generator small enough for a test."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from clcae_lib.editing import Direction, apply, interpolate, mix
from clcae_lib.inversion import (
    METHODS,
    HybridInverter,
    Inversion,
    Inverter,
    MeanFaceInverter,
    NearestCodeInverter,
    OptimisationInverter,
    PtiInverter,
    Settings,
    Tuned,
    make_inverter,
)
from clcae_lib.inversion.methods import OVER
from clcae_lib.inversion.optimisation import HYBRID, noise_regularization, schedule
from clcae_lib.models import LatentEncoder
from clcae_lib.worlds import WorldError, get_world
from tests.unit._tiny import Bare, Distance, SampleImages, tiny_generator


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


@pytest.fixture(scope="module")
def targets(generator):
    return SampleImages(generator, 3, seed=4).images(range(3))


def error(inversion, generator, targets, space="w"):
    return (inversion.decode(generator, space) - targets).square().mean(dim=(1, 2, 3))


class Encoder:
    """Codes near the right ones, as an encoder gives them."""

    def __init__(self, generator, *, feature=False):
        self.generator, self.feature = generator, feature

    def invert(self, images):
        w = self.generator.sample_w(3, generator=torch.Generator().manual_seed(4))[: len(images)]
        w = w + 0.3 * self.generator.w_std
        w_plus = w[:, None].repeat(1, self.generator.n_latent, 1)
        feature = torch.randn(len(w), 6, 16, 16, generator=torch.Generator().manual_seed(5))
        return Inversion(w, w_plus, feature if self.feature else None)


# The trivial ones


def test_the_mean_face_is_the_mean_code(generator, targets):
    found = MeanFaceInverter(generator).invert(targets)
    assert torch.equal(found.w, generator.w_avg.expand(3, -1))
    assert found.spaces == ("w", "w_plus")
    torch.testing.assert_close(found.decode(generator, "w"), found.decode(generator, "w_plus"))


class Reads(nn.Module):
    """Find the code of a bank that made an image: its embedding is the code's own."""

    def __init__(self, generator, latent_encoder, codes):
        super().__init__()
        self.images = generator.synthesis(codes).clamp(-1, 1)
        self.embedded = latent_encoder(codes)

    def forward(self, images):
        return self.embedded[torch.cdist(images.flatten(1), self.images.flatten(1)).argmin(dim=1)]


def test_nearest_finds_a_member_of_its_bank(generator, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path))
    torch.manual_seed(0)
    encoder = LatentEncoder(8, embedding=16, width=16).eval().requires_grad_(False)
    inverter = NearestCodeInverter(generator, nn.Identity(), encoder, bank=2300, seed=3)
    wanted = inverter.codes(torch.tensor([5, 1700, 2299]))
    inverter.image_encoder = Reads(generator, encoder, wanted)
    found = inverter.invert(generator.synthesis(wanted).clamp(-1, 1), batch_size=2)
    torch.testing.assert_close(found.w, wanted)
    assert inverter.embeddings().shape == (2300, 16)
    assert found.spaces == ("w", "w_plus")


def test_the_bank_is_made_once_for_its_networks(generator, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path))
    encoder, other = (LatentEncoder(8, embedding=16, width=16).eval().requires_grad_(False) for _ in range(2))

    def embeddings(encoder, **options):
        return NearestCodeInverter(generator, nn.Identity(), encoder, bank=50, **options).embeddings()

    first = embeddings(encoder)
    (file,) = (tmp_path / "banks").glob("*.safetensors")
    made = file.stat().st_mtime_ns
    torch.testing.assert_close(embeddings(encoder), first, atol=0, rtol=0)
    assert file.stat().st_mtime_ns == made
    for changed in (embeddings(other), embeddings(encoder, seed=1)):
        assert not torch.equal(changed, first)
    with pytest.raises(ValueError, match="bank=0"):
        NearestCodeInverter(generator, nn.Identity(), encoder, bank=0)


# Optimisation


def test_the_schedule_is_the_projectors():
    assert schedule(0.0, 0.001) == pytest.approx(0.02)
    assert schedule(0.025) == pytest.approx(0.5)
    assert [schedule(x) for x in (0.05, 0.4, 0.75)] == [1.0, 1.0, 1.0]
    assert schedule(0.875) == pytest.approx(0.5)
    assert schedule(1.0) == pytest.approx(0.0)


@pytest.mark.parametrize("space", ["w", "w_plus", "f"])
def test_optimisation_beats_the_mean_face(generator, targets, space):
    before = error(MeanFaceInverter(generator).invert(targets), generator, targets)
    inverter = OptimisationInverter(generator, Distance(), space=space, settings=Settings(steps=40, lr=0.2))
    found = inverter.invert(targets, batch_size=2)
    assert (error(found, generator, targets, space) < 0.5 * before).all()
    assert found.spaces[-1] == ("f" if space == "f" else "w_plus")
    assert not found.w_plus.requires_grad
    own = inverter.invert(targets[2:])  # the optimum of an image does not depend on its batch
    torch.testing.assert_close(found.w_plus[2:], own.w_plus, atol=1e-4, rtol=1e-3)


def test_f_is_held_near_the_generators_own_activation(generator, targets):
    def added(weight):
        inverter = OptimisationInverter(
            generator, space="f", settings=Settings(steps=20, lr=0.2, feature_weight=weight)
        )
        found = inverter.invert(targets)
        own = generator.run_with_activations(found.w_plus)[1][5]
        return (found.feature - own).square().mean()

    assert added(10.0) < 0.1 * added(0.0)


def test_noise_on_the_code_fades_and_is_the_seeds(generator, targets):
    settings = Settings(steps=8, code_noise=0.05)
    runs = [
        OptimisationInverter(generator, space="w", settings=replace(settings, **extra)).invert(targets)
        for extra in ({}, {}, {"seed": 1}, {"code_noise": 0.0})
    ]
    torch.testing.assert_close(runs[0].w, runs[1].w)
    assert not torch.allclose(runs[0].w, runs[2].w)
    assert not torch.allclose(runs[0].w, runs[3].w)


def test_maps_are_optimised_and_kept_noise_like_where_noise_is_used(targets):
    noisy = tiny_generator()
    for layer in (noisy.conv1, *noisy.convs):
        layer.noise.weight.fill_(0.1)

    def found(weight):
        return OptimisationInverter(
            noisy, space="w", settings=Settings(steps=25, noise_weight=weight)
        ).invert(targets)

    kept, free = found(1e5), found(0.0)
    assert set(kept.decoder.tensors) == {f"noises.noise_{i}" for i in range(7)}
    finest = kept.decoder.tensors["noises.noise_6"]
    assert finest.shape == (3, 1, 1, 32, 32)
    assert not torch.equal(finest[0], finest[1])
    torch.testing.assert_close(finest.mean(dim=(1, 2, 3, 4)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(finest.std(dim=(1, 2, 3, 4), correction=0), torch.ones(3))
    penalties = [noise_regularization(x.decoder.tensors.values()) for x in (kept, free)]
    assert penalties[0] < 0.5 * penalties[1] < noise_regularization([torch.ones(2, 1, 1, 32, 32)])
    separate = torch.cat([kept[i].decode(noisy, "w") for i in range(3)])
    torch.testing.assert_close(kept.decode(noisy, "w"), separate, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(separate, noisy.synthesis(kept.w))


def test_an_initialisation_without_f_and_an_unknown_space_are_named(generator, targets):
    inverter = OptimisationInverter(generator, space="f", settings=Settings(steps=1))
    with pytest.raises(ValueError, match="start: an optimisation in space 'f' begins with"):
        inverter.invert(targets, start=MeanFaceInverter(generator).invert(targets))
    with pytest.raises(ValueError, match="space='z' is not one of 'w', 'w_plus', 'f'"):
        OptimisationInverter(generator, space="z")


# Pivotal tuning


@pytest.fixture(scope="module")
def tuned(generator):
    targets = SampleImages(generator, 2, seed=9).images(range(2)).roll(3, dims=3)
    pivot = OptimisationInverter(generator, space="w", settings=Settings(steps=25, code_noise=0.0))
    inverter = PtiInverter(pivot, Distance(), settings=Settings(steps=30, lr=0.03))
    return inverter, inverter.invert(targets), targets


def test_tuning_reduces_the_error_of_its_pivot(generator, tuned):
    _, found, targets = tuned
    pivot = Inversion(found.w, found.w_plus)
    assert (error(found, generator, targets) < 0.7 * error(pivot, generator, targets)).all()
    assert not any(name.startswith("style.") for name in found.decoder.tensors)
    reference = tiny_generator().state_dict()
    for name, value in generator.state_dict().items():
        assert torch.equal(value, reference[name]), f"{name}: the shared generator has changed"


def test_tuned_images_index_join_and_edit_by_their_own_generator(generator, tuned):
    _, found, _ = tuned
    again = Inversion.cat([found[1], found[0]])[[1, 0]].to("cpu")
    torch.testing.assert_close(again.decode(generator, "w"), found.decode(generator, "w"))
    direction = Direction(torch.ones(8), name="d")
    edited = apply(generator, found, direction, torch.tensor([0.5, -0.5]))
    expected = []
    for i, strength in enumerate((0.5, -0.5)):
        own = tiny_generator()
        own.load_state_dict({n: v[i] for n, v in found.decoder.tensors.items()}, strict=False)
        expected.append(own.synthesis(found.w[i : i + 1] + strength * direction.step(1.0)))
    torch.testing.assert_close(edited.decode(generator, "w"), torch.cat(expected), atol=1e-4, rtol=1e-4)
    mixed = mix(generator, found, found[[1, 0]], [0, 1])
    assert mixed.decoder is found.decoder
    half = interpolate(found[0], found[1], 0.5)
    name = "conv1.conv.weight"
    torch.testing.assert_close(
        half.decoder.tensors[name], found.decoder.tensors[name].mean(dim=0, keepdim=True)
    )


def test_f_follows_an_edit_by_the_images_own_generator(generator, tuned):
    _, found, _ = tuned
    feature = torch.randn(2, 6, 16, 16)
    with_f = replace(found, feature=feature)
    edited = apply(generator, with_f, Direction(torch.ones(8), name="d"), 0.5)
    own = tiny_generator()
    own.load_state_dict({n: v[1] for n, v in found.decoder.tensors.items()}, strict=False)
    moved = [own.run_with_activations(w[1:])[1][5] for w in (edited.w_plus, found.w_plus)]
    torch.testing.assert_close(edited.feature[1:], feature[1:] + moved[0] - moved[1], atol=1e-4, rtol=1e-4)


def test_locality_holds_the_generator_around_the_pivot(generator, tuned):
    _, _, targets = tuned
    pivot = OptimisationInverter(generator, space="w", settings=Settings(steps=3, code_noise=0.0))

    def drift(weight):
        settings = Settings(steps=30, lr=0.01, locality_weight=weight, locality_every=1)
        found = PtiInverter(pivot, settings=settings).invert(targets[:1])
        codes = generator.sample_w(8, generator=torch.Generator().manual_seed(1))
        tuned = {name: value.expand(8, *value.shape[1:]) for name, value in found.decoder.tensors.items()}
        moved = Inversion(codes, found.w_plus.expand(8, -1, -1), decoder=Tuned(tuned)).decode(generator, "w")
        return (moved - generator.synthesis(codes)).square().mean()

    assert drift(10.0) < 0.7 * drift(0.0)


# Hybrid


@pytest.mark.parametrize("feature", [False, True])
def test_hybrid_begins_with_the_encoders_codes(generator, targets, feature):
    encoder = Encoder(generator, feature=feature)
    start = encoder.invert(targets)
    same = HybridInverter(encoder, settings=replace(HYBRID, steps=0)).invert(targets)
    for name in ("w", "w_plus", "feature"):
        torch.testing.assert_close(getattr(same, name), getattr(start, name), atol=0, rtol=0)
    found = HybridInverter(encoder, Distance(), settings=replace(HYBRID, steps=12)).invert(
        targets, batch_size=2
    )
    space = start.spaces[-1]
    assert found.spaces == start.spaces
    assert (error(found, generator, targets, space) < error(start, generator, targets, space)).all()
    assert torch.equal(found.w, start.w)


def test_a_hybrids_first_step_is_a_small_one(generator, targets):
    encoder = Encoder(generator, feature=True)
    start = encoder.invert(targets)
    one = HybridInverter(encoder, settings=replace(HYBRID, steps=1, lr=1e-6)).invert(targets)
    torch.testing.assert_close(one.feature, start.feature, atol=1e-3, rtol=0)
    torch.testing.assert_close(one.w_plus, start.w_plus, atol=1e-3, rtol=0)


# The registry


@pytest.mark.parametrize("name", METHODS)
def test_every_name_makes_something_or_names_what_is_missing(name, targets, tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path))
    method = METHODS[name]
    if method.trained:
        with pytest.raises(
            WorldError, match=r"clcae train (alignment|inversion|peer|feature_editor)[a-z ]* --world bare"
        ):
            make_inverter(name, Bare(), device="cpu")
        return
    steps = 1 if method.steps else None
    if method.kind == "optimisation":
        missing = r"\w+ minimises a perceptual distance: .*'bare' has no perceptual.*perceptual='none'"
        with pytest.raises(WorldError, match=missing):
            make_inverter(name, Bare(), device="cpu", steps=steps)
    inverter = make_inverter(name, Bare(), device="cpu", steps=steps, perceptual="none")
    if name == "pti":
        inverter.pivot.settings = Settings(steps=1)
    assert isinstance(inverter, Inverter)
    found = inverter.invert(targets[:2])
    assert found.decode(inverter.generator, method.space).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("name", ["nearest_code", "clcae", "clcae_published", *OVER])
@pytest.mark.usefixtures("shared_renders")
def test_the_portraits_weights_make_the_trained_ones(name):
    world = get_world("portraits")
    inverter = make_inverter(name, world, device="cpu", steps=1)
    if name == "nearest_code":
        inverter.bank = 500
    if name == "pti":
        inverter.pivot.settings = Settings(steps=1)
    images = world.images("test", 2).images(range(2))
    if name in OVER:
        assert inverter.objective == "L2 + 0.2 portraits perceptual"
        assert make_inverter(name, world, device="cpu", steps=1, perceptual="none").objective == "L2"
    found = inverter.invert(images).decode(inverter.generator, METHODS[name].space)
    assert found.shape == images.shape
    assert torch.isfinite(found).all()


def test_what_a_method_cannot_take_is_named(generator):
    with pytest.raises(ValueError, match="method='gan' is not one of mean_face, nearest_code"):
        make_inverter("gan", Bare())
    with pytest.raises(ValueError, match="steps=-1"):
        make_inverter("optimisation_w", Bare(), device="cpu", steps=-1, perceptual="none")


def test_pivots_may_come_from_another_method(targets, monkeypatch):
    monkeypatch.setitem(OVER, "pti", "mean_face")
    inverter = make_inverter("pti", Bare(), device="cpu", steps=1, perceptual=Distance())
    assert inverter.objective == "L2 + 0.2 Distance"
    found = inverter.invert(targets)
    assert torch.equal(found.w, inverter.generator.w_avg.expand(3, -1))
