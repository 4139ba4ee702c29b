"""The pretrained backbone: it learns, is made once and kept, and needs factors."""

import pytest
import torch

from clcae_lib import paths
from clcae_lib.models.backbone import make_backbone
from clcae_lib.training import ConfigError, install
from clcae_lib.training.body import BodyConfig, BodyTask, pretrained_body, train
from clcae_lib.worlds import World
from clcae_lib.worlds.portraits import dataset

SMALL = {"steps": 12, "batch_size": 16, "images": 48, "validation_images": 16, "widths": (4, 6, 8, 8, 8)}
SMALL |= {"precision": "32-true", "warmup": 2, "log_every": 1}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path))
    monkeypatch.setattr(dataset, "_BLOCK_AT_64", 32)  # render no more than these tests ask for
    return tmp_path


def test_it_learns_is_kept_and_fits_a_backbone(cache, monkeypatch):
    first = pretrained_body("portraits", device="cpu", **SMALL)
    make_backbone("small", widths=SMALL["widths"]).load_state_dict(first)
    (folder,) = (paths.cache_dir() / "bodies").iterdir()
    losses = [float(line.split(",")[3]) for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
    assert sum(losses[-3:]) < sum(losses[:3])
    monkeypatch.setattr("clcae_lib.training.body.train", lambda *_, **__: pytest.fail("trained again"))
    again = pretrained_body("portraits", device="cpu", **SMALL)
    assert all(torch.equal(first[name], value) for name, value in again.items())
    with pytest.raises(pytest.fail.Exception):  # other settings, another backbone
        pretrained_body("portraits", device="cpu", **{**SMALL, "seed": 1})


@pytest.mark.parametrize("change", ["seed", "renderer"])
def test_a_shipped_body_of_other_settings_or_another_renderer_is_not_taken(cache, monkeypatch, change):
    monkeypatch.setenv("CLCAE_DATA", str(cache / "data"))
    folder = cache / "run"
    train(BodyConfig(tensorboard=False, device="cpu", **SMALL), folder)
    install(folder, "portraits")
    shipped = pretrained_body("portraits", device="cpu", **SMALL)
    assert not (paths.cache_dir() / "bodies").exists()
    settings = {**SMALL, "seed": 1} if change == "seed" else SMALL
    if change == "renderer":
        monkeypatch.setattr("clcae_lib.worlds.PortraitsWorld.renderer", property(lambda _: "another"))
    other = pretrained_body("portraits", device="cpu", **settings)
    assert len(list((paths.cache_dir() / "bodies").iterdir())) == 1
    same = all(torch.equal(shipped[name], other[name]) for name in shipped)
    assert same is (change == "renderer"), "only the seed makes other weights"


def test_a_world_without_factors_is_explained():
    class Photos(World):
        name = "photos"

    with pytest.raises(ConfigError, match="its images have no known factors"):
        BodyTask(BodyConfig(), Photos())
