"""What a weights file is, by what it says of itself or by the names of its tensors, and its sizes.

The official layouts are those that the published code reads (arXiv 2211.11448 and the projects it builds on).
No width is assumed: a smaller network of the same layout is understood as well.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from clcae_lib.weights import nvidia
from clcae_lib.weights._errors import WeightsError
from clcae_lib.weights._inert import Record
from clcae_lib.weights.read import Contents

Tensors = Mapping[str, Tensor]
Facts = dict[str, Any]

#: Names of tensors that tell what a network is; the first kind that has all of its names is taken.
NEEDS = {
    "inversion_checkpoint": "encoder.input_layer.0.weight encoder.styles_others.0.linear.weight "
    "decoder.input.input",
    "generator": "input.input conv1.conv.weight to_rgb1.bias style.1.weight",
    "contrastive_image": "logit_scale encoder.input_layer.0.weight image_projection.lin1.weight",
    "contrastive_latent": "pos_embedding coarse.self_attn.in_proj_weight latent_projection.lin1.weight",
    "arcface": "input_layer.0.weight body.0.res_layer.5.fc1.weight output_layer.3.weight",
    "curricularface": "input_layer.0.weight body.0.res_layer.1.weight output_layer.3.weight",
    "moco": "encoder_q.conv1.weight encoder_q.layer1.0.conv1.weight encoder_q.layer4.0.conv1.weight",
    "alexnet": "features.0.weight features.3.weight features.10.weight classifier.1.weight",
    "lpips": "net.layers.0.weight lin.0.1.weight",
    "lpips_heads": "lin0.model.1.weight lin4.model.1.weight",
}
TITLES = {
    "inversion_checkpoint": "CLCAE inversion checkpoint (encoder and generator)",
    "generator": "StyleGAN2 generator in the PyTorch (rosinality) layout",
    "contrastive_image": "CLCAE contrastive image encoder",
    "contrastive_latent": "CLCAE contrastive latent encoder",
    "arcface": "IR-SE50 face identity network (ArcFace)",
    "curricularface": "CurricularFace backbone (IR, without squeeze-and-excitation)",
    "moco": "MoCo v2 ResNet-50",
    "alexnet": "AlexNet of torchvision (the trunk of LPIPS)",
    "lpips": "LPIPS with AlexNet",
    "lpips_heads": "LPIPS linear heads",
    "nvidia": "NVIDIA StyleGAN2 snapshot",
    "nvidia_tensorflow": "NVIDIA StyleGAN2 snapshot of the TensorFlow code",
    "nvidia_stylegan3": "NVIDIA StyleGAN3 snapshot",
    "direction": "InterFaceGAN direction",
    "components": "GANSpace components",
    "training": "state of an unfinished training",
    "unknown": "unknown",
}
_WORLD = (
    "a world's generator (`clcae world add`); `clcae convert` makes data/WORLD/generator.safetensors of it"
)
_ALIGNMENT = "the alignment term of preset published"
_SAFE = "; `clcae convert` makes safetensors of it"
_LPIPS = "nothing: the lpips package brings its heads, the trunk is torchvision's AlexNet"
#: What takes a file; of this project's own files, by the kind that they state after "own:".
FITS = {
    "inversion_checkpoint": "`clcae invert` with preset published; `clcae convert` makes the encoder, or "
    "with --part the generator, of it",
    **dict.fromkeys(("generator", "nvidia", "nvidia_tensorflow"), _WORLD),
    **dict.fromkeys(("contrastive_image", "contrastive_latent"), _ALIGNMENT + _SAFE),
    "arcface": "the identity loss of faces (`clcae train inversion`, world ffhq)" + _SAFE,
    "curricularface": "measures of identity only; it is not converted",
    "moco": "the identity loss of worlds without faces (cars)" + _SAFE,
    "alexnet": "LPIPS, as it is: put it into data/networks/ under torchvision's name",
    **dict.fromkeys(("lpips", "lpips_heads"), _LPIPS),
    "nvidia_stylegan3": "nothing here: only StyleGAN2 is inverted",
    "direction": "edits; `clcae convert` makes a file of directions of it",
    "components": "edits (`load_ganspace`)" + _SAFE,
    "training": "the command that wrote it, to resume",
    "unknown": "nothing that is known here",
    "own:generator": "a world's generator (`load_generator`)",
    "own:inversion": "`clcae invert`, notebooks (`load_encoder`)",
    "own:alignment": "training an inversion, retrieval (`load_alignment`)",
    "own:directions": "edits (`load_directions`)",
    "own:components": "edits (`load_ganspace`)",
    "own:inversion codes": "the explorer's and `clcae invert`'s codes",
    **{f"own:{n}": f"a drawn world, as its {n} network" for n in ("oracle", "identity", "perceptual")},
    **dict.fromkeys(("own:contrastive_image", "own:contrastive_latent"), _ALIGNMENT),
    "own:arcface": "the identity loss of faces",
    "own:moco": "the identity loss of worlds without faces",
}


@dataclass(frozen=True)
class Recognised:
    """A file's kind with its sizes.

    Attributes:
        kind: a key of `TITLES`, or "own:" and the kind that a file of this project states.
        tensors: those of the network, by their official names without wrappers; none of a snapshot's.
        facts: `resolution`, `style_dim`, `config` and others, as far as the kind has them.
    """

    kind: str
    tensors: Tensors = field(default_factory=dict, repr=False)
    facts: Facts = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What the kind is called."""
        own = f"this project's weights of kind {self.kind.removeprefix('own:')!r}"
        return TITLES.get(self.kind, own)

    @property
    def fits(self) -> str:
        """What takes the file."""
        return FITS.get(self.kind, "the code that wrote it")


def recognise(contents: Contents) -> Recognised:
    """Return what a file is; kind "unknown" where nothing fits.

    Raises:
        WeightsError: it has the names of a kind, and layers that do not belong together.
    """
    attempts = (_own, _snapshot, find_network, _edit, _training)
    found = (attempt(contents) for attempt in attempts)
    return next((kind for kind in found if kind is not None), Recognised("unknown"))


def _own(contents: Contents) -> Recognised | None:
    said = contents.metadata
    if said.get("kind") is None:
        return None
    config = said["config"] if isinstance(said.get("config"), dict) else {}
    sizes = {"resolution": config.get("resolution", config.get("size")), "style_dim": config.get("style_dim")}
    facts = {"config": config, "preset": said.get("preset"), **sizes}
    return Recognised(f"own:{said['kind']}", contents.tensors, {k: v for k, v in facts.items() if v})


def _snapshot(contents: Contents) -> Recognised | None:
    network = nvidia.find_generator(contents.tree)
    if network is None:
        return None
    facts, family = nvidia.facts(network), nvidia.family(network)
    sizes = {"resolution": facts.get("img_resolution"), "style_dim": facts.get("w_dim"), "config": facts}
    return Recognised("nvidia" if family == "stylegan2" else f"nvidia_{family}", {}, sizes)


def find_network(contents: Contents) -> Recognised | None:
    """Return the network of an official layout, by the names of its tensors; None where there is none.

    State dicts lie under the usual wrappers or bare, with or without the prefix of DataParallel.
    """
    for wrapper in ("g_ema.", "state_dict.", "model.", "g.", "generator.", ""):
        tensors = {n.removeprefix("module."): t for n, t in under(contents.tensors, wrapper).items()}
        for kind, needs in NEEDS.items() if tensors else ():
            if set(needs.split()) <= tensors.keys():
                facts = _FACTS[kind](tensors) if kind in _FACTS else {}
                return Recognised(kind, tensors, facts | _settings(contents.tree))
    return None


def under(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _settings(tree: Any) -> Facts:
    """Return what a checkpoint says of its training: its steps, and whether it saw faces or cars."""
    tree = tree if isinstance(tree, dict) else {}
    options = tree.get("opts")
    options = options.state if isinstance(options, Record) else options
    facts = {"steps": tree["iter"]} if isinstance(tree.get("iter"), int) else {}
    if isinstance(options, dict) and isinstance(options.get("dataset_type"), str):
        facts["domain"] = "cars" if "car" in options["dataset_type"].lower() else "faces"
    return facts


def _edit(contents: Contents) -> Recognised | None:
    tensors = contents.tensors
    if tensors.keys() == {""} and tensors[""].ndim in (2, 3) and len(tensors[""]) == 1:
        shape = tensors[""].shape
        facts = {"style_dim": shape[-1], "rows": shape[1] if len(shape) == 3 else 1}
        return Recognised("direction", tensors, facts)
    if {"mean", "comp", "std"} <= tensors.keys():
        comp = tensors["comp"].shape
        return Recognised("components", tensors, {"style_dim": comp[-1], "components": comp[0]})
    return None


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


def _backbone_config(tensors: Tensors) -> Facts:
    """Return the widths and units of an IR-SE backbone: a stage begins where the width changes."""
    widths, units = [tensors["input_layer.0.weight"].shape[0]], []
    for index in range(_count(tensors, r"body\.\d+\.res_layer\.1\.weight")):
        conv = tensors.get(f"body.{index}.res_layer.1.weight")
        width = 0 if conv is None else conv.shape[0]
        if index == 0 or width != widths[-1]:
            widths.append(width)
            units.append(0)
        units[-1] += 1
    if len(units) != 4:
        raise WeightsError(f"has a backbone of {len(units)} stages of different width, where 4 are expected")
    return {"widths": widths, "units": units}


def _generator_facts(tensors: Tensors) -> Facts:
    config = generator_config(tensors)
    return {"resolution": config["size"], "style_dim": config["style_dim"], "config": config}


def _inversion_facts(tensors: Tensors) -> Facts:
    facts = _generator_facts(under(tensors, "decoder."))
    return facts | {
        "config": _encoder_config(under(tensors, "encoder.")),
        "generator_config": facts["config"],
    }


def _image_encoder_facts(tensors: Tensors) -> Facts:
    resolution = 16 << _count(tensors, r"encoder\.styles\.0\.convs\.\d+\.weight")
    dim = tensors["image_projection.lin1.weight"].shape[0]
    config = {"resolution": resolution, "dim": dim, **_backbone_config(under(tensors, "encoder."))}
    return {"resolution": resolution, "style_dim": dim, "config": config}


def _latent_encoder_facts(tensors: Tensors) -> Facts:
    dim = tensors["pos_embedding"].shape[-1]
    return {"style_dim": dim, "config": {"dim": dim}}


def _arcface_facts(tensors: Tensors) -> Facts:
    dim, pixels = tensors["output_layer.3.weight"].shape
    config = _backbone_config(tensors)
    side = int((pixels // config["widths"][-1]) ** 0.5)
    return {"resolution": 16 * side, "config": {**config, "dim": dim}}


_FACTS: dict[str, Callable[[Tensors], Facts]] = {
    "inversion_checkpoint": _inversion_facts,
    "generator": _generator_facts,
    "contrastive_image": _image_encoder_facts,
    "contrastive_latent": _latent_encoder_facts,
    "arcface": _arcface_facts,
    "moco": lambda tensors: {"config": {"arch": "resnet50"}},
}
