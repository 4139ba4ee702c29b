"""A StyleGAN2 generator from a pickle of NVIDIA's repositories, in this project's layout.

The PyTorch repositories (StyleGAN2-ADA, StyleGAN3) store it alike (arXiv 1912.04958, 2006.06676), and what
the TensorFlow one stores is first brought to that. The arithmetic is the same up to names: the `conv_clamp`
that guards their half precision has no counterpart, and matters only where an activation exceeds it.
"""

import re
from typing import Any

import torch
from torch import Tensor

from clcae_lib.formats._errors import FormatError
from clcae_lib.formats._nvidia import Module
from clcae_lib.formats._stored import require_finite, walk
from clcae_lib.formats._tensorflow import as_pytorch
from clcae_lib.formats.shapes import require_layout
from clcae_lib.models._ops import make_kernel
from clcae_lib.models.stylegan2 import Generator

_TAPS = (1, 3, 3, 1)
_LAST = {"affine.weight": "conv.modulation.weight", "affine.bias": "conv.modulation.bias"}
_CONV = {"weight": "conv.weight", "bias": "activate.bias", "noise_strength": "noise.weight", **_LAST}
_RGB = {"weight": "conv.weight", "bias": "bias", **_LAST}


def is_stylegan3(network: Module) -> bool:
    """Whether it is a generator of StyleGAN3 (alias-free), whose synthesis starts from Fourier features."""
    return any(name.startswith("synthesis.input.") for name, _ in walk(network))


def find_generator(tree: Any) -> Module:
    """The averaged generator of a snapshot, or the only one it has.

    Raises:
        FormatError: there is none.
    """
    if isinstance(tree, dict):
        for name in ("G_ema", "Gs", "G"):
            if isinstance(tree.get(name), Module):
                return tree[name]
    raise FormatError("has no generator (G_ema) of NVIDIA's; give a network snapshot")


def is_legacy(network: Module) -> bool:
    """Whether it is a generator of the TensorFlow code."""
    return "dlatent_avg" in network.children


def facts(network: Module) -> dict[str, Any]:
    """The settings of a generator that its pickle states, of those that say what it is."""
    mapping = network.children.get("mapping")
    names = ("img_resolution", "z_dim", "w_dim", "c_dim", "img_channels")
    found = {name: network.settings.get(name) for name in names}
    if is_legacy(network):
        found |= {"img_resolution": network.settings.get("resolution"), "w_dim": _legacy_w_dim(network)}
    if isinstance(mapping, Module):
        found["mapping_layers"] = mapping.settings.get("num_layers")
    if isinstance(synthesis := network.children.get("synthesis"), Module):
        layers = [child for child in synthesis.children.values() if isinstance(child, Module)]
        found["conv_clamp"] = next((layer.settings.get("conv_clamp") for layer in layers), None)
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _legacy_w_dim(network: Module) -> int | None:
    shape = getattr(network.children["dlatent_avg"], "shape", ())
    return shape[0] if shape else None


def to_generator(network: Module) -> Generator:
    """The generator with its `w_avg`, and `w_std` measured.

    Raises:
        FormatError: it is another network, conditional, or of another architecture.
    """
    tensors = _tensors(network)
    _require_supported(network, tensors)
    sides = sorted({int(found[1]) for name in tensors if (found := re.match(r"synthesis\.b(\d+)\.", name))})
    layers = [name for name in tensors if re.fullmatch(r"mapping\.fc\d+\.weight", name)]
    generator = Generator(
        sides[-1],
        tensors["mapping.w_avg"].shape[0],
        len(layers),
        channels={side: tensors[f"synthesis.b{side}.conv1.weight"].shape[0] for side in sides},
        lr_mlp=_mapping_rate(network),
    )
    renamed = rename(tensors)
    require_finite(renamed)
    w_avg = renamed.pop("w_avg")
    kernels = {name: value for name, value in generator.state_dict().items() if name.endswith(".kernel")}
    require_layout(generator, renamed | kernels)
    generator.load_state_dict(renamed | kernels)
    generator.requires_grad_(False).eval().measure_w()
    generator.w_avg.copy_(w_avg)
    return generator


def _tensors(network: Module) -> dict[str, Tensor]:
    """A generator's tensors under the names of NVIDIA's PyTorch code, in float32."""
    stored = dict(walk(network))
    loaded = as_pytorch(stored) if is_legacy(network) else {name: t.load() for name, t in stored.items()}
    return {name: tensor.float() for name, tensor in loaded.items()}


def _mapping_rate(network: Module) -> float:
    """The learning-rate multiplier of the mapping network, which is the gain of its biases."""
    if is_legacy(network):
        return float(network.settings.get("mapping_lrmul", 0.01))
    return float(network.at("mapping", "fc0").settings.get("bias_gain", 0.01))


def rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A generator's tensors under the names, and in the shapes, of this project's.

    Raises:
        FormatError: a low-pass filter is not the usual one.
    """
    renamed = {}
    for name, tensor in tensors.items():
        if name.endswith(".resample_filter"):
            if not torch.allclose(tensor, make_kernel(_TAPS), atol=1e-6):
                raise FormatError(
                    f"has a low-pass filter other than {list(_TAPS)} ({name}); it is not converted"
                )
            continue
        new, shape = _place(name, tensor)
        renamed[new] = tensor.reshape(shape)
    return renamed


def _place(name: str, tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    """The new name and shape of a tensor; a name without one stays, and is then reported as unexpected."""
    shape = tuple(tensor.shape)
    if name == "mapping.w_avg":
        return "w_avg", shape
    if found := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
        return f"style.{int(found[1]) + 1}.{found[2]}", shape
    if name == "synthesis.b4.const":
        return "input.input", (1, *shape)
    if found := re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name):
        return _place_layer(int(found[1]), found[2], found[3], shape)
    return name, shape


def _place_layer(side: int, layer: str, rest: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    block = side.bit_length() - 4  # 0 at 8 pixels
    index = 2 * block + int(layer == "conv1")
    if rest == "noise_const":
        return f"noises.noise_{index + 1 if side > 4 else 0}", (1, 1, *shape)
    if layer == "torgb":
        owner, table = ("to_rgb1" if side == 4 else f"to_rgbs.{block}"), _RGB
    else:
        owner, table = ("conv1" if side == 4 else f"convs.{index}"), _CONV
    if rest == "weight":
        shape = (1, *shape)
    elif rest == "noise_strength":
        shape = (1,)
    elif layer == "torgb" and rest == "bias":
        shape = (1, *shape, 1, 1)
    return f"{owner}.{table.get(rest, rest)}", shape


def _require_supported(network: Module, tensors: dict[str, Tensor]) -> None:
    """Refuse what the project's generator cannot be.

    Raises:
        FormatError: saying what it is.
    """
    if is_stylegan3(network):
        raise FormatError("holds a StyleGAN3 generator; only StyleGAN2 is converted, give a StyleGAN2 pickle")
    if not {"mapping.w_avg", "mapping.fc0.weight", "synthesis.b4.const"} <= tensors.keys():
        raise FormatError("holds a network that is no StyleGAN2 generator; give a StyleGAN2 pickle")
    if "mapping.embed.weight" in tensors or network.settings.get("c_dim"):
        raise FormatError("holds a conditional generator (c_dim > 0); only unconditional ones are converted")
    if tensors["mapping.fc0.weight"].shape != 2 * tensors["mapping.w_avg"].shape:
        raise FormatError("holds a generator whose z and w differ in length; only equal ones are converted")
    if is_legacy(network):
        return
    blocks = network.at("synthesis").children.items()
    kinds = {block.settings.get("architecture", "skip") for _, block in blocks if isinstance(block, Module)}
    if kinds - {"skip"}:
        raise FormatError(
            f"holds a generator of architecture {sorted(map(str, kinds))}; only 'skip' is converted"
        )
    missing = [n for n, b in blocks if isinstance(b, Module) and not {"conv1", "torgb"} <= b.children.keys()]
    if missing:
        raise FormatError(f"holds a generator whose {missing[0]} lacks a layer; give a StyleGAN2 pickle")
