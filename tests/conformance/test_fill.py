"""The filler gives the very weights and inputs that the golden numbers were made with."""

import hashlib
from collections import Counter

import numpy as np
import pytest

from tests.conformance import fill, golden

HASHED = ["generator_256", "image_encoder", "latent_encoder", "lpips_alex"]
NAMES = [*HASHED, "generator_512", "generator_1024", "afpsp_ffhq_256", "arcface_irse50"]


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(entry[0]) for key, entry in golden.manifest(name).items()}


@pytest.mark.parametrize("name", HASHED)
def test_filled_network_has_the_recorded_digest(name):
    digest = hashlib.sha256()
    for key, shape in sorted(shapes(name).items()):
        values = fill.weight(key, shape)
        if values is not None:
            digest.update(key.encode())
            digest.update(values.tobytes())
    assert digest.hexdigest() == golden.checksums()[name]["sha256_filled"]


@pytest.mark.parametrize("name", NAMES)
def test_every_tensor_gets_the_recorded_rule(name):
    counts = Counter(fill.rule_of(key, shape).name for key, shape in shapes(name).items())
    assert counts == golden.checksums()[name]["rule_counts"]


@pytest.mark.parametrize("name", NAMES)
def test_probes_agree(name):
    for key, (rule, first, total) in golden.checksums()[name]["probes"].items():
        shape = shapes(name)[key]
        values = fill.weight(key, shape)
        assert fill.rule_of(key, shape).name == rule
        np.testing.assert_array_equal(values.ravel()[:3], np.float32(first))
        assert values.astype(np.float64).sum() == pytest.approx(total)


@pytest.mark.parametrize(
    ("array", "digest"),
    [
        (lambda: fill.image("x", 256, 256, 2), "b3207c0bd95a276c"),
        (lambda: fill.image("x", 192, 256, 1), "f30655ab89bb64e3"),
        (fill.latent_avg, "a3bcbe78cdcf8a80"),
        (lambda: fill.direction("edit", (1, 512)), "93c3b2e977ed4868"),
    ],
)
def test_inputs_have_the_recorded_digests(array, digest):
    assert hashlib.sha256(array().numpy().tobytes()).hexdigest()[:16] == digest


def test_a_name_without_a_rule_is_an_error():
    with pytest.raises(KeyError, match="no rule fills some_gamma"):
        fill.rule_of("some_gamma", (3,))
