"""Preset `published` against the official code: names, shapes and order of every network's weights."""

import pytest
import torch

from clcae_lib.models import ArcFace, PublishedImageEncoder, PublishedLatentEncoder
from tests.conformance import golden
from tests.conformance.official import build_inversion


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: build_inversion(256), "afpsp_ffhq_256"),
        (lambda: build_inversion(1024), "afpsp_ffhq_1024"),
        (lambda: build_inversion(512, domain="cars"), "afpsp_car_512"),
        (PublishedImageEncoder, "image_encoder"),
        (PublishedLatentEncoder, "latent_encoder"),
        (ArcFace, "arcface_irse50"),
    ],
    ids=["faces-256", "faces-1024", "cars-512", "image", "latent", "arcface"],
)
def test_names_shapes_and_order_are_the_published_ones(make, name):
    with torch.device("meta"):
        network = make()
    assert list(golden.layout(network).items()) == list(golden.manifest(name).items())
