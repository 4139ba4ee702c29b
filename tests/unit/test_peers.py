"""The encoders that CLCAE is compared with: what their papers say of them, on networks of a few channels."""

import pytest
import torch

from clcae_lib.devices import make_fabric
from clcae_lib.editing import Direction, apply
from clcae_lib.inversion import Inversion
from clcae_lib.inversion.e4e import (
    CodePool,
    E4eEncoder,
    E4eInverter,
    LatentDiscriminator,
    stage_at,
)
from clcae_lib.inversion.hfgi import Consultant, HfgiEncoder, HfgiInverter, moved
from clcae_lib.inversion.methods import make_inverter
from clcae_lib.inversion.psp import PspEncoder, PspInverter, first_convolution
from clcae_lib.inversion.restyle import RestyleInverter, refine
from clcae_lib.losses import discriminator_loss, gradient_penalty
from clcae_lib.training import fit
from clcae_lib.training.peers import METHODS, PeerConfig, task_of
from tests.unit._tiny import PEER, WIDTHS, Bare, parts_of, tiny_generator


@pytest.fixture(scope="module")
def parts():
    return parts_of(32)


def network(kind=PspEncoder, generator=None, **options):
    """A method's network of a few channels, before any training."""
    torch.manual_seed(3)
    net = kind(32, style_dim=8, widths=WIDTHS, **options)
    net.attach(generator or tiny_generator())
    return net


TWO = {"pictures": 2, "pyramid": False}


def task(parts, method, **changes):
    return task_of(PeerConfig(method=method, **{**PEER, **changes}), parts)


def test_psp_begins_near_the_mean_code_and_each_layer_has_a_block_of_its_own(parts):
    encoder = network()
    images = parts.validation.images(range(3))
    codes = encoder(images)
    assert codes.w_plus.shape == (3, 8, 8)
    distance = (codes.w_plus - parts.generator.w_avg).norm(dim=-1) / parts.generator.w_std.norm()
    assert distance.max() < 1
    before = codes.w_plus.detach()
    with torch.no_grad():
        encoder.to_layers[2].linear.bias += 1
    changed = (encoder(images).w_plus - before).abs().amax(dim=(0, 2)) > 0.5
    assert changed.tolist() == [k == 2 for k in range(8)]


def test_a_second_image_changes_nothing_before_it_is_learnt():
    encoder, two = network(), network(**TWO)
    two.start_from(encoder.body.state_dict())
    images, others = torch.randn(2, 2, 3, 32, 32)
    a, b = (two.body(torch.cat([images, other], dim=1))[-1] for other in (others, torch.zeros_like(others)))
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(a, encoder.body(images)[-1])
    assert first_convolution(two.body)[1].in_channels == 6


def test_e4e_frees_one_layer_after_another():
    stages = [stage_at(step, 100, 8) for step in range(101)]
    assert stages[:10] == [0] * 10
    assert stages[10] == 1
    assert stages == sorted(stages)
    assert set(stages) == set(range(8))
    assert set(stages[50:]) == {7}


def test_e4e_is_one_code_until_a_layer_is_freed():
    net = network(E4eEncoder)
    images = torch.randn(2, 3, 32, 32)
    for stage in (0, 3, 7):
        net.stage = stage
        codes = net(images)
        own = (codes.w_plus - codes.w[:, None]).abs().amax(dim=(0, 2)) > 1e-6
        assert own.tolist() == [0 < k <= stage for k in range(8)]


def test_the_discriminator_of_codes_learns():
    torch.manual_seed(0)
    net = LatentDiscriminator(4, width=16)
    real, fake = torch.randn(64, 4), torch.randn(64, 4) + 2
    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(60):
        adam.zero_grad()
        x = real.clone().requires_grad_()
        scores = net(x)
        loss = discriminator_loss(scores, net(fake), kind="logistic") + 0.05 * gradient_penalty(scores, x)
        loss.backward()
        adam.step()
    assert (net(real) > net(fake)).float().mean() > 0.9


def test_the_pool_gives_each_code_back_once_and_loses_none():
    torch.manual_seed(0)
    pool, given = CodePool(6), []
    batches = torch.arange(20.0).view(5, 4, 1, 1).expand(5, 4, 2, 3)
    for batch in batches:
        given.append(pool.exchange(batch))
        assert given[-1].shape == batch.shape
    torch.testing.assert_close(given[0], batches[0])
    assert not torch.equal(torch.cat(given), batches.flatten(0, 1))
    kept = {int(code[0, 0]) for code in pool.codes}
    assert len(kept) == 6
    assert kept | {int(code[0, 0]) for code in torch.cat(given)} == set(range(20))


def test_a_training_cut_short_is_read_back_at_its_stage(parts, tmp_path):
    made = task(parts, "e4e", steps=20)
    made.remaining = lambda done: max(0, 5 - done)
    fit(made, made.config, tmp_path)
    stage = stage_at(4, 20, made.generator.n_latent)
    assert 0 < stage < made.generator.n_latent - 1
    again = E4eInverter.load(Bare(), device="cpu", path=tmp_path / "peer_e4e.safetensors")
    assert again.encoder.stage == stage
    found = again.invert(parts.validation.images(range(2)))
    torch.testing.assert_close(found.w_plus[:, stage + 1 :], found.w_plus[:, :1].expand(-1, 7 - stage, -1))


def test_restyle_adds_up_its_corrections(parts):
    generator, net = parts.generator, network(**TWO)
    images = parts.validation.images(range(2))
    first, second = list(refine(net, generator, images, steps=2))
    face = generator.synthesis(generator.w_avg[None], noise="none").expand_as(images)
    torch.testing.assert_close(first.w_plus, net(torch.cat([images, face], dim=1)).w_plus)
    made = generator.synthesis(first.w_plus, noise="none")
    step = net.offsets(torch.cat([images, made], dim=1))
    torch.testing.assert_close(second.w_plus, first.w_plus + step)
    found = RestyleInverter(net, generator, steps=2).invert(images)
    torch.testing.assert_close(found.w_plus, second.w_plus.detach())


def noisy_generator():
    generator = tiny_generator()
    for layer in (generator.conv1, *generator.convs):
        layer.noise.weight.data.fill_(0.3)
    return generator


def test_restyle_sees_the_image_that_its_codes_decode_to():
    """Where the generator has noise, as FFHQ's has, what is corrected must have the noise of `decode`."""
    generator, seen = noisy_generator(), []
    net = network(generator=generator, **TWO)
    net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, 3:]))
    images = torch.rand(2, 3, 32, 32)
    first = RestyleInverter(net, generator, steps=1).invert(images)
    RestyleInverter(net, generator, steps=2).invert(images)
    torch.testing.assert_close(seen[-1], first.decode(generator, "w_plus"))


def test_hfgi_restores_what_the_decoded_codes_lack():
    generator = noisy_generator()
    net = network(HfgiEncoder, generator, feature_channels=generator.channels[16])
    images = torch.rand(2, 3, 32, 32)
    found = HfgiInverter(net, generator).invert(images)
    torch.testing.assert_close(found.decoder.lost, images - found.decode(generator, "w_plus"))
    # A fresh consultant corrects nothing.
    torch.testing.assert_close(found.feature, generator.activation(found.w_plus, side=16))


def test_a_fresh_consultant_leaves_the_activation_and_what_is_moved_stays_in_the_image():
    activation, lost = torch.randn(2, 6, 16, 16), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(Consultant(6)(lost, activation), activation)
    still = moved(lost, torch.Generator().manual_seed(0), amount=0.0)
    torch.testing.assert_close(still, lost, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(moved(lost, torch.Generator().manual_seed(0)), lost, atol=0.1)


def test_hfgi_restores_again_where_an_edit_leads(parts):
    torch.manual_seed(2)
    made = task(parts, "hfgi")
    made.setup(make_fabric("cpu"))
    for last in (made.encoder.consultant.scale, made.encoder.consultant.shift):
        torch.nn.init.normal_(last.weight)
    inverter = made.made(made.encoder)
    images = parts.validation.images(range(4))
    inversion = inverter.invert(images)
    assert inversion.spaces == ("w", "w_plus", "f")
    step = Direction(torch.ones(8), "step", "w")
    unchanged = apply(inverter.generator, inversion, step, 0.0)
    torch.testing.assert_close(unchanged.feature, inversion.feature, atol=1e-4, rtol=1e-3)
    edited = apply(inverter.generator, inversion, step, 1.0)
    expected = made.encoder.feature(inverter.generator, inversion.decoder.lost, edited.w_plus)
    torch.testing.assert_close(edited.feature, expected, atol=1e-4, rtol=1e-3)
    again = Inversion.cat([inversion[:1], inversion[[1, 2, 3]]]).to("cpu")
    torch.testing.assert_close(again.decoder.lost, inversion.decoder.lost)
    assert again.decoder.network is inversion.decoder.network


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss(parts, method):
    made = task(parts, method, steps=16, lr=3e-3, batch_size=4, mix=1.0, ema_half_life=0)
    made.setup(make_fabric("cpu"))
    batch = made.batch(0)
    made.batch = lambda index: batch  # the same images in every step
    name = "l2_f" if method == "hfgi" else "l2_w_plus"
    rows = [made.step(index) for index in range(16)]
    losses = [float(row[name].detach()) for row in rows if name in row]
    assert sum(losses[-4:]) < 0.97 * sum(losses[:4])


def test_a_trained_file_is_read_as_what_it_is(parts, tmp_path):
    made = task(parts, "psp", steps=1)
    folder = fit(made, made.config, tmp_path / "run")
    path = folder / "peer_psp.safetensors"
    world = Bare()
    images = parts.validation.images(range(2))
    again = PspInverter.load(world, device="cpu", path=path)
    expected = made.made(made.result).invert(images).w_plus
    torch.testing.assert_close(again.invert(images).w_plus, expected, atol=1e-3, rtol=1e-2)  # float16 on disk
    with pytest.raises(ValueError, match="holds 'psp', not restyle_psp or restyle_e4e"):
        RestyleInverter.load(world, device="cpu", path=path)
    named = make_inverter("psp", world, device="cpu", generator=parts.generator, weights=path)
    assert torch.equal(named.invert(images).w_plus, again.invert(images).w_plus)
    with pytest.raises(ValueError, match="holds 'psp', not e4e"):
        make_inverter("e4e", world, device="cpu", generator=parts.generator, weights=path)
