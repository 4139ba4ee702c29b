"""The portraits data set: disjoint splits, a cache that is right, paid once and never stale."""

import multiprocessing
from itertools import combinations

import numpy as np
import pytest
import torch

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


def test_splits_are_disjoint_and_so_are_their_pictures():
    for a, b in combinations(SPLITS.values(), 2):
        assert len(a) > 0
        assert max(a.start, b.start) >= min(a.stop, b.stop)
    first = {name: Portraits(name, 1, cache=False).factors([0]) for name in SPLITS}
    for a, b in combinations(first, 2):
        assert not torch.allclose(first[a], first[b])


@pytest.mark.parametrize("view", [1, 2])
def test_views_stay_in_their_split(view):
    data = Portraits("test", view=view)
    who, state = data._global(np.arange(0, len(data), 997))
    for indices in (who, state):
        assert indices.min() >= SPLITS["test"].start
        assert indices.max() < SPLITS["test"].stop


def test_images_are_in_range_and_rounded_to_bytes():
    data = small()
    images, pixels = data.images(slice(0, 4)), data.uint8([0, 1, 2, 3])
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert pixels.dtype == torch.uint8
    assert -1 <= images.min() < images.max() <= 1
    assert torch.equal(((images + 1) * 127.5).round().to(torch.uint8), pixels)


def test_a_render_is_paid_for_once(renders):
    first = small().images(range(40))
    assert sum(renders) == small().block_size
    renders.clear()
    again = small()
    assert torch.equal(again.images(range(40)), first)
    assert torch.equal(again.images([7, 3, 7]), first[[7, 3, 7]])
    assert renders == []


def test_cached_pixels_are_the_rendered_pixels(renders):
    cached, direct = small(), small(cache=False)
    assert torch.equal(cached.uint8([5, 39, 0]), direct.uint8([5, 39, 0]))
    renders.clear()
    direct.uint8([1])
    assert sum(renders) == 1


def test_only_the_blocks_asked_for_are_rendered(renders):
    data = Portraits("train", resolution=64)
    data.images([600, 601])
    assert sum(renders) == data.block_size == 256
    assert [path.name for path in data.folder.iterdir()] == ["00002.npy"]


def test_prepare_fills_the_cache(renders):
    data = Portraits("validation", 20, resolution=256).prepare(progress=False)
    assert len(list(data.folder.iterdir())) == -(-20 // data.block_size)
    renders.clear()
    Portraits("validation", 20, resolution=256).images(range(20))
    assert renders == []


def test_a_changed_renderer_gets_a_fresh_cache(renders, monkeypatch):
    small().images([0])
    renders.clear()
    monkeypatch.setattr(dataset, "renderer_digest", lambda drawn: "another")
    small().images([0])
    assert renders


def test_the_digest_follows_the_source(tmp_path, monkeypatch):
    for name in ("factors.py", "renderer.py", "_shapes.py"):
        (tmp_path / name).write_text("a = 1\n")
    monkeypatch.setattr(dataset.renderer, "__file__", str(tmp_path / "renderer.py"))
    digests = set()
    for name in ("factors.py", "renderer.py", "_shapes.py"):
        digests.add(dataset.renderer_digest.__wrapped__())
        (tmp_path / name).write_text("a = 2\n")
    digests.add(dataset.renderer_digest.__wrapped__())
    assert len(digests) == 4
    (tmp_path / "renderer.py").write_text('"""Other words."""\n\na = (2)  # the same program\n')
    assert dataset.renderer_digest.__wrapped__() in digests


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY broken", None])
def test_a_damaged_block_is_rendered_again(damage, renders):
    first = small().images([0])
    path = small()._block_path(0)
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
    assert sums[0] == sums[1] == int(small(size=1500, cache=False).uint8(range(1500)).long().sum())
    assert not list((tmp_path / "shared").rglob(".partial*"))


def test_views_show_the_same_people_in_other_states():
    plain, other = small(), small(view=1)
    a, b = plain.factors(range(40)), other.factors(range(40))
    who, state = ([INDEX[n] for n in names] for names in (IDENTITY_NAMES, STATE_NAMES))
    assert torch.equal(a[:, who], b[:, who])
    assert ((a[:, state] - b[:, state]).abs().mean(0) > 0).all()
    assert not torch.equal(plain.uint8([0]), other.uint8([0]))


def test_landmarks_scale_with_the_resolution():
    at16, at64 = small().landmarks([0, 1]), Portraits("train", 2).landmarks([0, 1])
    assert torch.allclose(at16 * 4, at64, atol=1e-4)


def test_accessories_are_drawn_in_their_split_only(monkeypatch):
    given, real = [], dataset.renderer.render

    def noting(factors, **options):
        given.append(options["accessories"])
        return real(factors, **options)

    monkeypatch.setattr(dataset.renderer, "render", noting)
    small("accessories", cache=False).uint8([0])
    small("test", cache=False).uint8([0])
    assert given[0].sum() == 1
    assert given[1] is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"split": "tset"}, "split"), ({"size": 0}, "size"), ({"size": 10**9}, "size"), ({"view": -1}, "view")],
)
def test_a_wrong_argument_is_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        Portraits(**{"split": "test", **arguments})


def test_an_index_beyond_the_size_is_an_error():
    with pytest.raises(IndexError, match="0 to 39"):
        small().images([40])
    assert len(list(small(size=3))) == 3
