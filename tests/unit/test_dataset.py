"""The portraits data set: disjoint splits, a cache that is right, paid once and never stale."""

import multiprocessing
from itertools import combinations

import pytest
import torch

from clcae_lib.images import to_uint8
from clcae_lib.worlds.portraits import SPLITS, Portraits, dataset
from clcae_lib.worlds.portraits.factors import IDENTITY_NAMES, INDEX, STATE_NAMES


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def renders(monkeypatch):
    """A list that grows by the number of images of each call of the renderer."""
    counts, real = [], dataset.renderer.render

    def counting(factors, **options):
        counts.append(len(factors))
        return real(factors, **options)

    monkeypatch.setattr(dataset.renderer, "render", counting)
    return counts


def small(split="train", size=40, **options):
    return Portraits(split, size, resolution=16, **options)


def test_splits_are_disjoint_and_so_are_their_images():
    for a, b in combinations(SPLITS.values(), 2):
        assert len(a) > 0
        assert max(a.start, b.start) >= min(a.stop, b.stop)
    first = {name: Portraits(name, 1).factors([0]) for name in SPLITS}
    for a, b in combinations(first, 2):
        assert not torch.allclose(first[a], first[b])


def test_images_are_in_range_and_rounded_to_bytes():
    data = small()
    images, pixels = data.images(slice(0, 4)), data.uint8([0, 1, 2, 3])
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert pixels.dtype == torch.uint8
    assert -1 <= images.min() < images.max() <= 1
    assert torch.equal(((images + 1) * 127.5).round().to(torch.uint8), pixels)


def test_an_image_is_rendered_once(renders):
    first = small().images(range(40))
    assert sum(renders) == small().block_size
    renders.clear()
    again = small()
    assert torch.equal(again.images(range(40)), first)
    assert torch.equal(again.images([7, 3, 7]), first[[7, 3, 7]])
    assert renders == []
    direct = again.with_factors([5, 39, 0], again.factors([5, 39, 0]))
    assert torch.equal(again.uint8([5, 39, 0]), to_uint8(direct))
    assert sum(renders) == 3


def test_only_the_blocks_asked_for_are_rendered(renders):
    data = Portraits("train", resolution=64)
    data.images([600, 601])
    assert sum(renders) == data.block_size == 256
    assert [path.name for path in data.folder.iterdir()] == ["00002.npy"]


def test_prepare_fills_the_cache(renders):
    data = Portraits("validation", 20, resolution=256).prepare()
    assert len(list(data.folder.iterdir())) == -(-20 // data.block_size)
    renders.clear()
    Portraits("validation", 20, resolution=256).images(range(20))
    assert renders == []


def test_a_changed_renderer_gets_a_fresh_cache(renders, monkeypatch):
    small().images([0])
    renders.clear()
    monkeypatch.setattr(dataset, "renderer_digest", lambda: "another")
    small().images([0])
    assert renders


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY broken", None])
def test_a_damaged_block_is_rendered_again(damage, renders):
    first = small().images([0])
    (path,) = small().folder.iterdir()
    path.write_bytes(path.read_bytes()[:1000] if damage is None else damage)
    renders.clear()
    assert torch.equal(small().images([0]), first)
    assert renders
    renders.clear()
    small().images([0])
    assert renders == []


def _fill(cache):
    import os

    os.environ["CLCAE_CACHE"] = cache
    torch.set_num_threads(1)
    return int(small(size=1500).uint8(range(1500)).long().sum())


def test_two_processes_may_fill_one_cache(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.map(_fill, [str(tmp_path / "shared")] * 2)
    data, rows = small(size=1500), range(1500)
    assert sums[0] == sums[1] == int(to_uint8(data.with_factors(rows, data.factors(rows))).long().sum())
    assert not list((tmp_path / "shared").rglob(".partial*"))


def test_views_show_the_same_people_in_other_states():
    plain, other = small(), small(view=1)
    a, b = plain.factors(range(40)), other.factors(range(40))
    who, state = ([INDEX[n] for n in names] for names in (IDENTITY_NAMES, STATE_NAMES))
    assert torch.equal(a[:, who], b[:, who])
    assert ((a[:, state] - b[:, state]).abs().mean(0) > 0).all()
    assert not torch.equal(plain.uint8([0]), other.uint8([0]))


def test_accessories_are_drawn_in_their_split_only(monkeypatch):
    given, real = [], dataset.renderer.render

    def noting(factors, **options):
        given.append(options["accessories"])
        return real(factors, **options)

    monkeypatch.setattr(dataset.renderer, "render", noting)
    small("accessories").landmarks([0])
    small("test").landmarks([0])
    assert given[0].sum() == 1
    assert given[1] is None


def test_a_wrong_argument_is_named():
    for wrong in ({"split": "tset"}, {"size": 0}, {"size": 10**9}, {"view": -1}, {"resolution": 4}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Portraits(**{"split": "test", **wrong})
    with pytest.raises(IndexError, match="0 to 39"):
        small().images([40])
    assert len(list(small(size=3))) == 3
