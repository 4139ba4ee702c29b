"""The filler gives the very weights and inputs that the golden numbers were made with."""

import hashlib

import pytest

from tests.conformance import fill, golden


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("generator_256", "2e23560fbf906847"),
        ("image_encoder", "594c47db98ac5361"),
        ("latent_encoder", "fdf4bb057dcfc574"),
        ("lpips_alex", "ddf1c287190cafb6"),
    ],
)
def test_filled_network_has_the_recorded_digest(name, expected):
    digest = hashlib.sha256()
    for key, (shape, *_) in sorted(golden.manifest(name).items()):
        values = fill.weight(key, tuple(shape))
        if values is not None:
            digest.update(key.encode())
            digest.update(values.tobytes())
    assert digest.hexdigest()[:16] == expected


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
