"""The two networks of StyleGAN2; the conformance tests hold the generator's layers to the published ones."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clcae_lib.models import Discriminator, Generator, _ops
from clcae_lib.models._discriminator import ResBlock, minibatch_deviation
from clcae_lib.weights import checkpoints, load_generator, save_generator

CHANNELS = {4: 12, 8: 10, 16: 8, 32: 6}
STYLE = 7


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def generator() -> Generator:
    generator = Generator(32, STYLE, 2, channels=CHANNELS)
    for name, parameter in generator.named_parameters():
        if name.endswith("bias") and "modulation" not in name:
            parameter.data.normal_(std=0.3)
    return generator


@pytest.fixture
def w() -> Tensor:
    return torch.randn(3, STYLE, generator=torch.Generator().manual_seed(1))


def set_noise(generator: Generator, strength: float) -> None:
    for layer in [generator.conv1, *generator.convs]:
        layer.noise.weight.data.fill_(strength)


def differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > 0.01)


# Filters


def naive_filter(x: Tensor, taps: tuple, *, up: int, pad: tuple[int, int], gain: float = 1.0) -> Tensor:
    """Zero insertion, padding and true convolution, one pixel at a time along each axis."""
    line = torch.tensor(taps, dtype=x.dtype)
    line = line / line.sum() * gain**0.5
    for axis in (2, 3):
        x = x.movedim(axis, -1)
        spread = x.new_zeros(*x.shape[:-1], x.shape[-1] * up)
        spread[..., ::up] = x
        padded = F.pad(spread, pad)
        count = padded.shape[-1] - len(taps) + 1
        x = torch.stack([(padded[..., i : i + len(taps)] * line.flip(0)).sum(-1) for i in range(count)], -1)
        x = x.movedim(-1, axis)
    return x


@pytest.mark.parametrize(
    ("taps", "pad"), [((1, 3, 3, 1), (2, 2)), ((1, 2, 5, 3), (2, 1)), ((1, 2, 1), (0, 2))]
)
def test_blur_and_its_derivatives(taps, pad):
    x = torch.randn(2, 3, 6, 5, dtype=torch.double, requires_grad=True)
    line = torch.tensor(taps, dtype=torch.double) / sum(taps)
    kernel = line[:, None] * line
    torch.testing.assert_close(_ops.blur(x, kernel, pad=pad), naive_filter(x, taps, up=1, pad=pad))

    def curved(y):
        return _ops.blur(y, kernel, pad=pad).pow(3)

    assert torch.autograd.gradcheck(curved, x)
    assert torch.autograd.gradgradcheck(curved, x)


# Layers


def test_residual_block_equals_its_formula():
    block = ResBlock(4, 6, (1, 3, 3, 1))
    weights = {name: parameter for name, parameter in block.named_parameters()}
    for name in ("conv1.1.bias", "conv2.2.bias"):
        weights[name].data.normal_()
    x = torch.randn(2, 4, 8, 8)

    def activate(y, bias):
        return F.leaky_relu(y + bias[:, None, None], 0.2) * 2**0.5

    y = activate(F.conv2d(x, weights["conv1.0.weight"] / 36**0.5, padding=1), weights["conv1.1.bias"])
    y = naive_filter(y, (1, 3, 3, 1), up=1, pad=(2, 2))
    y = activate(F.conv2d(y, weights["conv2.1.weight"] / 36**0.5, stride=2), weights["conv2.2.bias"])
    skip = naive_filter(x, (1, 3, 3, 1), up=1, pad=(1, 1))
    skip = F.conv2d(skip, weights["skip.1.weight"] / 4**0.5, stride=2)
    torch.testing.assert_close(block(x), (y + skip) / 2**0.5, rtol=1e-4, atol=1e-5)


# Generator


@pytest.mark.parametrize("size", [8, 16, 64])
def test_any_size(size):
    generator = Generator(size, STYLE, 1, channels={side: 4 for side in (4, 8, 16, 32, 64)})
    assert generator.n_latent == {8: 4, 16: 6, 64: 10}[size]
    image, features = generator.run_with_activations(torch.randn(2, STYLE))
    assert image.shape == (2, 3, size, size)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert len(features) == generator.n_latent
    assert [f.shape[-1] for f in features] == sorted(
        [4, 4, *(s for s in (8, 16, 32, 64) if s <= size for _ in "12")]
    )


def test_a_wrong_size_or_missing_width_is_named():
    for network in (Generator, Discriminator):
        for size in (0, 4, 48):
            with pytest.raises(ValueError, match=f"size must be a power of two of at least 8, not {size}"):
                network(size)
    with pytest.raises(ValueError, match=r"channels has no width for resolution \[16\]"):
        Generator(32, STYLE, channels={4: 4, 8: 4, 32: 4})


def test_every_layer_of_a_sample_obeys_its_own_code(generator, w):
    rows = w[:, None].expand(-1, generator.n_latent, -1)
    image = generator.synthesis(rows)
    assert torch.equal(image, generator.synthesis(w))
    for layer in range(generator.n_latent):
        other = rows.clone()
        other[0, layer] += 1
        changed = generator.synthesis(other)
        assert differ(changed[0], image[0]), layer
        torch.testing.assert_close(changed[1:], image[1:], rtol=1e-4, atol=1e-5)


def test_stopping_early_gives_the_image_of_lower_resolution(generator, w):
    assert torch.equal(generator.synthesis(w, stop_at=32), generator.synthesis(w))
    low, features = generator.run_with_activations(w, stop_at=16)
    assert low.shape == (3, 3, 16, 16)
    assert len(features) == 6
    assert torch.equal(generator.activation(w, side=16), features[-1])
    low.sum().backward()
    assert generator.convs[3].conv.weight.grad.abs().sum() > 0
    assert generator.convs[4].conv.weight.grad is None


def test_noise_is_silent_at_first_then_stored_random_or_left_out(generator, w):
    torch.testing.assert_close(generator.synthesis(w), generator.synthesis(w, noise="none"))
    assert not generator.uses_noise
    set_noise(generator, 0.5)
    assert generator.uses_noise
    fixed = generator.synthesis(w)
    assert torch.equal(fixed, generator.synthesis(w, noise="fixed"))
    assert differ(fixed, generator.synthesis(w, noise="none"))
    image = generator.synthesis(w[:1].expand(2, -1), noise="random")
    assert differ(image[0], image[1])


def test_feature_acts_after_the_image_took_its_part(generator, w):
    feature = torch.randn(3, CHANNELS[16], 16, 16)
    image, features = generator.run_with_activations(w)
    changed, recorded = generator.run_with_activations(w, feature=feature)
    assert torch.equal(recorded[5], features[5])
    assert differ(recorded[6], features[6])
    assert differ(changed, image)
    low = generator.synthesis(w, stop_at=16)
    contribution = _ops.upsample(low, generator.to_rgbs[2].upsample.kernel)
    torch.testing.assert_close(
        changed - contribution, generator.to_rgbs[2](recorded[7], w, None), rtol=1e-4, atol=1e-4
    )


def test_blend_is_linear_in_the_activation(generator, w):
    feature = torch.randn(3, CHANNELS[16], 16, 16)
    own = generator.run_with_activations(w)[1][5]
    assert torch.equal(generator.synthesis(w, feature=feature, feature_blend=0.0), generator.synthesis(w))
    blended = generator.synthesis(w, feature=feature, feature_blend=0.25)
    torch.testing.assert_close(blended, generator.synthesis(w, feature=0.75 * own + 0.25 * feature))
    each = generator.synthesis(
        w, feature=feature, feature_blend=torch.tensor([0.0, 0.25, 1.0])[:, None, None, None]
    )
    torch.testing.assert_close(each[1:2], blended[1:2])
    torch.testing.assert_close(each[2:], generator.synthesis(w, feature=feature)[2:])


@pytest.mark.parametrize("size", [1, 3])
def test_an_offset_is_added_where_a_feature_goes_in(generator, w, size):
    offset = torch.randn(size, CHANNELS[16], 16, 16)
    image, features = generator.run_with_activations(w)
    changed = generator.synthesis(w, feature_offset=offset)
    assert differ(changed, image)
    torch.testing.assert_close(changed, generator.synthesis(w, feature=features[5] + offset))
    both = generator.synthesis(w, feature=features[5] - offset, feature_offset=offset)
    torch.testing.assert_close(both, image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"w": (2, STYLE + 1)}, r"this generator takes \[N, 7\] or \[N, 8, 7\]"),
        ({"w": (2, 3, STYLE)}, r"this generator takes \[N, 7\] or \[N, 8, 7\]"),
        ({"stop_at": 64}, r"stop_at must be one of \[4, 8, 16, 32\], not 64"),
        ({"style_offsets": (3, 5)}, r"style_offsets has shape \(3, 5\); this generator takes \[N, \d+\]"),
        (
            {"feature": (3, 8, 8, 8), "feature_index": 5},
            r"feature has shape .*; activation 5 has \(3, 8, 16, 16\)",
        ),
        ({"feature": (3, 6, 32, 32), "feature_index": 7}, "feature_index must be 0 to 6"),
        ({"feature": (3, 8, 16, 16), "stop_at": 16}, "feature_index must be 0 to 4"),
        (
            {"feature_offset": (1, 8, 8, 8), "feature_index": 5},
            r"feature_offset has .*; activation 5 has \(1, 8",
        ),
        ({"feature_offset": (1, 8, 16, 16), "stop_at": 16}, "feature_index must be 0 to 4"),
    ],
)
def test_an_argument_that_does_not_fit_is_named(generator, options, message):
    given = {"w": (3, STYLE), **options}
    given = {name: torch.zeros(value) if isinstance(value, tuple) else value for name, value in given.items()}
    with pytest.raises(ValueError, match=message):
        generator.synthesis(**given)


def test_forward_is_mapping_truncation_and_synthesis(generator):
    z = torch.randn(2, STYLE)
    generator.measure_w(2_000, seed=5)
    codes = generator.sample_w(500, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(generator.w_std, codes.std(0), rtol=0.3, atol=0.02)
    assert not {"w_avg", "w_std"} & generator.state_dict().keys()
    code = generator.mapping(z)
    torch.testing.assert_close(generator.mapping(3 * z), code, rtol=1e-4, atol=1e-5)
    assert torch.equal(generator(z), generator.synthesis(code))
    torch.testing.assert_close(generator(z, psi=0.5), generator.synthesis((code + generator.w_avg) / 2))


def test_autocast_stays_close_and_trains(generator, w):
    with torch.autocast("cpu", torch.bfloat16):
        image = generator.synthesis(w)
    exact = generator.synthesis(w)
    assert image.dtype == torch.float32
    assert (image - exact).abs().max() < 0.05 * exact.std()
    image.square().mean().backward()
    used = [p for name, p in generator.named_parameters() if not name.startswith("style.")]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in used)


def test_second_derivatives_of_the_generator(generator, w):
    w.requires_grad_(True)
    image = generator.synthesis(w)
    (slope,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), w, create_graph=True)
    slope.square().sum().backward()
    assert generator.convs[0].conv.weight.grad.isfinite().all()
    assert generator.convs[0].conv.weight.grad.abs().sum() > 0


def test_save_and_load(generator, tmp_path):
    path = tmp_path / "generator.safetensors"
    save_generator(path, generator, {"note": "a test"})
    loaded = load_generator(path)
    z = torch.randn(2, STYLE)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(loaded.w_avg, generator.w_avg)
    torch.testing.assert_close(loaded.w_std, generator.w_std)
    assert loaded.w_avg.any()
    assert (loaded(z) - generator(z)).abs().max() < 0.02 * generator(z).std()
    assert checkpoints.load_weights(path)[1]["note"] == "a test"
    generator.w_avg.fill_(0.25)  # a mean that was set is kept
    save_generator(path, generator, {})
    assert torch.equal(load_generator(path).w_avg, torch.full((STYLE,), 0.25))
    checkpoints.save_weights(path, {}, metadata={"kind": "oracle"})
    with pytest.raises(ValueError, match="kind 'oracle'; give a file of this kind: StyleGAN2 generator"):
        load_generator(path)


# Discriminator


@pytest.fixture
def discriminator() -> Discriminator:
    return Discriminator(32, channels=CHANNELS)


def test_a_generator_can_be_rebuilt_from_its_config(generator):
    again = type(generator)(**json.loads(json.dumps(generator.config)))
    again.load_state_dict(generator.state_dict())
    assert again.config == generator.config


def test_deviation_map_follows_its_group(discriminator):
    for batch in (1, 4, 6):
        assert discriminator(torch.randn(batch, 3, 32, 32)).shape == (batch, 1)
    x = torch.randn(4, 5, 2, 2)
    alike = minibatch_deviation(x[:1].expand(4, -1, -1, -1))
    torch.testing.assert_close(alike, torch.full((4, 1, 2, 2), 1e-4))
    expected = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
    torch.testing.assert_close(minibatch_deviation(x), expected.expand(4, 1, 2, 2))
    groups = minibatch_deviation(torch.randn(8, 5, 2, 2))
    assert torch.equal(groups[0], groups[2])
    assert not torch.equal(groups[0], groups[1])


def penalty_gradients(discriminator: Discriminator, images: Tensor) -> list[Tensor]:
    images = images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    weights = [block.conv1[0].weight for block in discriminator.convs[1:]]
    return list(torch.autograd.grad(slope.square().sum(), weights))


def test_gradient_penalty_equals_autograds(discriminator, monkeypatch):
    images = torch.randn(4, 3, 32, 32)
    mine = penalty_gradients(discriminator, images)

    def plain(x, kernel, *, pad):
        weight = kernel.flip(0, 1).expand(x.shape[1], 1, *kernel.shape)
        return F.conv2d(x, weight, padding=pad[0], groups=x.shape[1])

    monkeypatch.setattr("clcae_lib.models._discriminator.blur", plain)
    monkeypatch.setattr(_ops._Convolution, "apply", F.conv2d)
    torch.testing.assert_close(mine, penalty_gradients(discriminator, images), rtol=1e-3, atol=1e-6)
    assert all(gradient.abs().sum() > 0 for gradient in mine)


class LargestKernel(TorchDispatchMode):
    """Records the largest side of a kernel among the convolutions that run."""

    side = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.side = max(self.side, *args[1].shape[2:])
        return func(*args, **(kwargs or {}))


def test_a_gradient_penalty_needs_no_large_kernel(discriminator, monkeypatch):
    images = torch.randn(2, 3, 32, 32)
    with LargestKernel() as mine:
        penalty_gradients(discriminator, images)
    assert mine.side == 4  # that of the low-pass filter
    monkeypatch.setattr(_ops._Convolution, "apply", F.conv2d)
    with LargestKernel() as autograds:
        penalty_gradients(discriminator, images)
    assert autograds.side >= 32


@pytest.mark.parametrize(
    ("side", "stride", "padding", "bias"), [(6, 1, 1, False), (7, 2, 0, True), (6, 2, 0, False)]
)
def test_the_convolution_has_autograds_derivatives(side, stride, padding, bias):
    shapes = [(2, 3, side, side), (4, 3, 3, 3), (4,)]
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    inputs[2] = inputs[2] if bias else None
    mine, autograds = [], []
    for found, convolve in ((mine, _ops._Convolution.apply), (autograds, F.conv2d)):
        x, weight, shift = (None if v is None else v.clone().requires_grad_() for v in inputs)
        out = convolve(x, weight, shift, stride, padding)
        (slope,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        (out.sum() + slope.square().sum()).backward()
        found.extend(v.grad for v in (x, weight, shift) if v is not None)
    torch.testing.assert_close(mine, autograds)


def test_discriminator_under_autocast(discriminator):
    images = torch.randn(4, 3, 32, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        scores = discriminator(images).float()
    torch.testing.assert_close(scores, discriminator(images), rtol=0.1, atol=0.1)
    (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    slope.square().sum().backward()
    assert discriminator.convs[0][0].weight.grad.isfinite().all()


def test_lower_discriminator_seeds_the_higher(discriminator):
    higher = Discriminator(64, channels={**CHANNELS, 64: 5})
    fresh = {key: value.clone() for key, value in higher.state_dict().items()}
    higher.load_lower(discriminator)
    x = torch.randn(2, CHANNELS[32], 32, 32)
    assert torch.equal(higher.convs[2:](x), discriminator.convs[1:](x))
    assert torch.equal(higher.final_conv[0].weight, discriminator.final_conv[0].weight)
    assert torch.equal(higher.final_linear[1].weight, discriminator.final_linear[1].weight)
    kept = {key for key, value in higher.state_dict().items() if torch.equal(value, fresh[key])}
    assert {"convs.0.0.weight", "convs.1.conv1.0.weight", "convs.1.conv2.1.weight"} <= kept
    assert "convs.2.conv1.0.weight" not in kept
    with pytest.raises(ValueError, match="a discriminator of size 32 is not below 32"):
        discriminator.load_lower(Discriminator(32, channels=CHANNELS))
    with pytest.raises(ValueError, match="load_lower: widths differ"):
        discriminator.load_lower(Discriminator(16, channels={4: 3, 8: 3, 16: 3}))
