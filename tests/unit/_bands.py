"""A world so simple that every measure is known: images are bands of rows, one for each factor."""

import torch
from torch import nn

from clcae_lib.editing import Direction
from clcae_lib.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.worlds import World

NAMES = ("yaw", "smile", "glasses", "nose")
STD = torch.tensor([10.0, 0.5, 0.25, 0.5])
SCALE = torch.tensor([40.0, 2.0, 2.0, 2.0])
SIDE, DIM, ROWS = 16, 4, 8


def paint(values):
    """Return images whose bands are the factors, each divided by its scale."""
    bands = (values / SCALE).repeat_interleave(SIDE // DIM, dim=1)
    return bands[:, None, :, None].expand(-1, 3, -1, SIDE).contiguous()


def read(images):
    return images.mean(dim=(1, 3)).unflatten(1, (DIM, -1)).mean(dim=2) * SCALE


class Reader(nn.Module):
    """Reads the factors, `gain` times too large."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = gain

    def forward(self, images):
        return self.gain * read(images)


class Face(nn.Module):
    """An identity that is the angle of the nose's value."""

    def forward(self, images):
        angle = read(images)[:, 3]
        return torch.stack([angle.cos(), angle.sin()], dim=1)


class Difference(nn.Module):
    name = "plain difference"

    def forward(self, a, b):
        return (a - b).abs().mean(dim=(1, 2, 3))

    def pooled(self, images):
        return read(images) / STD


class Painter(Generator):
    """A generator whose codes are the factors; its activation has them too, and is what it paints."""

    style_dim, n_latent = DIM, ROWS

    def __init__(self, spread=1.0):
        nn.Module.__init__(self)
        self.spread = spread

    def sample_w(self, n, *, generator):
        return self.spread * torch.randn(n, DIM, generator=generator) * STD

    def activation(self, w, *, side=16, style_offsets=None, noise="fixed"):
        w = w.mean(dim=1) if w.ndim == 3 else w
        return w[:, :, None, None].expand(-1, -1, 2, 2)

    def synthesis(self, w, *, feature=None, style_offsets=None, noise="fixed", stop_at=None):
        return paint((self.activation(w) if feature is None else feature).mean(dim=(2, 3)))


class Exact:
    """Inverts without error in F, with an error of 0.1 standard deviations in W+, and of 0.2 in W."""

    def __init__(self, generator=None):
        self.generator = generator or Painter()

    def invert(self, images):
        values = read(images)
        w_plus = (values + 0.1 * STD)[:, None].expand(-1, ROWS, -1)
        return Inversion(values + 0.2 * STD, w_plus, values[:, :, None, None].expand(-1, -1, 2, 2))


class Portraits:
    def __init__(self, size, view=0):
        source = torch.Generator().manual_seed(7)
        self.values = torch.randn(size, DIM, generator=source) * STD
        if view:
            self.values[:, :3] = torch.randn(size, 3, generator=source) * STD[:3]

    def __len__(self):
        return len(self.values)

    def factors(self, indices):
        return self.values[list(indices)]

    def images(self, indices):
        return paint(self.factors(indices))


class Bands(World):
    name, resolution = "bands", SIDE
    factor_names, state_names = NAMES, NAMES[:3]
    factor_std = STD
    factor_low, factor_high = torch.tensor([-40.0, -2, -2, -2]), torch.tensor([40.0, 2, 2, 2])

    def __init__(self, spread=1.0):
        self.spread = spread

    def images(self, split, size=None, *, view=0):
        return Portraits(size, view)

    def generator(self, device="cpu"):
        return Painter(self.spread)

    def oracle(self, role, device="cpu"):
        return Reader(gain=1.0 if role == "measure" else 1.25)

    def identity(self, role, device="cpu"):
        return Face()

    def perceptual(self, role, device="cpu"):
        return Difference()

    def render(self, factors):
        return paint(factors)


def direction(name, *, others=()):
    """Return the direction that moves the named factors by one standard deviation."""
    vector = torch.zeros(DIM)
    for each in (name, *others):
        vector[NAMES.index(each)] = STD[NAMES.index(each)]
    return Direction(vector, name)
