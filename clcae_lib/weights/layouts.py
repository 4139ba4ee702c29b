"""Recognise a weights file by its metadata or by the names of its tensors, and read its sizes.

The official layouts are those that the published code reads (arXiv 2211.11448 and the projects it builds on).
Widths do not matter: a smaller network of the same layout is recognised too.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from clcae_lib.weights import nvidia
from clcae_lib.weights._inert import Record
from clcae_lib.weights.checkpoints import WeightsError
from clcae_lib.weights.read import Contents, naming

Tensors = Mapping[str, Tensor]
Facts = dict[str, Any]

_WORLD = "a world's generator (`clcae world add`); `clcae convert` writes data/WORLD/generator.safetensors"
_ALIGNMENT = "the alignment term of preset published"
_SAFE = "; `clcae convert` writes safetensors"
_EDITS = "edits (`load_directions`), the explorer's sliders" + _SAFE
_LPIPS = "nothing: the lpips package contains its heads, the trunk is torchvision's AlexNet"


class Kind(NamedTuple):
    """A kind of file: its title, its use, and the tensor names that identify it."""

    title: str
    fits: str
    needs: str = ""


#: The official kinds; the first one whose tensors are all in the file is chosen.
KINDS: dict[str, Kind] = {
    "inversion_checkpoint": Kind(
        "CLCAE inversion checkpoint (encoder and generator)",
        "`clcae invert` with preset published; `clcae convert` extracts the encoder, or with --part the "
        "generator",
        "encoder.input_layer.0.weight encoder.styles_others.0.linear.weight decoder.input.input",
    ),
    "peer_checkpoint": Kind(
        "checkpoint of pSp, e4e, ReStyle or HFGI (encoder and StyleGAN2 generator)",
        "a world's generator (`clcae world add`), and with that world `clcae invert --method NAME --weights "
        "FILE`; `clcae convert` extracts the encoder, or with --part the generator",
        "encoder.styles.0.linear.weight encoder.styles.0.convs.0.weight decoder.input.input",
    ),
    "generator": Kind(
        "StyleGAN2 generator in the PyTorch (rosinality) layout",
        _WORLD,
        "input.input conv1.conv.weight to_rgb1.bias style.1.weight",
    ),
    "contrastive_image": Kind(
        "CLCAE contrastive image encoder",
        _ALIGNMENT + _SAFE,
        "logit_scale encoder.input_layer.0.weight image_projection.lin1.weight",
    ),
    "contrastive_latent": Kind(
        "CLCAE contrastive latent encoder",
        _ALIGNMENT + _SAFE,
        "pos_embedding coarse.self_attn.in_proj_weight latent_projection.lin1.weight",
    ),
    "arcface": Kind(
        "IR-SE50 face identity network (ArcFace)",
        "the identity loss of faces (`clcae train inversion`, world ffhq)" + _SAFE,
        "input_layer.0.weight body.0.res_layer.5.fc1.weight output_layer.3.weight",
    ),
    "curricularface": Kind(
        "CurricularFace backbone (IR, without squeeze-and-excitation)",
        "measures of identity only; it is not converted",
        "input_layer.0.weight body.0.res_layer.1.weight output_layer.3.weight",
    ),
    "moco": Kind(
        "MoCo v2 ResNet-50",
        "the identity loss of worlds without faces (cars)" + _SAFE,
        "encoder_q.conv1.weight encoder_q.layer1.0.conv1.weight encoder_q.layer4.0.conv1.weight",
    ),
    "alexnet": Kind(
        "AlexNet of torchvision (the trunk of LPIPS)",
        "LPIPS, unchanged: put it into data/networks/ under torchvision's name",
        "features.0.weight features.3.weight features.10.weight classifier.1.weight",
    ),
    "lpips": Kind("LPIPS with AlexNet", _LPIPS, "net.layers.0.weight lin.0.1.weight"),
    "lpips_heads": Kind("LPIPS linear heads", _LPIPS, "lin0.model.1.weight lin4.model.1.weight"),
    "nvidia": Kind("NVIDIA StyleGAN2 snapshot", _WORLD),
    "nvidia_tensorflow": Kind("NVIDIA StyleGAN2 snapshot of the TensorFlow code", _WORLD),
    "nvidia_stylegan3": Kind("NVIDIA StyleGAN3 snapshot", "nothing here: only StyleGAN2 is inverted"),
    "direction": Kind("file of directions (InterFaceGAN's layout)", _EDITS),
    "sefa": Kind("SeFa factors (closed-form factorisation)", _EDITS),
    "components": Kind("GANSpace components", "edits (`load_ganspace`), the explorer's sliders" + _SAFE),
    "training": Kind("state of an unfinished training", "the command that wrote it, to resume"),
    "unknown": Kind("unknown", "nothing in this project"),
}
#: The use of this project's files, by the kind in their metadata.
OWN = {
    "generator": "a world's generator (`load_generator`)",
    "inversion": "`clcae invert`, notebooks (`load_encoder`)",
    "peer": "`clcae invert --method METHOD --weights FILE`, notebooks",
    "alignment": "training an inversion, retrieval (`load_alignment`)",
    "feature_editor": "carrying F along edits (`ClcaeInverter.load`)",
    "directions": "edits (`load_directions`)",
    "components": "edits (`load_ganspace`)",
    "inversion codes": "the explorer's and `clcae invert`'s codes",
    **{name: f"a rendered world, as its {name} network" for name in ("oracle", "identity", "perceptual")},
    **dict.fromkeys(("contrastive_image", "contrastive_latent"), _ALIGNMENT),
    "arcface": "the identity loss of faces",
    "moco": "the identity loss of worlds without faces",
}


#: Names of mean, components and deviations: in published files, and in the cache of GANSpace's code.
_COMPONENTS = (("mean", "comp", "std"), ("lat_mean", "lat_comp", "lat_stdev"))
_DOMAINS = {"car": "cars", "ffhq": "faces", "celeb": "faces", "face": "faces"}
"""Domain of a data set by a part of its name in the official training code."""
_EIGENVECTORS = 20
"""Number of eigenvectors of a SeFa file that become directions, the most amplified first."""
HFGI = ("residue.", "grid_align.")
"""Prefixes of the tensors of the consultation branch in an HFGI checkpoint."""
_BRANCH = ("residue.condition_scale3.2.weight", "grid_align.conv_layer1.0.weight")
_LAYERS = range(4, 21, 2)
"""Numbers of rows of W+ of generators of 8 to 2048 pixels."""


@dataclass(frozen=True)
class Recognised:
    """A file's kind with its sizes.

    Attributes:
        kind: key of `KINDS`, or "own:" and the kind in the metadata of this project's file.
        tensors: tensors of the network, by their official names without wrappers; empty for a snapshot.
        facts: `resolution`, `style_dim`, `config` and others, if the kind has them.
    """

    kind: str
    tensors: Tensors = field(default_factory=dict, repr=False)
    facts: Facts = field(default_factory=dict)

    @property
    def about(self) -> Kind:
        """The kind's title, for people, and the commands and functions that use the file."""
        own = self.kind.removeprefix("own:")
        ours = Kind(f"this project's weights of kind {own!r}", OWN.get(own, "the program that wrote it"))
        return KINDS.get(self.kind, ours)


def recognise(contents: Contents) -> Recognised:
    """Return the kind of a file; "unknown" if nothing fits.

    Raises:
        WeightsError: it has the tensor names of a kind, but tensors that do not belong together.
    """
    attempts = (_own, _snapshot, find_network, _training, _edit)
    with naming(contents.path):
        found = (attempt(contents) for attempt in attempts)
        return next((kind for kind in found if kind is not None), Recognised("unknown"))


def _own(contents: Contents) -> Recognised | None:
    stated = contents.metadata
    if stated.get("kind") is None:
        return None
    config = stated["config"] if isinstance(stated.get("config"), dict) else {}
    sizes = {"resolution": config.get("resolution", config.get("size")), "style_dim": config.get("style_dim")}
    facts = {"config": config, "preset": stated.get("preset"), **sizes}
    kind = f"own:{str(stated['kind'])[:80]}"
    return Recognised(kind, contents.tensors, {k: v for k, v in facts.items() if v})


def _snapshot(contents: Contents) -> Recognised | None:
    network = nvidia.find_generator(contents.tree)
    if network is None:
        return None
    facts, family = nvidia.facts(network), nvidia.family(network)
    sizes = {"resolution": facts.get("img_resolution"), "style_dim": facts.get("w_dim"), "config": facts}
    return Recognised("nvidia" if family == "stylegan2" else f"nvidia_{family}", {}, sizes)


def find_network(contents: Contents) -> Recognised | None:
    """Return the network of an official layout, found by tensor names; None if there is none.

    State dicts may be nested in any way and have any prefix, such as that of DataParallel. Of several
    networks of a kind, the one with EMA weights is returned, else the first.
    """
    for kind, (_, _, needs) in KINDS.items():
        first, *others = needs.split() or [""]
        prefixes = [name.removesuffix(first) for name in contents.tensors if first and name.endswith(first)]
        for prefix in sorted(prefixes, key=lambda prefix: "ema" not in prefix):
            if all(prefix + name in contents.tensors for name in others):
                tensors, options = under(contents.tensors, prefix), _options(contents.tree)
                facts = _FACTS[kind](tensors, options) if kind in _FACTS else {}
                return Recognised(kind, tensors, facts | _settings(contents.tree, options))
    return None


def under(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, by their names without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _options(tree: Any) -> Facts:
    """Return the training options in a checkpoint; empty if it has none."""
    options = tree.get("opts") if isinstance(tree, dict) else None
    options = options.state if isinstance(options, Record) else options
    return options if isinstance(options, dict) else {}


def _settings(tree: Any, options: Facts) -> Facts:
    """Return a checkpoint's training steps, and its domain if that is faces or cars."""
    steps = tree.get("iter") if isinstance(tree, dict) else None
    facts = {"steps": steps} if isinstance(steps, int) else {}
    trained = str(options.get("dataset_type")).lower()
    domains = [domain for word, domain in _DOMAINS.items() if word in trained]
    return facts | ({"domain": domains[0]} if domains else {})


def _edit(contents: Contents) -> Recognised | None:
    tensors = contents.tensors
    for names in _COMPONENTS:
        if set(names) <= tensors.keys():
            found = dict(zip(_COMPONENTS[0], (tensors[name] for name in names), strict=True))
            comp = found["comp"].shape
            return Recognised("components", found, {"style_dim": comp[-1], "components": comp[0]})
    eigenvectors = tensors.get("eigvec")
    if eigenvectors is not None and eigenvectors.ndim == 2:
        found = {f"eigenvector {k}": vector for k, vector in enumerate(eigenvectors.T[:_EIGENVECTORS])}
        return Recognised("sefa", found, {"style_dim": len(eigenvectors)})
    widths = {tensor.shape[-1:] for tensor in tensors.values()}
    if len(widths) == 1 and all(map(_is_direction, tensors.values())):
        found = {name or contents.path.stem: tensor for name, tensor in tensors.items()}
        rows = max(math.prod(tensor.shape[:-1]) for tensor in found.values())
        return Recognised("direction", found, {"style_dim": widths.pop()[0], "rows": rows})
    return None


def _is_direction(tensor: Tensor) -> bool:
    """Return whether a tensor is `[D]`, `[1, D]`, `[L, D]` or `[1, L, D]`, with L rows of W+."""
    rows, shape = math.prod(tensor.shape[:-1]), tensor.shape
    layers = rows == 1 or (rows == shape[-2] and rows in _LAYERS)
    return 1 <= tensor.ndim <= 3 and shape[-1] > 3 and layers and tensor.is_floating_point()


def _training(contents: Contents) -> Recognised | None:
    tree = contents.tree if isinstance(contents.tree, dict) else {}
    facts: Facts | None = {} if {"optimizer", "optimizers"} & tree.keys() else None
    if "pytorch-lightning_version" in tree or {"state_dict", "optimizer_states"} <= tree.keys():
        facts = {"written_by": "Lightning"}
    elif {"modules", "optimizers", "step"} <= tree.keys():
        facts = {"written_by": "clcae train", "step": tree["step"]}
    return None if facts is None else Recognised("training", contents.tensors, facts)


def _count(tensors: Tensors, pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in tensors)


def generator_config(tensors: Tensors) -> Facts:
    """Return the arguments of `Generator` for tensors of the PyTorch layout.

    Raises:
        WeightsError: the layers do not form a StyleGAN2 generator.
    """
    blocks = _count(tensors, r"to_rgbs\.\d+\.bias")
    convs = [tensors.get(f"convs.{2 * i}.conv.weight") for i in range(blocks)]
    if not blocks or any(conv is None or conv.ndim != 5 for conv in convs):
        raise WeightsError("has layers of a generator that do not belong together; fetch it again")
    widths = [tensors["input.input"].shape[1], *(conv.shape[1] for conv in convs if conv is not None)]
    return {
        "size": 4 << blocks,
        "style_dim": tensors["style.1.weight"].shape[0],
        "n_mlp": _count(tensors, r"style\.\d+\.weight"),
        "channels": {4 << i: width for i, width in enumerate(widths)},
    }


def _encoder_config(tensors: Tensors) -> Facts:
    """Return the arguments of `PublishedEncoder` for the tensors under `encoder.` of a checkpoint."""
    layers = _count(tensors, r"cross_attention\.\d+\.norm1\.weight")
    content = [t for n, t in tensors.items() if re.fullmatch(r"content_layer\.convs\.\d+\.weight", n)]
    hidden = tensors.get("feature_cross_attention.linear1.weight")
    if layers % 2 or not content or hidden is None:
        raise WeightsError("has layers of an inversion encoder that do not belong together; fetch it again")
    return {
        "resolution": 1 << (layers + 2) // 2,
        "style_dim": tensors["styles.0.linear.weight"].shape[0],
        "feature_channels": content[-1].shape[0],
        **_backbone_config(tensors),
        "style_hidden": tensors["styles.0.convs.0.weight"].shape[0],
        "hidden": hidden.shape[0],
    }


def _backbone_config(tensors: Tensors, *, first: str = "res_layer.1") -> Facts:
    """Return the widths and numbers of units of a backbone; a stage begins where the width changes.

    Args:
        first: name of a unit's first convolution.
    """
    widths, units = [tensors["input_layer.0.weight"].shape[0]], []
    for index in range(_count(tensors, rf"body\.\d+\.{re.escape(first)}\.weight")):
        conv = tensors.get(f"body.{index}.{first}.weight")
        width = 0 if conv is None else conv.shape[0]
        if index == 0 or width != widths[-1]:
            widths.append(width)
            units.append(0)
        units[-1] += 1
    if len(units) != 4:
        raise WeightsError(f"has a backbone of {len(units)} stages of different width; 4 are expected")
    return {"widths": widths, "units": units}


def _generator_facts(tensors: Tensors, _: Facts) -> Facts:
    config = generator_config(tensors)
    return {"resolution": config["size"], "style_dim": config["style_dim"], "config": config}


def peer_encoder(tensors: Tensors) -> dict[str, Tensor]:
    """Return the encoder of an official pSp, e4e or ReStyle, with a ResNet's stem renamed as in IR-SE."""
    stem = {"conv1.": "input_layer.0.", "bn1.": "input_layer.1.", "relu.": "input_layer.2."}
    encoder = under(tensors, "encoder.")
    first = {name: name.partition(".")[0] + "." for name in encoder}
    return {stem.get(first[n], first[n]) + n.removeprefix(first[n]): t for n, t in encoder.items()}


def _peer_facts(tensors: Tensors, options: Facts) -> Facts:
    """Return the sizes of an official peer, with `config` only if its encoder is used."""
    facts, encoder = _generator_facts(under(tensors, "decoder."), options), peer_encoder(tensors)
    stem, name = encoder.get("input_layer.0.weight"), str(options.get("encoder_type", ""))
    hfgi = any(part.startswith(HFGI) for part in tensors)  # its encoder is e4e's
    residual = hfgi or "Editing" in name or "Progressive" in name
    config = facts.pop("config")
    units = [unit for unit in ("res_layer.1", "conv1") if f"body.0.{unit}.weight" in encoder]
    if stem is None or not units:
        return facts | {"used": "its generator only; the encoder's backbone is neither IR-SE nor a ResNet"}
    own = {"joined": stem.shape[1] // 3, "pyramid": "latlayer1.weight" in encoder, "residual": residual}
    own |= {"resnet": True} if units == ["conv1"] else {}
    style = encoder["styles.0.convs.0.weight"].shape[0]
    blocks = {"style_hidden": style, **_backbone_config(encoder, first=units[0])}
    method = ("restyle_" if own["joined"] > 1 else "") + ("e4e" if residual else "psp")
    config = {"resolution": config["size"], "style_dim": config["style_dim"], **blocks, **own}
    used = "its generator and its encoder"
    if hfgi and (not set(_BRANCH) <= tensors.keys() or "car" in str(options.get("dataset_type"))):
        used += ", an e4e; HFGI's consultation branch is used only if it is whole and of square images"
    elif hfgi:
        method, config = "hfgi", config | {"feature_channels": tensors[_BRANCH[0]].shape[0]}
        used += ", an e4e, and HFGI's consultation branch; without the branch as --method e4e"
    return facts | {"method": method, "config": config, "used": used}


def _inversion_facts(tensors: Tensors, options: Facts) -> Facts:
    facts = _generator_facts(under(tensors, "decoder."), options)
    return facts | {
        "config": _encoder_config(under(tensors, "encoder.")),
        "generator_config": facts["config"],
    }


def _image_encoder_facts(tensors: Tensors, _: Facts) -> Facts:
    resolution = 16 << _count(tensors, r"encoder\.styles\.0\.convs\.\d+\.weight")
    dim = tensors["image_projection.lin1.weight"].shape[0]
    config = {"resolution": resolution, "dim": dim, **_backbone_config(under(tensors, "encoder."))}
    return {"resolution": resolution, "style_dim": dim, "config": config}


def _latent_encoder_facts(tensors: Tensors, _: Facts) -> Facts:
    dim = tensors["pos_embedding"].shape[-1]
    return {"style_dim": dim, "config": {"dim": dim}}


def _arcface_facts(tensors: Tensors, _: Facts) -> Facts:
    dim, pixels = tensors["output_layer.3.weight"].shape
    config = _backbone_config(tensors)
    side = int((pixels // config["widths"][-1]) ** 0.5)
    return {"resolution": 16 * side, "config": {**config, "dim": dim}}


_FACTS: dict[str, Callable[[Tensors, Facts], Facts]] = {
    "inversion_checkpoint": _inversion_facts,
    "peer_checkpoint": _peer_facts,
    "generator": _generator_facts,
    "contrastive_image": _image_encoder_facts,
    "contrastive_latent": _latent_encoder_facts,
    "arcface": _arcface_facts,
    "moco": lambda tensors, options: {"config": {"arch": "resnet50"}},
}
