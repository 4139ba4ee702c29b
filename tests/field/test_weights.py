"""Weights as they are passed on: every command that takes one takes all, or refuses it in one sentence."""

import os
import re

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from clcae_lib.cli import app
from clcae_lib.weights import load_generator
from clcae_lib.worlds import get_world
from tests.field.inputs import REFUSED, SIDE, USED, foreign, snapshot


@pytest.fixture(autouse=True)
def album(tmp_path, monkeypatch):
    """A folder with one photograph; data and cache of the test's own."""
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "album").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "album" / "a.png")
    return tmp_path / "album"


def call(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code in (0, 2), done.output + repr(done.exception)
    return done


def add(album, path, *options):
    return call("world", "add", "w", "--images", album, "--kind", "other", "--generator", path, *options)


@torch.no_grad()
@pytest.mark.parametrize("row", USED)
def test_a_generator_works_in_every_command(album, tmp_path, row):
    path = USED[row](tmp_path / row.split()[1])
    assert "StyleGAN2" in call("inspect", path).output
    converted = call("convert", path, tmp_path / "out.safetensors")
    assert converted.exit_code == 0, converted.output
    added = add(album, path)
    assert added.exit_code == 0, added.output
    w = torch.randn(1, 8)
    images = [
        network.synthesis(w, noise="none")
        for network in (load_generator(path), load_generator(tmp_path / "out.safetensors"))
    ]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], get_world("w").generator().synthesis(w, noise="none"))
    assert images[0].shape == (1, 3, SIDE, SIDE)


@pytest.mark.parametrize("row", REFUSED)
def test_a_refusal_is_one_sentence_and_never_advises_to_switch_safety_off(album, tmp_path, row):
    make, words = REFUSED[row]
    path = make(tmp_path / row.split()[1])
    for done in (call("convert", path, tmp_path / "out.safetensors"), add(album, path)):
        assert done.exit_code == 2
        assert re.search(words, done.output), done.output
        assert path.name in done.output
        assert "weights_only" not in done.output
        assert "trust" not in done.output
        assert len(done.output) < 600
    assert not (tmp_path / "data" / "w").exists()


def test_24_written_weights_follow_the_umask(album, tmp_path):
    before = os.umask(0o022)
    try:
        call("convert", snapshot(tmp_path / "plain.pkl"), tmp_path / "p.safetensors")
        add(album, foreign(tmp_path / "f.safetensors"))
    finally:
        os.umask(before)
    written = [tmp_path / "p.safetensors", *(tmp_path / "data" / "w").glob("*")]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in written} == dict.fromkeys(
        (path.name for path in written), "0o644"
    )


def test_68_info_finds_no_fault_with_a_world_just_made(album, tmp_path):
    add(album, foreign(tmp_path / "f.safetensors"))
    assert "problem" not in call("info").output
