"""A generator, judges, images and settings small enough to train on in a test."""

import torch
from torch import nn
from torch.nn.functional import normalize

from clcae_lib.models import FoundationEncoder, Generator, ImageEncoder, LatentEncoder
from clcae_lib.weights.checkpoints import save_weights
from clcae_lib.worlds import World

WIDTHS = (4, 6, 8, 8, 8)
RUN = {"device": "cpu", "tensorboard": False, "steps": 4, "batch_size": 4, "warmup": 2, "checkpoint_every": 2}
RUN |= {"validate_every": 4, "sheet_every": 4, "log_every": 1, "precision": "32-true"}
"""Settings of a short training."""
ENCODER = RUN | {"validation_images": 8, "widths": WIDTHS}
FOUNDATION = ENCODER | {"bank": 16}
PUBLISHED = {"preset": "published", "widths": (4, 4, 6, 8, 8), "ramp_epoch": 4}
PUBLISHED |= {"style_hidden": 4, "hidden": 8}
PEER = ENCODER | {"start": "fresh"}
ALIGNMENT = RUN | {"batch_size": 8, "embedding": 8, "widths": WIDTHS, "width": 8, "latent_width": 16}
ALIGNMENT |= {"latent_depth": 1, "validation_pairs": 20, "final_pairs": 24, "neighbour_codes": 3}


def tiny_generator(size=32):
    channels = {4: 8, 8: 8, 16: 6, 32: 6, 64: 6}
    torch.manual_seed(0)
    net = Generator(size, 8, 2, channels={side: n for side, n in channels.items() if side <= size})
    net.measure_w(500)
    return net.eval().requires_grad_(False)


def save_encoder(path, **changes):
    """Save an untrained encoder for images of the tiny generator; `changes` make its config false."""
    torch.manual_seed(3)
    net = FoundationEncoder(32, style_dim=8, feature_channels=6, widths=WIDTHS)
    metadata = {"kind": "inversion", "preset": "foundation", "config": net.config | changes}
    save_weights(path, net.state_dict(), metadata=metadata)


class Bare(World):
    """A world with a generator and nothing else."""

    name, resolution = "bare", 32

    def generator(self, device="cpu"):
        return tiny_generator()


class SampleImages:
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


def parts_of(size=32):
    """What an encoder is trained with, at `size` pixels."""
    from clcae_lib.training.encoders import Parts

    generator = tiny_generator(size)
    torch.manual_seed(1)
    images = ImageEncoder(size, embedding=8, width=8, widths=WIDTHS).eval().requires_grad_(False)
    codes = LatentEncoder(8, embedding=8, width=8, depth=1).eval().requires_grad_(False)
    return Parts(
        generator=generator,
        images=SampleImages(generator, 12, seed=1),
        validation=SampleImages(generator, 8, seed=2),
        perceptual=Distance(),
        identity=Embedding(),
        alignment=(images, codes, 20.0),
        judges={"perceptual": Distance(), "identity": Embedding()},
        trained_on={"generator": "abc"},
    )


def assert_equal(left, right, where="state"):
    """Nested states are equal, tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for name in left:
            assert_equal(left[name], right[name], f"{where}.{name}")
    elif isinstance(left, list):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_equal(one, other, f"{where}.{index}")
    else:
        assert left == right, where
