"""Files of directions as they are passed on: sliders, or a reason; never the end of the explorer."""

import re

import numpy as np
import pytest
import torch

from clcae_lib.editing import sample_codes
from clcae_lib.explorer import Studio
from clcae_lib.weights.checkpoints import save_weights
from tests.field.inputs import DIM, DIRECTIONS, array, stored, text, vector
from tests.unit._explorer import BareWorld


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    made = BareWorld().folder / "directions"
    made.mkdir(parents=True)
    return made


def sliders(studio):
    return [control for control in studio.controls.values() if control.key.startswith("file-")]


@pytest.mark.parametrize("row", DIRECTIONS)
def test_a_file_of_directions_gives_sliders(folder, row):
    make, count = DIRECTIONS[row]
    make(folder / row.split()[1])
    studio = Studio.open(BareWorld(), device="cpu", samples=100)
    assert studio.left_out == []
    assert len(sliders(studio)) == count
    for control in sliders(studio):
        image = studio.image(studio.first.with_edit(control.key, 3.0))
        assert (image != studio.image(studio.first)).any()


def own(path, *, key="x", **changes):
    """What `save_directions` writes, with other details."""
    details = {"name": "x", "space": "w_plus", "unit": 1.0, "layers": [0], "provenance": {}} | changes
    save_weights(path, {"x": torch.ones(DIM)}, metadata={"kind": "directions", "directions": {key: details}})


def parts(path, *, mean=DIM, comp=(3, DIM), std=3):
    stored(path, {"mean": torch.zeros(mean), "comp": torch.ones(comp), "std": torch.ones(std)})


BAD = {
    "L5 list.safetensors": (
        lambda p: save_weights(p, {"x": torch.ones(DIM)}, metadata={"kind": "directions", "directions": [1]}),
        "directions: Input should be",
    ),
    "L5 other.safetensors": (
        lambda p: own(p, key="other"),
        "is damaged .*'other'.*; write it again",
    ),
    "L5 layers.safetensors": (lambda p: own(p, space="w"), "is damaged .*layers=None.*; write it again"),
    "L5 unit.safetensors": (lambda p: own(p, unit=float("nan")), "unit: Input should be a finite number"),
    "L5 name.safetensors": (lambda p: own(p, name=[1]), "name: Input should be a valid string"),
    "L5 method.safetensors": (lambda p: own(p, provenance=3), "provenance: Input should be"),
    "L5 space.safetensors": (lambda p: own(p, space="f"), "space: Input should be"),
    "L5 rows.safetensors": (lambda p: own(p, layers=[99]), r"layers \[99\].*another generator"),
    "L5 negative.safetensors": (lambda p: own(p, layers=[-1]), "layers.0: Input should be"),
    "L5 number.pt": (lambda p: parts(p, comp=()), "damaged"),
    "L5 none.pt": (lambda p: parts(p, comp=(0, DIM), std=0), "differ in size"),
    "L5 odd.pt": (lambda p: parts(p, mean=4, std=5), "differ in size"),
    "L5 parts.safetensors": (
        lambda p: save_weights(p, {"std": torch.ones(3)}, metadata={"kind": "components"}),
        "differ in size",
    ),
    "L5 many.npz": (lambda p: np.savez(p, **{f"a{k}": np.ones(DIM) for k in range(200)}), "has 200 dir"),
    "28 ._age.npy": (lambda p: p.write_bytes(b"\0\5\x16\7" + 100 * b"\0"), None),
    "28 .DS_Store": (lambda p: p.write_bytes(b"\0\0\0\1Bud1"), None),
    "27 notanumber.npy": (lambda p: array(p, np.full(DIM, np.nan)), "not finite"),
    "27 other_width.npy": (lambda p: array(p, np.ones(7)), "another generator"),
    "27 broken.npy": (lambda p: p.write_bytes(b"\x93NUMPY"), "damaged"),
    "22 lfs.pt": (lambda p: text(p, "version https://git-lfs.github.com/spec/v1\n"), "Git LFS"),
    "32 whole.pt": (lambda p: stored(p, torch.nn.Linear(2, 2)), "refused"),
    "29 readme.txt": (lambda p: text(p, "age is good"), "not a weights file"),
    "29 many.npz": (lambda p: np.savez(p, a=np.ones((2, 3, 4, 5))), "is unknown"),
}


@pytest.mark.parametrize("row", BAD)
def test_one_bad_file_is_listed_and_the_explorer_starts(folder, row):
    make, reason = BAD[row]
    make(folder / row.split()[1])
    array(folder / "age.npy", vector(1, DIM).numpy())
    studio = Studio.open(BareWorld(), device="cpu", samples=100)
    assert [control.label for control in sliders(studio)] == ["age"]
    assert len(studio.left_out) == (reason is not None)
    for sentence in studio.left_out:
        assert row.split()[1] in sentence
        assert re.search(reason, sentence)


def test_30_names_that_collide_are_told_apart(folder):
    for number, name in enumerate(("old age.npy", "old_age.npy", "old-age.npy")):
        array(folder / name, vector(3, DIM)[number].numpy())
    studio = Studio.open(BareWorld(), device="cpu", samples=100)
    found = sliders(studio)
    assert len({control.key for control in found}) == len({control.label for control in found}) == 3
    codes = sample_codes(studio.generator, 1, seed=0)
    moved = torch.stack([control.direction.vector for control in found])
    assert len(moved.unique(dim=0)) == 3
    assert codes.shape == (1, DIM)
