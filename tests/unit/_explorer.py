"""Worlds small enough to explore in a test: one with everything, one with only a generator."""

import torch
from torch import nn

from clcae_lib.explorer import Studio
from clcae_lib.worlds import World
from tests.unit._tiny import Embedding, SampleImages, save_encoder, tiny_generator

SIDE = 32


class Colours(nn.Module):
    """An oracle: how red and how green an image is on average."""

    def forward(self, images):
        return images[:, :2].mean(dim=(2, 3))


class TinyWorld(World):
    name, resolution, splits = "tiny", SIDE, ("train", "test")
    factor_names, state_names = ("green", "red"), ("red", "green")
    factor_texts = ("how green", "how red")

    def __init__(self):
        self.network = tiny_generator(SIDE)
        w = self.network.sample_w(200, generator=torch.Generator().manual_seed(5))
        self.factor_std = Colours()(self.network.synthesis(w)).std(dim=0)

    def generator(self, device="cpu"):
        return self.network

    def images(self, split, size=None):
        return SampleImages(self.network, 5, seed=7)

    def oracle(self, role, device="cpu"):
        return Colours()

    def identity(self, role, device="cpu"):
        torch.manual_seed(1 if role == "train" else 2)
        return Embedding()


class BareWorld(TinyWorld):
    """A generator and an encoder, as published weights are."""

    name, splits, factor_names, state_names, factor_texts = "bare", (), (), (), ()
    images, oracle, identity = World.images, World.oracle, World.identity


def open_studio(patch, folder, world=None, *, encoder="foundation"):
    """The studio of a tiny world, with its weights and cache in `folder`, an untrained encoder among them."""
    patch.setenv("CLCAE_DATA", str(folder / "data"))
    patch.setenv("CLCAE_CACHE", str(folder / "cache"))
    world = world or TinyWorld()
    save_encoder(world.weights(f"inversion_{encoder}"))
    return Studio.open(world, device="cpu", samples=200)
