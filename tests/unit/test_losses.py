"""Every loss against its formula."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from clcae_lib.losses import (
    ContrastiveLoss,
    IdentityLoss,
    PerceptualLoss,
    ReconstructionLoss,
    SigmoidContrastiveLoss,
    delta_loss,
    discriminator_loss,
    feature_blend,
    feature_loss,
    generator_loss,
    gradient_penalty,
    sliced_wasserstein,
)
from clcae_lib.models import Discriminator
from clcae_lib.worlds.portraits.judges import JUDGES


def units(rows, *, seed=0):
    return normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=1)


def by_hand(images, codes, scale, negatives=()):
    total = 0.0
    for i, image in enumerate(images):
        own = math.exp(scale * float(image @ codes[i]))
        rivals = sum(math.exp(scale * float(image @ code)) for code in [*codes, *negatives])
        back = sum(math.exp(scale * float(other @ codes[i])) for other in images)
        total -= 0.5 * math.log(own / rivals) + 0.5 * math.log(own / back)
    return total / len(images)


def test_contrastive_loss_is_the_formula_and_negatives_enter_the_images_choice_only():
    images, codes, bank = units(5), units(5, seed=1), units(7, seed=2)
    loss = ContrastiveLoss(scale=3.0)
    assert loss(images, codes).item() == pytest.approx(by_hand(images, codes, 3.0), rel=1e-5)
    found = loss(images, codes, negatives=bank).item()
    assert found == pytest.approx(by_hand(images, codes, 3.0, bank), rel=1e-5)


def test_scale_is_clamped_and_learnt():
    loss = ContrastiveLoss(scale=5.0)
    loss(units(4), units(4, seed=1)).backward()
    assert loss.log_scale.grad.abs() > 0
    loss.log_scale.data.fill_(10.0)
    assert loss.scale.item() == pytest.approx(100.0)
    assert not list(filter(lambda p: p.requires_grad, ContrastiveLoss(learnable=False).parameters()))


@pytest.mark.parametrize("make", [ContrastiveLoss, SigmoidContrastiveLoss])
def test_pairs_cost_less_than_strangers(make):
    images = units(6)
    loss = make()
    assert loss(images, images) < loss(images, images.flip(0))
    assert loss(images, images, negatives=images) > loss(images, images)


def test_perceptual_scales():
    def distance(a, b):
        return (a - b).square().mean(dim=(1, 2, 3))

    a, b = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    one, three = PerceptualLoss(distance)(a, b), PerceptualLoss(distance, scales=3)(a, b)
    assert torch.equal(one, distance(a, b))
    assert (three > one).all()
    with pytest.raises(ValueError, match="lpips_scales=2"):
        PerceptualLoss(distance, scales=2)


def test_the_features_of_a_target_are_computed_once_for_all_its_reconstructions():
    network = JUDGES["perceptual"](widths=(4, 4, 4, 4)).eval()
    seen = []
    network.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    target, images = (
        torch.rand(2, 3, 64, 64),
        {name: torch.rand(2, 3, 64, 64) for name in ("w", "w_plus", "f")},
    )
    found = ReconstructionLoss(perceptual=PerceptualLoss(network))(images, target)
    assert seen == [6, 2]
    for name, image in images.items():
        torch.testing.assert_close(found[name]["perceptual"], network(image, target).mean())


def test_reconstruction_compares_each_image_by_itself():
    def embed(x):
        return normalize(x.mean(dim=(2, 3)), dim=1)

    target = torch.randn(3, 3, 8, 8)
    near = (target + 0.1 * torch.randn_like(target)).requires_grad_()
    far = torch.randn_like(target)
    distance = PerceptualLoss(lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))
    loss = ReconstructionLoss(perceptual=distance, identity=IdentityLoss(embed))
    terms = loss({"w": far, "f": near}, target)
    assert terms["f"]["l2"].item() == pytest.approx((near - target).square().mean().item(), rel=1e-5)
    assert terms["w"]["l2"].item() == pytest.approx(float((far - target).square().mean()), rel=1e-5)
    expected = 1 - (embed(far) * embed(target)).sum(dim=1).mean()
    assert terms["w"]["identity"].item() == pytest.approx(float(expected), rel=1e-4)
    assert terms["w"]["perceptual"] > terms["f"]["perceptual"]
    terms["f"]["l2"].backward()
    assert near.grad.abs().sum() > 0
    assert set(ReconstructionLoss()({"w": far}, target)["w"]) == {"l2"}, "without networks"


def test_feature_loss_pulls_f_and_not_the_generator():
    feature, activation = (torch.randn(2, 4, 4, 4).requires_grad_() for _ in range(2))
    feature_loss(feature, activation).backward()
    assert feature.grad.abs().sum() > 0
    assert activation.grad is None


def test_feature_blend_ramps():
    assert [feature_blend(step, 100) for step in (0, 25, 50, 99)] == [0.0, 0.5, 1.0, 1.0]
    published = [feature_blend(step, 100, ramp="epoch", epoch=11) for step in (0, 5, 10, 11)]
    assert published == [0.0, 0.5, 1.0, 0.0]
    with pytest.raises(ValueError, match="ramp='never'"):
        feature_blend(0, 1, ramp="never")


def test_relativistic_losses_depend_on_the_difference_only():
    real, fake = torch.randn(5, 1), torch.randn(5, 1)
    for loss in (discriminator_loss, generator_loss):
        for kind, same in (("relativistic", True), ("logistic", False)):
            moved = loss(real + 3, fake + 3, kind=kind)
            assert torch.allclose(moved, loss(real, fake, kind=kind), atol=1e-5) is same
    better = [loss(real + 9, fake, kind="relativistic") for loss in (discriminator_loss, generator_loss)]
    assert better[0] < better[1]


@pytest.mark.parametrize("shape", [(3, 4, 4), (48,)])
def test_the_penalty_is_the_squared_gradient(shape):
    inputs, weight = torch.randn(2, *shape, requires_grad=True), torch.randn(48)
    scores = inputs.flatten(1) @ weight[:, None]
    torch.testing.assert_close(gradient_penalty(scores, inputs), weight.square().sum())


def test_the_penalty_in_bfloat16_agrees_with_float32():
    torch.manual_seed(0)
    network, real, penalties = Discriminator(8, channels={4: 8, 8: 8}), torch.rand(4, 3, 8, 8), []
    for enabled in (False, True):
        images = real.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            scores = network(images)
        penalties.append(gradient_penalty(scores, images))
    torch.testing.assert_close(penalties[1], penalties[0], rtol=0.05, atol=0)


def test_the_length_of_offsets_by_hand():
    deltas = torch.zeros(2, 3, 4)
    deltas[0, 1, :2] = torch.tensor([3.0, 4.0])
    deltas[1, 2, 0] = 1.0
    assert delta_loss(deltas).item() == pytest.approx((5 + 1) / 2)


def test_the_distance_of_batches_along_an_axis_is_that_of_their_sorted_values():
    wanted = torch.tensor([[0.0, 5.0], [2.0, 5.5], [4.0, 6.0]])
    assert sliced_wasserstein(wanted[[2, 0, 1]], wanted, torch.eye(2)) == 0
    shifted = wanted + torch.tensor([wanted[:, 0].std(), 0.0])  # in one of two columns
    assert sliced_wasserstein(shifted, wanted, torch.eye(2)).item() == pytest.approx(0.5)
    narrow = wanted.mean(0) + 0.5 * (wanted - wanted.mean(0))
    assert sliced_wasserstein(narrow, wanted, torch.eye(2)[:1]).item() == pytest.approx(0.25 * 2 / 3)


def test_the_distance_of_batches_moves_only_the_first():
    found, wanted = (torch.randn(6, 3, requires_grad=True) for _ in range(2))
    sliced_wasserstein(found, wanted, torch.eye(3)).backward()
    assert found.grad.abs().sum() > 0
    assert wanted.grad is None
