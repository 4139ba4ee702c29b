"""Preset `published` against the official code: names, shapes, and its numbers, plain and with an edit."""

import pytest
import torch

from clcae_lib.losses import ContrastiveLoss
from clcae_lib.models import (
    Generator,
    PublishedEncoder,
    PublishedImageEncoder,
    PublishedInversion,
    PublishedLatentEncoder,
)
from clcae_lib.training._common import make_ranger
from tests.conformance import fill, golden

RANGER = {"A": (4, 3), "b": (3,)}
STEP = 11
PICTURES = {"f": "image_f_scale1.0", "w_plus": "image_wplus", "w": "image_w"}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: PublishedInversion(PublishedEncoder(256), Generator(256)), "afpsp_ffhq_256"),
        (PublishedImageEncoder, "image_encoder"),
        (PublishedLatentEncoder, "latent_encoder"),
    ],
    ids=["inversion", "image", "latent"],
)
def test_names_shapes_and_order_are_the_published_ones(make, name):
    with torch.device("meta"):
        network = make()
    assert list(golden.layout(network).items()) == list(golden.manifest(name).items())


@torch.no_grad()
def test_contrastive_encoders_give_the_published_numbers():
    expected = golden.fixture("contrastive")
    pictures, average = fill.image("x", 256, 256, 4), fill.image("x_avg", 256, 256, 1)
    image_encoder = fill.fill(PublishedImageEncoder())
    images = image_encoder(pictures, average)
    w = fill.vector("w", (4, 1, 512), 0.8)[:, 0]
    codes = fill.fill(PublishedLatentEncoder())(w, fill.latent_avg()[None])
    golden.assert_golden(images, expected["image_embedding"])
    golden.assert_golden(codes, expected["latent_embedding"])
    loss = ContrastiveLoss(scale=image_encoder.logit_scale.exp().item())(images, codes)
    assert loss.item() == pytest.approx(float(expected["clip_loss"]), rel=3e-4)


def test_ranger_takes_the_published_steps():
    expected = golden.fixture("ranger")
    values = {n: torch.nn.Parameter(fill.vector(f"ranger.{n}", shape)) for n, shape in RANGER.items()}
    optimizer = make_ranger(values.values(), lr=0.01)
    for step in range(1, 15):
        for name, value in values.items():
            value.grad = fill.vector(f"ranger.{name}/grad{step}", RANGER[name])
        optimizer.step()
        for name, value in values.items():
            if f"{name}/{step}" in expected:
                golden.assert_golden(value, expected[f"{name}/{step}"])


@pytest.mark.slow
@torch.no_grad()
def test_inversion_gives_the_published_numbers():
    expected = golden.fixture("afpsp_ffhq256")
    network = fill.fill(PublishedInversion(PublishedEncoder(256), Generator(256)))
    network.encoder.w_avg.copy_(fill.latent_avg())
    network.encoder.average = fill.image("x_avg", 256, 256, 1)
    images = fill.image("x", 256, 256, 2)
    step = 3 * fill.direction("edit", (1, 512))
    for prefix, edit in (("plain", None), ("edit", step)):
        codes, pictures = network(images, edit=edit)
        golden.assert_golden(codes.w, expected[f"{prefix}/latent_base"])
        golden.assert_golden(codes.w_plus, expected[f"{prefix}/latent_refine"])
        golden.assert_golden(codes.feature[:, ::31], expected[f"{prefix}/feature_offset"])
        for name, fixture in PICTURES.items():
            picture = pictures[name]
            golden.assert_golden(picture[:, :, ::STEP, ::STEP], expected[f"{prefix}/{fixture}"])
            golden.assert_golden(picture.mean((2, 3)), expected[f"{prefix}/{fixture}.mean"])
