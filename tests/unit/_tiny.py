"""A generator, judges and images small enough to train on in a test."""

import torch
from torch import nn
from torch.nn.functional import normalize

from clcae_lib.models import Generator

WIDTHS = (4, 6, 8, 8, 8)


def tiny_generator(size=32):
    channels = {4: 8, 8: 8, 16: 6, 32: 6, 64: 6}
    torch.manual_seed(0)
    net = Generator(size, 8, 2, channels={side: n for side, n in channels.items() if side <= size})
    net.measure_w(500)
    return net.eval().requires_grad_(False)


class Pictures:
    """Images of random codes."""

    def __init__(self, generator, count, *, seed):
        w = generator.sample_w(count, generator=torch.Generator().manual_seed(seed))
        self.pixels = generator.synthesis(w).clamp(-1, 1)

    def __len__(self):
        return len(self.pixels)

    def images(self, indices):
        return self.pixels[torch.as_tensor(list(indices))]


class Distance(nn.Module):
    """A stand-in for the perceptual distance."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).requires_grad_(False)

    def forward(self, x, y):
        return (self.conv(x) - self.conv(y)).float().square().mean(dim=(1, 2, 3))


class Embedding(Distance):
    """A stand-in for the identity embedding."""

    def forward(self, x):
        return normalize(self.conv(x).float().mean(dim=(2, 3)), dim=1)

    def similarity(self, x, y):
        return (self(x) * self(y)).sum(dim=1)
