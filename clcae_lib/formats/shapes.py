"""The constructor's arguments of a network, from the shapes of its tensors.

No width is assumed: a smaller network of the same layout is understood just so.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from clcae_lib.formats._errors import FormatError
from clcae_lib.formats._stored import Stored

Tensors = Mapping[str, Stored]
Facts = dict[str, Any]


def generator_config(tensors: Tensors) -> Facts:
    """The arguments of `Generator` for tensors of the PyTorch layout.

    Raises:
        FormatError: the layers do not form a StyleGAN2 generator.
    """
    blocks = sum(bool(re.fullmatch(r"to_rgbs\.\d+\.bias", name)) for name in tensors)
    convs = [tensors.get(f"convs.{2 * i}.conv.weight") for i in range(blocks)]
    if not blocks or any(conv is None or len(conv.shape) != 5 for conv in convs):
        raise FormatError("has layers of a generator that do not belong together; fetch it again")
    widths = [tensors["input.input"].shape[1], *(conv.shape[1] for conv in convs if conv is not None)]
    return {
        "size": 4 << blocks,
        "style_dim": tensors["style.1.weight"].shape[0],
        "n_mlp": sum(bool(re.fullmatch(r"style\.\d+\.weight", name)) for name in tensors),
        "channels": {4 << i: width for i, width in enumerate(widths)},
    }


def encoder_config(tensors: Tensors) -> Facts:
    """The arguments of `PublishedEncoder` for the tensors under `encoder.` of an inversion checkpoint.

    Raises:
        FormatError: the layers do not form such an encoder.
    """
    rows = sum(bool(re.fullmatch(r"cross_attention\.\d+\.norm1\.weight", name)) for name in tensors)
    content = [t for n, t in tensors.items() if re.fullmatch(r"content_layer\.convs\.\d+\.weight", n)]
    hidden = tensors.get("feature_cross_attention.linear1.weight")
    if rows % 2 or not content or hidden is None:
        raise FormatError("has layers of an inversion encoder that do not belong together; fetch it again")
    return {
        "resolution": 1 << (rows + 2) // 2,
        "style_dim": tensors["styles.0.linear.weight"].shape[0],
        "feature_channels": content[-1].shape[0],
        **body_config(tensors),
        "style_hidden": tensors["styles.0.convs.0.weight"].shape[0],
        "hidden": hidden.shape[0],
    }


def body_config(tensors: Tensors) -> Facts:
    """The widths and units of an IR-SE body: a stage begins where the width changes.

    Raises:
        FormatError: neighbouring stages have the same width, so that they cannot be told apart.
    """
    count = sum(bool(re.fullmatch(r"body\.\d+\.res_layer\.1\.weight", name)) for name in tensors)
    convs = [tensors.get(f"body.{i}.res_layer.1.weight") for i in range(count)]
    widths = [tensors["input_layer.0.weight"].shape[0]]
    starts = []
    for index, conv in enumerate(convs):
        outputs = conv.shape[0] if conv is not None else 0
        if index == 0 or outputs != widths[-1]:
            starts.append(index)
            widths.append(outputs)
    units = [end - start for start, end in zip(starts, [*starts[1:], count], strict=True)]
    if len(units) != 4:
        raise FormatError(f"has a body of {len(units)} stages of different width, where 4 are expected")
    return {"widths": widths, "units": units}


def under(tensors: Tensors, prefix: str) -> dict[str, Stored]:
    """The tensors under a prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def require_layout(network: nn.Module, tensors: Mapping[str, Any]) -> None:
    """Compare names and shapes with those of a network, so that it will take them.

    Raises:
        FormatError: listing what differs.
    """
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    differing = sorted(name for name in own.keys() | found.keys() if own.get(name) != found.get(name))
    if differing:
        lines = [
            f"{n}: {_shape(found.get(n))} in the file, {_shape(own.get(n))} expected" for n in differing[:8]
        ]
        raise FormatError(f"has {len(differing)} tensor(s) that do not fit its kind: {'; '.join(lines)}")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))
