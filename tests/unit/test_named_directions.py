"""The directions a world ships: the better of two methods for each factor, and files of a visitor's own."""

import numpy as np
import pytest
import torch

from clcae_lib.editing import Direction, install_directions, named_directions, response, save_directions
from clcae_lib.explorer import find_controls
from clcae_lib.weights import checkpoints
from tests.unit._explorer import TinyWorld


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))
    world = TinyWorld()
    for name in ("generator", "oracle_a"):  # what they hold is of no account, only that it is the same
        checkpoints.save_weights(world.weights(name), {"x": torch.ones(1)}, metadata={})
        checkpoints.write_card(world.weights(name), {})
    return world


@pytest.fixture
def only(monkeypatch):
    """Let only these methods look for directions."""
    return lambda *methods: monkeypatch.setattr("clcae_lib.editing.named.FINDERS", methods)


def controls_of_files(world):
    found = find_controls(world, samples=50, factors=[], device="cpu").values()
    return [control for control in found if control.key.startswith("file-")]


def test_each_factor_keeps_the_method_that_leaks_less(world, only):
    options = {"factors": ["red", "green"], "samples": 200, "device": "cpu"}
    best = named_directions(world, **options)
    leaks = {}
    for method in ("interfacegan", "stylespace"):
        only(method)
        found = named_directions(world, **options)
        leaks[method] = {name: d.provenance["leakage"] for name, d in found.items()}
    assert best.keys() == {"red", "green"}
    for name, direction in best.items():
        assert direction.provenance["leakage"] == min(found.get(name, 9) for found in leaks.values())


def test_leakage_is_what_else_moves_for_each_movement_of_its_own(world):
    direction = named_directions(world, ["red"], samples=200, device="cpu")["red"]
    w = world.network.sample_w(48, generator=torch.Generator().manual_seed(2))
    moved = response(world.network, world.oracle("train"), direction, w).mean(dim=0) / world.factor_std
    assert direction.provenance["leakage"] == pytest.approx(abs(moved[0] / moved[1]).item(), rel=0.3)


def test_shipped_directions_are_read_until_the_generator_is_another(world, only):
    path = install_directions(world, device="cpu")
    assert path == world.weights("directions")
    card = checkpoints.read_card(path)
    assert card["trained_on"].keys() == {"generator.safetensors", "oracle_a.safetensors"}
    assert {"method", "moved", "leakage"} <= card["measures"]["red"].keys()
    assert checkpoints.check_chain(world.folder) == []
    only()  # no method looks for directions now
    assert named_directions(world).keys() == card["measures"].keys()
    checkpoints.save_weights(world.weights("generator"), {"x": torch.zeros(1)}, metadata={})
    assert named_directions(world) == {}, "the directions of another generator were used"


def test_files_of_directions_become_sliders(world):
    folder = world.folder / "directions"
    folder.mkdir()
    size, rows = world.network.style_dim, world.network.n_latent
    torch.save(torch.eye(size)[:1], folder / "age.pt")
    torch.save(torch.eye(size)[0].repeat(1, rows, 1), folder / "pose.pt")
    np.save(folder / "hat.npy", np.ones((1, size), dtype=np.float32))
    std = torch.tensor([2.0, 1.0])
    torch.save(
        {"mean": torch.zeros(1, size), "comp": torch.eye(size)[:2, None], "std": std}, folder / "pca.pt"
    )
    save_directions(folder / "mine.safetensors", {"a": Direction(torch.ones(size), "bright eyes", unit=0.5)})
    found = controls_of_files(world)
    assert {(c.label, c.group) for c in found} == {
        *(("age", "directions"), ("hat", "directions"), ("pose", "directions")),
        *(("bright eyes", "directions"), ("component 0", "GANSpace"), ("component 1", "GANSpace")),
    }
    units = {c.label: c.direction.unit for c in found}
    assert (units["component 0"], units["bright eyes"], units["age"]) == (2.0, 0.5, 1.0)
