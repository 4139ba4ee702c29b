"""The kinds of weights files: a table of layouts, each told by the names of its tensors.

The official layouts are those that the published code reads (arXiv 2211.11448 and the projects it builds on).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from clcae_lib.formats.shapes import Facts, Tensors, body_config, encoder_config, generator_config, under

_CONVERT = "`clcae convert` makes {} of it"


@dataclass(frozen=True)
class Kind:
    """A layout: names that tell it, what to call it, and what it is good for.

    Attributes:
        key: its name in the library and in JSON.
        title: its name for people.
        fits: what takes the file.
        needs: names of tensors that a file of this kind has.
        facts: sizes and settings, from the tensors.
    """

    key: str
    title: str
    fits: str
    needs: frozenset[str] = frozenset()
    facts: Callable[[Tensors], Facts] = lambda tensors: {}


def _generator_facts(tensors: Tensors) -> Facts:
    config = generator_config(tensors)
    return {"resolution": config["size"], "style_dim": config["style_dim"], "config": config}


def _inversion_facts(tensors: Tensors) -> Facts:
    encoder, decoder = (
        encoder_config(under(tensors, "encoder.")),
        generator_config(under(tensors, "decoder.")),
    )
    facts = {"resolution": decoder["size"], "style_dim": decoder["style_dim"]}
    return {**facts, "config": encoder, "generator_config": decoder}


def _image_encoder_facts(tensors: Tensors) -> Facts:
    body = under(tensors, "encoder.")
    steps = sum(bool(re.fullmatch(r"styles\.0\.convs\.\d+\.weight", name)) for name in body)
    dim = tensors["image_projection.lin1.weight"].shape[0]
    config = {"resolution": 16 << steps, "dim": dim, **body_config(body)}
    return {"resolution": config["resolution"], "style_dim": dim, "config": config}


def _latent_encoder_facts(tensors: Tensors) -> Facts:
    dim = tensors["pos_embedding"].shape[-1]
    return {"style_dim": dim, "config": {"dim": dim}}


def _arcface_facts(tensors: Tensors) -> Facts:
    dim, pixels = tensors["output_layer.3.weight"].shape
    config = body_config(tensors)
    side = int((pixels // config["widths"][-1]) ** 0.5)
    return {"resolution": 16 * side, "config": {**config, "dim": dim}}


_FACE = "the identity loss of faces (`clcae train inversion`, world ffhq); " + _CONVERT.format("safetensors")

NETWORKS = (
    Kind(
        "inversion_checkpoint",
        "CLCAE inversion checkpoint (encoder and generator)",
        "`clcae invert` with preset published; "
        + _CONVERT.format("the encoder, or with --part the generator,"),
        frozenset(
            {"encoder.input_layer.0.weight", "encoder.styles_others.0.linear.weight", "decoder.input.input"}
        ),
        _inversion_facts,
    ),
    Kind(
        "generator",
        "StyleGAN2 generator in the PyTorch (rosinality) layout",
        "a world's generator; " + _CONVERT.format("data/WORLD/generator.safetensors"),
        frozenset({"input.input", "conv1.conv.weight", "to_rgb1.bias", "style.1.weight"}),
        _generator_facts,
    ),
    Kind(
        "contrastive_image",
        "CLCAE contrastive image encoder",
        "the alignment term of preset published; " + _CONVERT.format("safetensors"),
        frozenset({"logit_scale", "encoder.input_layer.0.weight", "image_projection.lin1.weight"}),
        _image_encoder_facts,
    ),
    Kind(
        "contrastive_latent",
        "CLCAE contrastive latent encoder",
        "the alignment term of preset published; " + _CONVERT.format("safetensors"),
        frozenset({"pos_embedding", "coarse.self_attn.in_proj_weight", "latent_projection.lin1.weight"}),
        _latent_encoder_facts,
    ),
    Kind(
        "arcface",
        "IR-SE50 face identity network (ArcFace)",
        _FACE,
        frozenset({"input_layer.0.weight", "body.0.res_layer.5.fc1.weight", "output_layer.3.weight"}),
        _arcface_facts,
    ),
    Kind(
        "curricularface",
        "CurricularFace backbone (IR, without squeeze-and-excitation)",
        "measures of identity only; it is not converted",
        frozenset({"input_layer.0.weight", "body.0.res_layer.1.weight", "output_layer.3.weight"}),
    ),
    Kind(
        "moco",
        "MoCo v2 ResNet-50",
        "the identity loss of worlds without faces (cars); " + _CONVERT.format("safetensors"),
        frozenset(
            {"encoder_q.conv1.weight", "encoder_q.layer1.0.conv1.weight", "encoder_q.layer4.0.conv1.weight"}
        ),
        lambda tensors: {"config": {"arch": "resnet50"}},
    ),
    Kind(
        "alexnet",
        "AlexNet of torchvision (the trunk of LPIPS)",
        "LPIPS, as it is: put it anywhere under data/ under torchvision's name",
        frozenset({"features.0.weight", "features.3.weight", "features.10.weight", "classifier.1.weight"}),
    ),
    Kind(
        "lpips",
        "LPIPS with AlexNet",
        "nothing: the heads come with the lpips package, the trunk is torchvision's AlexNet",
        frozenset({"net.layers.0.weight", "lin.0.1.weight"}),
    ),
    Kind(
        "lpips_heads",
        "LPIPS linear heads",
        "nothing: the lpips package brings its own",
        frozenset({"lin0.model.1.weight", "lin4.model.1.weight"}),
    ),
)

SNAPSHOT = Kind(
    "nvidia", "NVIDIA StyleGAN2 snapshot", "a world's generator; " + _CONVERT.format("generator.safetensors")
)
STYLEGAN3 = Kind("nvidia_stylegan3", "NVIDIA StyleGAN3 snapshot", "nothing here: only StyleGAN2 is inverted")
LEGACY = Kind("nvidia_tensorflow", "NVIDIA StyleGAN2 snapshot of the TensorFlow code", SNAPSHOT.fits)
DIRECTION = Kind(
    "direction",
    "InterFaceGAN direction",
    "edits; " + _CONVERT.format("a file of directions for `load_directions`"),
)
COMPONENTS = Kind(
    "components", "GANSpace components", "edits (`load_ganspace`); " + _CONVERT.format("safetensors")
)
TRAINING = Kind("training", "state of an unfinished training", "the command that wrote it, to resume")
UNKNOWN = Kind("unknown", "unknown", "nothing that is known here")

#: What reads the files of this project, by the kind they state.
OWN = {
    "generator": "a world's generator (`load_generator`)",
    "inversion": "`clcae invert`, notebooks (`load_encoder`)",
    "alignment": "training an inversion, retrieval (`load_alignment`)",
    "directions": "edits (`load_directions`)",
    "components": "edits (`load_ganspace`)",
    "inversion codes": "the explorer's and `clcae invert`'s codes",
    "oracle": "the world portraits, as judge of factors",
    "identity": "the world portraits, as judge of identity",
    "perceptual": "the world portraits, as perceptual distance",
    "contrastive_image": "the alignment term of preset published",
    "contrastive_latent": "the alignment term of preset published",
    "arcface": "the identity loss of faces",
    "moco": "the identity loss of worlds without faces",
}
