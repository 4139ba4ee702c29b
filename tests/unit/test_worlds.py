"""Worlds: the registry, what a world offers, and which perceptual distance is which."""

import pytest
import torch

from clcae_lib import vision_repair
from clcae_lib.evaluation import Judges
from clcae_lib.models.stylegan2 import Generator
from clcae_lib.weights import save_generator
from clcae_lib.worlds import (
    WORLDS,
    Images,
    LpipsAlex,
    World,
    WorldError,
    copy_of,
    find_alexnet,
    get_world,
    perceptual,
    world_names,
)
from clcae_lib.worlds.portraits import Perceptual


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def alexnet_file(tmp_path, monkeypatch):
    """A random AlexNet where `clcae fetch` places it, with its digest taken for the true one."""
    vision = vision_repair.ensure_torchvision()
    torch.manual_seed(0)
    path = tmp_path / "data" / "networks" / perceptual.ALEXNET_FILE
    path.parent.mkdir(parents=True)
    torch.save(vision.models.alexnet(weights=None).state_dict(), path)
    monkeypatch.setattr(perceptual, "_DIGEST_START", perceptual.sha256(path)[:8])
    return path


@pytest.fixture
def portraits():
    """The drawn world."""
    return get_world("portraits")


def test_portraits_is_registered(portraits):
    assert portraits.name in world_names()
    assert portraits.resolution == 64
    assert set(portraits.state_names) < set(portraits.factor_names)
    images = portraits.images("validation", 2)
    assert isinstance(images, Images)
    assert images.images([0, 1]).shape == (2, 3, 64, 64)


def test_a_render_of_the_factors_is_the_image(portraits):
    data = portraits.images("validation", 2)
    assert torch.allclose(portraits.render(data.factors([0, 1])), data.images([0, 1]), atol=1 / 127)


def test_an_unknown_world_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'portrait'.*portraits"):
        get_world("portrait")


def test_what_a_new_world_lacks_is_said(monkeypatch):
    class Bare(World):
        name = "bare"

    monkeypatch.setitem(WORLDS, "bare", Bare)
    bare = get_world("bare")
    assert isinstance(bare, Bare)
    assert get_world(bare) is bare
    for call in (
        lambda: bare.images("test"),
        lambda: bare.oracle("train"),
        lambda: bare.identity("measure"),
        lambda: bare.perceptual("train"),
        lambda: bare.render(torch.zeros(1, 2)),
    ):
        with pytest.raises(WorldError, match=r"'bare' has no .*portraits"):
            call()


def test_the_generator_is_the_one_in_the_data_folder():
    portraits = get_world("portraits")
    with pytest.raises(WorldError, match=r"generator\.safetensors is missing: .*clcae train generator"):
        portraits.generator()
    network = Generator(8, style_dim=8, n_mlp=1, channels={4: 4, 8: 4})
    portraits.folder.mkdir(parents=True)
    save_generator(portraits.weights("generator"), network, {})
    assert portraits.has("generator")
    assert portraits.generator().style_dim == 8


def test_each_role_has_its_copy():
    for role, copy in {"train": "a", "measure": "b"}.items():
        for kind in ("oracle", "identity", "perceptual"):
            with pytest.raises(WorldError, match=rf"{kind}_{copy}\.safetensors"):
                getattr(get_world("portraits"), kind)(role)
    with pytest.raises(ValueError, match="role"):
        copy_of("validation")


def test_the_portraits_distance_is_their_own_whatever_the_machine_has(alexnet_file, tmp_path, repository):
    (tmp_path / "data" / "portraits").symlink_to(repository / "data" / "portraits")
    assert Judges.of(get_world("portraits")).perceptual_name == Perceptual.name == "portraits perceptual"


def test_alexnet_is_taken_from_one_place_and_no_other(alexnet_file, tmp_path, monkeypatch):
    assert find_alexnet() == alexnet_file
    elsewhere = tmp_path / "data" / "ffhq" / alexnet_file.name
    elsewhere.parent.mkdir()
    alexnet_file.rename(elsewhere)
    hub = tmp_path / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / alexnet_file.name).write_bytes(elsewhere.read_bytes())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    assert find_alexnet() is None
    with pytest.raises(WorldError, match=r"alexnet-owt-7be5be79\.pth is missing: `clcae fetch alexnet`"):
        get_world("ffhq").perceptual("measure")


def test_lpips_is_a_distance_on_the_files_alexnet(alexnet_file, monkeypatch):
    distance = LpipsAlex(alexnet_file)
    assert distance.name == "LPIPS-Alex" != Perceptual.name
    x, y = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.allclose(distance(x, x), torch.zeros(2))
    assert (distance(x, y) > 0).all()
    assert not any(p.requires_grad for p in distance.parameters())
    alexnet = vision_repair.ensure_torchvision().models.alexnet(weights=None)
    alexnet.load_state_dict(torch.load(alexnet_file, weights_only=True))
    assert torch.allclose(distance.lpips.net(x).relu5, alexnet.features[:12](x), atol=1e-6)
    monkeypatch.setattr(perceptual, "_DIGEST_START", "7be5be79")
    with pytest.raises(ValueError, match="not torchvision's AlexNet"):
        LpipsAlex(alexnet_file)
