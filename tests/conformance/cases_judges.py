"""The golden numbers of the judges, the losses, the edits and the optimizer."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from clcae_lib.editing import Components, Direction, factorise, load_ganspace
from clcae_lib.editing import apply as apply_edit
from clcae_lib.inversion import Inversion
from clcae_lib.losses import ContrastiveLoss, IdentityLoss, PerceptualLoss, ReconstructionLoss, feature_loss
from clcae_lib.models.identity import face_crop
from clcae_lib.training.optim import make_ranger
from tests.conformance import fill
from tests.conformance.bench import Bench
from tests.conformance.published_edits import published_eigen, published_sefa, set_coordinate

Arrays = Mapping[str, NDArray]
FOLDER = "CLCAE_OFFICIAL_DATA"
SUFFIXES = {"f": "", "w_plus": "_ww", "w": "_w"}
RANGER = {"A": (4, 3), "b": (3,)}


class NotHereError(Exception):
    """The array needs a file that is not on this machine; the message says which."""


def arcface(bench: Bench, name: str, arrays: Arrays) -> Tensor | None:
    """Identity embeddings, their crop, and the loss between two images."""
    x, y = (fill.image(tag, 256, 256, 2) for tag in "xy")
    if name == "id_loss_yhat_y_target_x":
        return IdentityLoss(bench.arcface)(y, x).mean()
    if name == "pooled_crop_x":
        return face_crop(x)
    images = {
        "embedding_x": x,
        "embedding_y": y,
        "embedding_x_car_192x256": fill.image("x", 192, 256, 1),
    }
    return bench.arcface(images[name]) if name in images else None


def lpips(bench: Bench, name: str, arrays: Arrays) -> Tensor | None:
    """The distance of two pairs of images, and the activations it compares."""
    x, y = (fill.image(tag, 256, 256, 2) for tag in "xy")
    if name == "lpips_x_y":
        return bench.lpips(x, y).mean()
    if match := re.fullmatch(r"feat(\d)\.(mean|std)", name):
        features = bench.kept("lpips features", lambda: bench.lpips.net(bench.lpips.scaling_layer(x)))
        feature = normalize(features[int(match[1])], dim=1)
        return feature.mean((2, 3)) if match[2] == "mean" else feature.std((2, 3), correction=0)
    return None


def losses(bench: Bench, name: str, arrays: Arrays) -> Tensor | None:
    """The official dictionary of losses, and what other readings of two of its terms would give."""
    if not name.startswith(("calc_loss/", "contrastive_", "lpips_sum")):
        return None
    return bench.kept("losses", lambda: _losses(bench)).get(name)


def _losses(bench: Bench) -> dict[str, Tensor]:
    codes, activation = bench.codes(edit=False)
    shown = {space: bench.image(space, edit=False, resize=True) for space in SUFFIXES}
    x, rows = bench.images, {}
    judge = ReconstructionLoss(perceptual=_perceptual(bench, 1), identity=IdentityLoss(bench.arcface))
    total = torch.zeros(())
    for space, terms in judge(shown, x).items():
        end = SUFFIXES[space]
        rows[f"calc_loss/loss_l2{end}"], rows[f"calc_loss/loss_id{end}"] = terms["l2"], terms["identity"]
        rows[f"calc_loss/loss_lpips{end}"] = terms["perceptual"]
        rows[f"calc_loss/id_improve{end}"] = _improvement(bench, shown[space])
        total = total + terms["l2"] + 0.1 * terms["identity"] + 0.2 * terms["perceptual"]
    rows["calc_loss/loss_feature"] = feature_loss(codes.feature, activation)
    rows["lpips_sum_of_3_scales_f"] = _perceptual(bench, 3)(shown["f"], x).mean()
    rows |= _alignment(
        bench, codes.w, {"fed_image_w": shown["w"], "if_fed_x": x, "if_fed_image_f": shown["f"]}
    )
    rows["calc_loss/loss_contras"] = rows["contrastive_fed_image_w"]
    total = total + 0.01 * rows["calc_loss/loss_feature"] + 0.1 * rows["calc_loss/loss_contras"]
    return rows | {"calc_loss/loss": total}


def _perceptual(bench: Bench, scales: int) -> PerceptualLoss:
    return PerceptualLoss(lambda a, b: bench.lpips(a, b).flatten(), scales=scales)


def _improvement(bench: Bench, image: Tensor) -> Tensor:
    """Return the gain in similarity to the target over the input; both are x here."""
    embed, x = bench.arcface, bench.images
    return ((embed(image) - embed(x)) * embed(x)).sum(dim=1).mean()


def _alignment(bench: Bench, w: Tensor, fed: dict[str, Tensor]) -> dict[str, Tensor]:
    image, latent = bench.image_encoder, bench.latent_encoder
    loss = ContrastiveLoss(scale=image.logit_scale.exp().item())
    codes = latent(w)
    vectors = {name: image(shown) for name, shown in fed.items()}
    rows = {f"contrastive_{name}": loss(vector, codes) for name, vector in vectors.items()}
    rows["contrastive_image_embedding_of_image_w"] = vectors["fed_image_w"]
    return rows | {"contrastive_latent_embedding": codes}


def ganspace(bench: Bench, name: str, arrays: Arrays) -> Tensor | NDArray | None:
    """Edits that set a component's coordinate, on the filler's components and on the published ones."""
    match = re.fullmatch(r"ganspace/(synthetic|ffhq_pca)/(edited_first_row|delta_norm)", name)
    if name == "ganspace/directions":
        return arrays[name]  # which edits are made: an input
    if match is None:
        return None
    components = _synthetic() if match[1] == "synthetic" else load_ganspace(_official("ffhq_pca.pt"))
    w_plus = fill.vector("edit.wplus", (2, 18, 512))
    edited = []
    for index, first, end, strength in arrays["ganspace/directions"].tolist():
        moved = set_coordinate(w_plus, components, index, strength, layers=range(first, end))
        others = [row for row in range(18) if not first <= row < end]
        assert torch.equal(moved[:, others], w_plus[:, others])
        edited.append((moved[:, first], (moved - w_plus)[:, first].norm(dim=1)))
    return torch.stack([row[match[2] == "delta_norm"] for row in edited], dim=1).flatten(0, 1)


def _synthetic() -> Components:
    pca = fill.synthetic_pca()
    return Components(pca["mean"].flatten(), pca["comp"][:, 0], pca["std"])


def _official(name: str) -> Path:
    """A file of the official repository, under the folder that an environment variable names."""
    folder = os.environ.get(FOLDER)
    found = sorted(Path(folder).rglob(name)) if folder else []
    if not found:
        raise NotHereError(f"needs the official {name}: set {FOLDER} to a folder that has it")
    return found[0]


def sefa(bench: Bench, name: str, arrays: Arrays) -> Tensor | NDArray | None:
    """Factorised weights: what is right whatever the order, and the official order and rows."""
    if name in {"sefa/edit_shape", "sefa/edit_rows_touched"}:
        edited, w_plus = _sefa_edit(bench, steps=int(arrays["sefa/edit_shape"][0]))
        if name == "sefa/edit_shape":
            return torch.tensor(edited.shape)
        return (edited != w_plus).any(dim=2).any(dim=0)
    match = re.fullmatch(r"sefa/(all|[\d_]+)/(\w+)", name)
    if match is None:
        return None
    layers = None if match[1] == "all" else [int(k) for k in match[1].split("_")]
    if match[2] == "layers_returned":
        return torch.tensor(_published_sefa(bench, layers).layers)
    if match[2] == "order_returned_first8":
        values = _eigen(bench, layers)[0]
        return values.argsort(descending=True).argsort()[:8]
    values, vectors = bench.kept(f"factorised {layers}", lambda: factorise(bench.generator, layers=layers))
    if match[2] == "eigenvalues_sorted":
        return values
    if match[2] != "top3_vectors":
        return None
    expected = torch.from_numpy(arrays[name])
    return vectors[:3] * (vectors[:3] * expected).sum(dim=1, keepdim=True).sign()


def _eigen(bench: Bench, layers: list[int] | None) -> tuple[Tensor, Tensor]:
    return bench.kept(f"eigen {layers}", lambda: published_eigen(bench.generator, layers))


def _published_sefa(bench: Bench, layers: list[int] | None) -> Direction:
    """Return the first direction."""
    return published_sefa(bench.generator, layers, _eigen(bench, layers)[1][:1])[0]


def _sefa_edit(bench: Bench, *, steps: int) -> tuple[Tensor, Tensor]:
    """A code at several strengths of the first direction of layers 2 to 5, and the code."""
    direction = _published_sefa(bench, [2, 3, 4, 5])
    w = fill.vector("w", (1, 512))
    start = Inversion(w, w[:, None].expand(-1, bench.generator.n_latent, -1))
    strengths = torch.linspace(-3, 3, steps).tolist()
    edited = [apply_edit(bench.generator, start, direction, s).w_plus for s in strengths]
    return torch.cat(edited), start.w_plus


def ranger(bench: Bench, name: str, arrays: Arrays) -> Tensor | None:
    """Two tensors after so many steps of the published optimizer."""
    match = re.fullmatch(r"([Ab])/(\d+)", name)
    if match is None:
        return None
    values = {n: torch.nn.Parameter(fill.vector(f"ranger.{n}", shape)) for n, shape in RANGER.items()}
    optimizer = make_ranger(values.values(), lr=0.01)
    for step in range(1, int(match[2]) + 1):
        for key, value in values.items():
            value.grad = fill.vector(f"ranger.{key}/grad{step}", RANGER[key])
        with torch.enable_grad():
            optimizer.step()
    return values[match[1]].detach()
