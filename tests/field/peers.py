"""Checkpoints of pSp, e4e, ReStyle and HFGI: their layout, and their arithmetic written out once more.

The arithmetic is a plain function of a state dict, made after the published descriptions; it shares no code
with the library.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from clcae_lib.models import PublishedHfgi, PublishedPeer
from tests.conformance.fill import fill, weight
from tests.field.inputs import DIM, MEAN, State, state

WIDTHS, UNITS = (4, 4, 6, 7, DIM), (1, 2, 1, 1)
SIDE = 64
ENCODERS = {  # the class that opts names; images joined, pyramid, residual
    "psp": ("GradualStyleEncoder", 1, True, False),
    "e4e": ("Encoder4Editing", 1, True, True),
    "restyle_psp": ("BackboneEncoder", 2, False, False),
    "restyle_e4e": ("ProgressiveBackboneEncoder", 2, False, True),
}
STEM = {"conv1": "input_layer.0", "bn1": "input_layer.1", "relu": "input_layer.2"}  # a ResNet's names


def encoder(method: str, backbone: str = "irse") -> PublishedPeer:
    _, joined, pyramid, residual = ENCODERS[method]
    options = {"joined": joined, "pyramid": pyramid, "residual": residual, "resnet": backbone == "resnet"}
    network = PublishedPeer(SIDE, style_dim=DIM, widths=WIDTHS, units=UNITS, **options)
    for name, tensor in network.state_dict().items():
        if name != "w_avg" and (values := weight(name, tuple(tensor.shape))) is not None:
            tensor.copy_(torch.from_numpy(values))
    return network.eval()


def branch() -> State:
    """HFGI's alignment and consultation."""
    small = PublishedHfgi(SIDE, feature_channels=6, style_dim=DIM, widths=WIDTHS, units=UNITS)
    small.base = torch.nn.Identity()
    return fill(small).state_dict()


def checkpoint(
    path: Path, method: str, generator, *, hfgi: str = "", backbone: str = "irse", data: str = "ffhq_encode"
) -> Path:
    """A checkpoint as the training codes write it; `hfgi` is "whole", or "cut" without the alignment."""
    tensors = {f"encoder.{n}": t for n, t in encoder(method, backbone).state_dict().items() if n != "w_avg"}
    if backbone == "resnet":
        for own, ours in STEM.items():
            tensors = {n.replace(f"encoder.{ours}", f"encoder.{own}"): t for n, t in tensors.items()}
    if backbone == "other":
        tensors = {n: t for n, t in tensors.items() if ".body." not in n}
    if hfgi:
        tensors |= {n: t for n, t in branch().items() if hfgi == "whole" or n.startswith("residue.")}
    tensors |= state(generator, prefix="decoder.")
    name = ENCODERS[method][0]
    if backbone == "resnet":
        name, data = f"ResNet{name}", "church_encode"
    options = {"encoder_type": name, "stylegan_size": SIDE, "dataset_type": data}
    content = {"state_dict": tensors, "latent_avg": MEAN.repeat(10, 1), "opts": options}
    torch.save(content, path)
    return path


def published(tensors: State, images: torch.Tensor, *, residual: bool) -> torch.Tensor:
    """The offsets of W+ from the mean code, `[N, L, D]`, by the published arithmetic."""

    def norm(x, name):
        stats = (tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *stats)

    def basic(x, name, stride):
        short = x
        if f"{name}.downsample.0.weight" in tensors:
            short = F.conv2d(x, tensors[f"{name}.downsample.0.weight"], stride=stride)
            short = norm(short, f"{name}.downsample.1")
        y = F.conv2d(x, tensors[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = F.conv2d(F.relu(norm(y, f"{name}.bn1")), tensors[f"{name}.conv2.weight"], padding=1)
        return F.relu(norm(y, f"{name}.bn2") + short)

    def unit(x, name, stride):
        short = x[:, :, ::stride, ::stride]
        if f"{name}.shortcut_layer.0.weight" in tensors:
            short = norm(
                F.conv2d(short, tensors[f"{name}.shortcut_layer.0.weight"]), f"{name}.shortcut_layer.1"
            )
        y = F.conv2d(norm(x, f"{name}.res_layer.0"), tensors[f"{name}.res_layer.1.weight"], padding=1)
        y = F.prelu(y, tensors[f"{name}.res_layer.2.weight"])
        y = F.conv2d(y, tensors[f"{name}.res_layer.3.weight"], stride=stride, padding=1)
        y = norm(y, f"{name}.res_layer.4")
        gate = F.relu(F.conv2d(F.adaptive_avg_pool2d(y, 1), tensors[f"{name}.res_layer.5.fc1.weight"]))
        return short + y * F.conv2d(gate, tensors[f"{name}.res_layer.5.fc2.weight"]).sigmoid()

    def style(x, k):
        for index in range(sum(n.startswith(f"styles.{k}.convs.") and n.endswith("weight") for n in tensors)):
            name = f"styles.{k}.convs.{2 * index}"
            x = F.leaky_relu(F.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], 2, 1), 0.01)
        weight = tensors[f"styles.{k}.linear.weight"]
        return F.linear(x.flatten(1), weight / weight.shape[1] ** 0.5, tensors[f"styles.{k}.linear.bias"])

    def joined(small, large, name):
        large = F.conv2d(large, tensors[f"{name}.weight"], tensors[f"{name}.bias"])
        return F.interpolate(small, large.shape[-2:], mode="bilinear", align_corners=True) + large

    resnet = "body.0.conv1.weight" in tensors
    stem = {"stride": 2, "padding": 3} if resnet else {"padding": 1}
    x = norm(F.conv2d(images, tensors["input_layer.0.weight"], **stem), "input_layer.1")
    x, maps, index = F.prelu(x, tensors["input_layer.2.weight"]), [], 0
    for stage, count in enumerate(UNITS):
        for number in range(count):
            if resnet:
                x = basic(x, f"body.{index}", 1 if number or not stage else 2)
            else:
                x = unit(x, f"body.{index}", 1 if number else 2)
            index += 1
        maps.append(x)
    _, c1, c2, c3 = maps
    levels = [c3, c3, c3]
    if "latlayer1.weight" in tensors:
        levels[1] = joined(c3, c2, "latlayer1")
        levels[2] = joined(levels[1], c1, "latlayer2")
    rows = [style(levels[0 if k < 3 else 1 if k < 7 else 2], k) for k in range(10)]
    return torch.stack([rows[0], *(rows[0] + row for row in rows[1:])] if residual else rows, dim=1)


def consulted(tensors: State, lost: torch.Tensor, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """HFGI's scale and shift of the activation, by the published arithmetic."""

    def norm(x, name):
        stats = (tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *stats)

    def stem(x, name):
        x = norm(F.conv2d(x, tensors[f"{name}.0.weight"], padding=1), f"{name}.1")
        return F.prelu(x, tensors[f"{name}.2.weight"])

    def units(x, name, stride=1):
        for number in range(3):
            unit, step = f"{name}.{number}", 1 if number else stride
            short = x[:, :, ::step, ::step]
            if f"{unit}.shortcut_layer.0.weight" in tensors:
                short = F.conv2d(short, tensors[f"{unit}.shortcut_layer.0.weight"])
                short = norm(short, f"{unit}.shortcut_layer.1")
            y = F.conv2d(norm(x, f"{unit}.res_layer.0"), tensors[f"{unit}.res_layer.1.weight"], padding=1)
            y = F.prelu(y, tensors[f"{unit}.res_layer.2.weight"])
            y = F.conv2d(y, tensors[f"{unit}.res_layer.3.weight"], stride=step, padding=1)
            x = short + norm(y, f"{unit}.res_layer.4")
        return x

    def back(x, skip, name):
        return units(torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), skip], dim=1), name)

    def condition(x, name):
        for number, slope in ((0, 0.2), (2, 1.0)):
            weight = tensors[f"{name}.{number}.weight"]
            y = F.conv2d(x, weight / weight[0].numel() ** 0.5, tensors[f"{name}.{number}.bias"], padding=1)
            x = F.leaky_relu(y, slope) * (2**0.5 if number == 0 else 1)
        return x

    x1 = stem(torch.cat([lost, image], dim=1), "grid_align.conv_layer1")
    x2 = units(x1, "grid_align.conv_layer2", 2)
    x3 = units(x2, "grid_align.conv_layer3", 2)
    x = back(units(x3, "grid_align.conv_layer4", 2), x3, "grid_align.dconv_layer1")
    x = back(back(x, x2, "grid_align.dconv_layer2"), x1, "grid_align.dconv_layer3")
    x = stem(x, "residue.conv_layer1")
    x = units(units(x, "residue.conv_layer2", 2), "residue.conv_layer3", 2)
    return condition(x, "residue.condition_scale3"), condition(x, "residue.condition_shift3")
