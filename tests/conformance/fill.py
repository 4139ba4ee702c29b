"""Weights and inputs that depend on nothing but a name, a shape and a seed.

A network's tensor is filled from its own name in the `state_dict`, so two implementations that agree on
names and shapes get the same weights. Each is drawn from a standard normal distribution in float64, then
shifted or scaled by the first rule whose pattern its name matches, so that activations stay of order one.
"""

import math
import re
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

WEIGHTS, INPUTS = 20230618, 1

Draw = Callable[[NDArray, int], NDArray]


class Rule(NamedTuple):
    """Fill of tensors whose name matches; `draw` None leaves them, `dims` None is any rank."""

    pattern: str
    draw: Draw | None
    dims: int | None = None


def _affine(mean: float, deviation: float) -> Draw:
    return lambda normal, fan: mean + deviation * normal


def _by_fan(gain: float) -> Draw:
    return lambda normal, fan: normal * math.sqrt(gain / fan)


RULES = (
    Rule(r"\.kernel$", None),
    Rule(r"num_batches_tracked$", None),
    Rule(r"(^|\.)net\.(mean|std)$", None),
    Rule(r"running_mean$", _affine(0.0, 0.1)),
    Rule(r"running_var$", lambda normal, fan: 1.0 + 0.1 * np.abs(normal)),
    Rule(r"noises\.noise_\d+$", _affine(0.0, 1.0)),
    Rule(r"noise\.weight$", _affine(0.0, 0.1)),
    Rule(r"(^|\.)style\.\d+\.weight$", _affine(0.0, 100.0)),
    Rule(r"(^|\.)style\.\d+\.bias$", _affine(0.0, 10.0)),
    Rule(r"modulation\.bias$", _affine(1.0, 0.1)),
    Rule(r"modulation\.weight$", _affine(0.0, 1.0)),
    Rule(r"to_rgb(1|s\.\d+)\.conv\.weight$", _affine(0.0, 0.2)),
    Rule(r"\.conv\.weight$", _affine(0.0, 1.0), dims=5),
    Rule(r"input\.input$", _affine(0.0, 1.0)),
    Rule(r"styles(_others)?\.\d+\.linear\.weight$", _affine(0.0, 1.0)),
    Rule(r"(^|\.)lin\.\d+\.1\.weight$", lambda normal, fan: np.abs(normal) / fan),
    Rule(r"(input_layer|res_layer)\.2\.weight$", _affine(0.25, 0.05), dims=1),
    Rule(r"logit_scale$", _affine(math.log(1 / 0.07), 0.1), dims=0),
    Rule(r"pos_embedding$", _affine(0.0, 1.0)),
    Rule(r"\.weight$", _affine(1.0, 0.1), dims=1),
    Rule(r"bias$", _affine(0.0, 0.1)),
    Rule(r"(convs|content_layer)[.\w]*\.weight$", _by_fan(2.0), dims=4),
    Rule(r"weight$", _by_fan(1.0)),
)


def rule_of(key: str, shape: tuple[int, ...]) -> Rule:
    """Return the first rule for a tensor."""
    matching = (r for r in RULES if re.search(r.pattern, key) and r.dims in (None, len(shape)))
    rule = next(matching, None)
    if rule is None:
        raise KeyError(f"no rule fills {key} of shape {shape}; add one to RULES")
    return rule


def normal(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float64]:
    """Return standard normal numbers that belong to `name`."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) ^ seed)).standard_normal(shape)


def weight(key: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Return the values of one tensor of a `state_dict`, or None where the network's own stay."""
    rule = rule_of(key, shape)
    if rule.draw is None:
        return None
    fan = math.prod(shape[1:])
    return np.asarray(rule.draw(normal(key, shape, WEIGHTS), fan)).astype(np.float32).reshape(shape)


@torch.no_grad()
def fill(module: nn.Module) -> nn.Module:
    """Fill a network in place and return it, in evaluation mode."""
    for key, tensor in module.state_dict().items():
        values = weight(key, tuple(tensor.shape))
        if values is not None:
            tensor.copy_(torch.from_numpy(values))
    return module.eval()


def vector(tag: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """Return normal numbers of standard deviation `scale`."""
    return torch.from_numpy((scale * normal(tag, shape, INPUTS)).astype(np.float32))


def latent_avg() -> Tensor:
    """Return a stand-in for the mean code, `[512]`."""
    return vector("latent_avg", (512,), 0.3)


def direction(tag: str, shape: tuple[int, ...]) -> Tensor:
    """Return rows of unit length."""
    rows = normal(tag, shape, INPUTS)
    return torch.from_numpy((rows / np.sqrt((rows * rows).sum(-1, keepdims=True))).astype(np.float32))


def image(tag: str, height: int, width: int, batch: int = 1) -> Tensor:
    """Return smooth images with a little white noise, `[N, 3, H, W]` in [-1, 1].

    The smooth part sums 8x8 cosines a channel, fainter the faster they vary, and peaks at 0.9.
    """
    return torch.from_numpy(np.stack([_one_image(f"{tag}/{b}", height, width) for b in range(batch)]))


def _one_image(tag: str, height: int, width: int) -> NDArray[np.float32]:
    waves = np.arange(8)
    damp = 1.0 / (1.0 + waves[:, None] + waves[None, :])
    rows, columns = (np.cos(np.pi * waves[:, None] * (np.arange(n) + 0.5) / n) for n in (height, width))
    strength = normal(f"{tag}/cos", (3, 8, 8), INPUTS) * damp
    terms = strength[:, :, :, None, None] * rows[None, :, None, :, None] * columns[None, None, :, None, :]
    smooth = terms.sum((1, 2))
    noise = 0.03 * normal(f"{tag}/noise", (3, height, width), INPUTS)
    return np.clip(0.9 * smooth / np.abs(smooth).max() + noise, -1.0, 1.0).astype(np.float32)


def synthetic_pca(count: int = 80) -> dict[str, Tensor]:
    """Return a stand-in for GANSpace's components: `comp`, unit rows, with their `mean` and `std`."""
    std = 0.5 + np.abs(normal("pca.std", (count,), INPUTS))
    return {
        "comp": direction("pca.comp", (count, 1, 512)),
        "mean": vector("pca.mean", (1, 512), 0.3),
        "std": torch.from_numpy(std.astype(np.float32)),
    }
