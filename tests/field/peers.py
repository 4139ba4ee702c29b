"""Checkpoints of pSp, e4e, ReStyle and HFGI: their layout, and their arithmetic written out once more.

The arithmetic is a plain function of a state dict, made after the published descriptions; it shares no code
with the library.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from clcae_lib.models import PublishedPeer
from tests.conformance.fill import weight
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


def checkpoint(path: Path, method: str, generator, *, hfgi: bool = False, backbone: str = "irse") -> Path:
    """A checkpoint as the training codes write it."""
    tensors = {f"encoder.{n}": t for n, t in encoder(method, backbone).state_dict().items() if n != "w_avg"}
    if backbone == "resnet":
        for own, ours in STEM.items():
            tensors = {n.replace(f"encoder.{ours}", f"encoder.{own}"): t for n, t in tensors.items()}
    if backbone == "other":
        tensors = {n: t for n, t in tensors.items() if ".body." not in n}
    if hfgi:
        tensors |= {"residue.conv_layer1.0.weight": torch.zeros(2, 3, 3, 3), "grid_align.x": torch.zeros(1)}
    tensors |= state(generator, prefix="decoder.")
    name, data = ENCODERS[method][0], "ffhq_encode"
    if backbone == "resnet":
        name, data = f"ResNet{name}", "church_encode"
    options = {"encoder_type": name, "stylegan_size": SIDE, "dataset_type": data}
    content = {"state_dict": tensors, "latent_avg": MEAN.repeat(10, 1), "opts": {} if hfgi else options}
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
