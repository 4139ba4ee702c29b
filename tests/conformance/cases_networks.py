"""The golden numbers of the inversion network, the generator and the contrastive encoders."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clcae_lib.losses import ContrastiveLoss
from tests.conformance import fill
from tests.conformance.bench import Bench

Arrays = Mapping[str, NDArray]
FEATURE_STEP = 31  # of 512 channels, 17 are kept in full
IMAGE = re.compile(r"image_(?:f_scale(?P<blend>[\d.]*\d)|(?P<space>wplus|w))(?P<kind>\.mean|\.std)?")
FEATURE = re.compile(r"(?P<which>feature_offset|feature_refine)(?P<kind>\.mean|\.std)?")
CASES = {"plain", "edit", "noresize"}


def summary(value: Tensor, kind: str | None) -> Tensor:
    """The mean or population deviation of each channel, or the maps themselves."""
    if kind == ".mean":
        return value.mean((2, 3))
    return value.std((2, 3), correction=0) if kind == ".std" else value


def inversion(bench: Bench, name: str, arrays: Arrays) -> Tensor | None:
    """`CASE/QUANTITY`, where the case is `plain`, `edit` or `noresize`, or several of them."""
    *cases, quantity = name.split("/")
    if not cases or not set(cases) <= CASES:
        return None
    how = {"edit": "edit" in cases, "resize": "noresize" not in cases}
    if match := IMAGE.fullmatch(quantity):
        space = {"wplus": "w_plus", "w": "w", None: "f"}[match["space"]]
        return summary(bench.image(space, blend=float(match["blend"] or 1), **how), match["kind"])
    if quantity == "shapes":
        image, feature = bench.image("f", **how), bench.codes(edit=how["edit"])[0].feature
        return torch.tensor([image.shape, feature.shape])
    codes, activation = bench.codes(edit=how["edit"])
    if match := FEATURE.fullmatch(quantity):
        feature = codes.feature if match["which"] == "feature_offset" else activation
        return summary(feature, match["kind"]) if match["kind"] else feature[:, ::FEATURE_STEP]
    return {"latent_base": codes.w, "latent_refine": codes.w_plus}.get(quantity)


def generator(bench: Bench, name: str, arrays: Arrays) -> Tensor | None:
    """The generator: from z, from W+, with F, mixed, and every activation."""
    root, kind = re.fullmatch(r"(.*?)(\.mean|\.std)?", name).groups()
    if match := re.fullmatch(r"features/(\d+)", root):
        return _activation(bench, int(match[1]), kind, arrays[name])
    if root in {"w_from_z", "w_truncated"}:
        return _codes(bench)["w" if root == "w_from_z" else "truncated"]
    image = _generated(bench, root)
    return None if image is None else summary(image, kind)


def _activation(bench: Bench, index: int, kind: str | None, expected: NDArray) -> Tensor | None:
    features = bench.kept("features", lambda: bench.generator.run_with_activations(_w_plus(bench))[1])
    if index >= len(features):
        return None
    feature = features[index]
    if kind is None:
        return feature[:, ::FEATURE_STEP]
    return summary(feature, kind)[:, :: 1 if expected.shape[1] == feature.shape[1] else 8]


def _generated(bench: Bench, root: str) -> Tensor | None:
    if match := re.fullmatch(r"image_from_wplus_f_scale([\d.]*\d)", root):
        feature = fill.vector("features_in", (2, 512, 16, 16))
        blend = float(match[1])
        return bench.kept(root, lambda: _synthesis(bench, feature=feature, feature_blend=blend))
    if root == "image_from_wplus":
        return bench.kept(root, lambda: _synthesis(bench))
    w = {"image_from_z": "w", "image_from_z_trunc0.7": "truncated", "image_style_mix_inject4": "mixed"}
    if root not in w:
        return None
    return bench.kept(root, lambda: bench.generator.synthesis(_codes(bench)[w[root]]))


def _synthesis(bench: Bench, **options):
    return bench.generator.synthesis(_w_plus(bench), **options)


def _w_plus(bench: Bench) -> Tensor:
    return fill.vector("wplus", (2, bench.generator.n_latent, 512))


def _codes(bench: Bench) -> dict[str, Tensor]:
    net = bench.generator
    w = net.mapping(fill.vector("z", (2, 512)))
    rest = net.n_latent - 4
    mixed = torch.cat((w[:1, None].expand(-1, 4, -1), w[1:, None].expand(-1, rest, -1)), dim=1)
    return {"w": w, "truncated": net.truncate(w, fill.latent_avg(), 0.7), "mixed": mixed}


def contrastive(bench: Bench, name: str, arrays: Arrays) -> Tensor | float | None:
    """The two encoders, before and after the head, and the loss between them."""
    known = {"image_encoder_w", "logits", "clip_loss", "logit_scale_exp", "pos_embedding_effect"}
    embedding = re.fullmatch(r"(image|latent)_embedding(_nonorm)?", name)
    if embedding is None and name not in known:
        return None
    return bench.kept("contrastive", lambda: _contrastive(bench))[name]


def _contrastive(bench: Bench) -> dict[str, Tensor | float]:
    image, latent = bench.image_encoder, bench.latent_encoder
    x, w = fill.image("x", 256, 256, 4), fill.vector("w", (4, 1, 512), 0.8)[:, 0]
    vectors, codes = image(x), latent(w)
    loss = ContrastiveLoss(scale=image.logit_scale.exp().item())
    position = latent.pos_embedding.clone()
    latent.pos_embedding.zero_()
    effect = float((latent(w) - codes).abs().max())
    latent.pos_embedding.copy_(position)
    body = image.vectors(x)
    return {
        "image_embedding": vectors,
        "latent_embedding": codes,
        "image_encoder_w": body,
        "image_embedding_nonorm": image.image_projection(body),
        "latent_embedding_nonorm": latent.latent_projection(latent.vectors(w)),
        "logit_scale_exp": np.float32(loss.scale.item()),
        "logits": loss.scale * vectors @ codes.T,
        "clip_loss": loss(vectors, codes),
        "pos_embedding_effect": np.float32(effect),
    }
