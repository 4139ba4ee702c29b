"""Rename the tensors of a StyleGAN2 generator of NVIDIA's repositories to this project's names.

The PyTorch repositories (StyleGAN2-ADA, StyleGAN3) store it in the same way (arXiv 1912.04958, 2006.06676).
The arithmetic is the same, except for `conv_clamp`, which limits activations in half precision and has no
counterpart here. The TensorFlow code stores weights with the output channels last, kernels of upsampling
convolutions rotated by 180 degrees, and biases of modulations without the 1 that it adds.
"""

import re
from typing import Any

import torch
from torch import Tensor

from clcae_lib.models import make_kernel
from clcae_lib.weights._inert import Module
from clcae_lib.weights._pickle import walk
from clcae_lib.weights.checkpoints import WeightsError

_TAPS = (1, 3, 3, 1)
_NAMES = {
    **{"bias": "activate.bias", "weight": "conv.weight", "noise_strength": "noise.weight"},
    **{"affine.weight": "conv.modulation.weight", "affine.bias": "conv.modulation.bias"},
}
_TENSORFLOW_LAYERS = {"Conv0_up": "conv0", "Conv1": "conv1", "Conv": "conv1", "ToRGB": "torgb"}
_TENSORFLOW_NAMES = {"mod_weight": "affine.weight", "mod_bias": "affine.bias"}


def find_generator(tree: Any) -> Module | None:
    """Return a snapshot's generator with EMA weights, else its only generator, else the file's network."""
    found = [tree.get(name) for name in ("G_ema", "Gs", "G")] if isinstance(tree, dict) else [tree]
    return next((network for network in found if isinstance(network, Module)), None)


def family(network: Module) -> str:
    """Return "stylegan3" if synthesis starts from Fourier features, "tensorflow" or "stylegan2"."""
    if "input" in _child(network, "synthesis").children:
        return "stylegan3"
    return "tensorflow" if "dlatent_avg" in network.children else "stylegan2"


def _child(network: Module, *names: str) -> Module:
    for name in names:
        child = network.children.get(name)
        network = child if isinstance(child, Module) else Module()
    return network


def facts(network: Module) -> dict[str, Any]:
    """Return the sizes of a generator that are in its file."""
    names = ("img_resolution", "z_dim", "w_dim", "c_dim", "img_channels")
    found = {name: network.settings.get(name) for name in names}
    if family(network) == "tensorflow":
        shape = getattr(network.children["dlatent_avg"], "shape", None) or (None,)
        found |= {"img_resolution": network.settings.get("resolution"), "w_dim": shape[0]}
    found["mapping_layers"] = _child(network, "mapping").settings.get("num_layers")
    layers = [layer for layer in _child(network, "synthesis").children.values() if isinstance(layer, Module)]
    found["conv_clamp"] = next((layer.settings.get("conv_clamp") for layer in layers), None)
    return {name: value for name, value in found.items() if isinstance(value, int)}


def mapping_rate(network: Module) -> float:
    """Return the learning-rate multiplier of the mapping network, which is the gain of its biases."""
    if family(network) == "tensorflow":
        return float(network.settings.get("mapping_lrmul", 0.01))
    return float(_child(network, "mapping", "fc0").settings.get("bias_gain", 0.01))


def generator_tensors(network: Module) -> dict[str, Tensor]:
    """Return a generator's tensors, including `w_avg`, with this project's names and shapes.

    A tensor without a counterpart keeps its name, and is then reported as unexpected.

    Raises:
        WeightsError: it is another network, conditional, or of another architecture.
    """
    tensors = {name: view.tensor() for name, view in walk(network)}
    if family(network) == "tensorflow":
        tensors = _from_tensorflow(tensors)
    _require_supported(network, tensors)
    renamed = {}
    for name, tensor in tensors.items():
        if name.endswith(".resample_filter"):
            if not torch.allclose(tensor.float(), make_kernel(_TAPS), atol=1e-6):
                raise WeightsError(
                    f"has a low-pass filter other than {list(_TAPS)} ({name}); it is not converted"
                )
            continue
        new, shape = _place(name, tensor)
        renamed[new] = tensor.reshape(shape)
    for index in range(sum(bool(re.fullmatch(r"to_rgbs\.\d+\.bias", name)) for name in renamed)):
        for owner in (f"convs.{2 * index}.conv.blur", f"to_rgbs.{index}.upsample"):
            renamed[f"{owner}.kernel"] = make_kernel(_TAPS, gain=4.0)
    return renamed


def _place(name: str, tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    """Return the new name and shape of a tensor."""
    shape = tuple(tensor.shape)
    if name == "mapping.w_avg":
        return "w_avg", shape
    if name == "synthesis.b4.const":
        return "input.input", (1, *shape)
    if found := re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", name):
        return f"style.{int(found[1]) + 1}.{found[2]}", shape
    found = re.fullmatch(r"synthesis\.b(\d+)\.(conv0|conv1|torgb)\.(.+)", name)
    if found is None:
        return name, shape
    side, layer, rest = int(found[1]), found[2], found[3]
    block = side.bit_length() - 4  # 0 at 8 pixels
    index = 2 * block + (layer == "conv1")
    if rest == "noise_const":
        return f"noises.noise_{index + 1}", (1, 1, *shape)
    own = {"weight": (1, *shape), "noise_strength": (1,)}.get(rest, shape)
    if layer != "torgb":
        return ("conv1" if side == 4 else f"convs.{index}") + f".{_NAMES.get(rest, rest)}", own
    owner = "to_rgb1" if side == 4 else f"to_rgbs.{block}"
    if rest == "bias":
        return f"{owner}.bias", (1, *shape, 1, 1)
    return f"{owner}.{_NAMES.get(rest, rest)}", own


def _from_tensorflow(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a generator's arrays with the names and layout of NVIDIA's PyTorch code."""
    tensors = {}
    for name, array in arrays.items():
        if name == "dlatent_avg":
            tensors["mapping.w_avg"] = array
        elif name == "synthesis.4x4/Const/const":
            tensors["synthesis.b4.const"] = array[0]
        elif name == "mapping.LabelConcat/weight":
            tensors["mapping.embed.weight"] = array
        elif found := re.fullmatch(r"mapping\.Dense(\d+)/(weight|bias)", name):
            tensors[f"mapping.fc{found[1]}.{found[2]}"] = array.T if array.ndim == 2 else array
        elif found := re.fullmatch(r"synthesis\.noise(\d+)", name):
            number = int(found[1])  # 0 at 4 pixels, 1 and 2 at 8
            layer = f"b{4 << (number + 1) // 2}.conv{1 - number % 2}"
            tensors[f"synthesis.{layer}.noise_const"] = array[0, 0]
        elif found := re.fullmatch(r"synthesis\.(\d+)x\1/(Conv0_up|Conv1|Conv|ToRGB)/(\w+)", name):
            layer, rest = _TENSORFLOW_LAYERS[found[2]], _TENSORFLOW_NAMES.get(found[3], found[3])
            tensors[f"synthesis.b{found[1]}.{layer}.{rest}"] = _turned(array, layer, rest)
        elif "/" in name:
            tensors[name] = array
    return tensors


def _turned(array: Tensor, layer: str, rest: str) -> Tensor:
    if rest == "weight":
        array = array.flip(0, 1) if layer == "conv0" else array
        return array.permute(3, 2, 0, 1)
    if rest == "affine.weight":
        return array.T
    return array + 1 if rest == "affine.bias" else array


def _require_supported(network: Module, tensors: dict[str, Tensor]) -> None:
    """Raise an error for kinds of generators that this project does not have; the message names the kind."""
    if family(network) == "stylegan3":
        raise WeightsError(
            "holds a StyleGAN3 generator; only StyleGAN2 is converted, give a StyleGAN2 pickle"
        )
    if not {"mapping.w_avg", "mapping.fc0.weight", "synthesis.b4.const"} <= tensors.keys():
        raise WeightsError("holds a network that is not a StyleGAN2 generator; give a StyleGAN2 pickle")
    if "mapping.embed.weight" in tensors or network.settings.get("c_dim"):
        raise WeightsError("holds a conditional generator (c_dim > 0); only unconditional ones are converted")
    if tensors["mapping.fc0.weight"].shape != 2 * tensors["mapping.w_avg"].shape:
        raise WeightsError("holds a generator whose z and w differ in length; only equal ones are converted")
    blocks = [b for b in _child(network, "synthesis").children.values() if isinstance(b, Module)]
    kinds = {block.settings.get("architecture", "skip") for block in blocks} - {"skip"}
    if kinds:
        raise WeightsError(
            f"holds a generator of architecture {sorted(map(str, kinds))}; only 'skip' is converted"
        )
