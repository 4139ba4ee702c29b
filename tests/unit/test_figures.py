"""The diagrams of the course say what the code does: shapes, weights and the chain of networks."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
import torch

from clcae_lib.models.foundation import level_of
from clcae_lib.training.inversion import InversionConfig
from clcae_lib.weights import checkpoints, load_encoder
from clcae_lib.worlds import get_world

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FOLDER = NOTEBOOKS / "figures"
FIGURES = runpy.run_path(str(FOLDER / "draw.py"))["FIGURES"]
SVG = "{http://www.w3.org/2000/svg}"


def read(name):
    return ElementTree.parse(FOLDER / f"{name}.svg").getroot()


def labels(name):
    """The labels of a diagram, each as plain text."""
    return ["".join(text.itertext()).replace("\u200b", "") for text in read(name).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", FIGURES)
def test_the_file_is_what_the_script_draws_now(name):
    svg = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    assert svg == FIGURES[name]().svg(), "run python notebooks/figures/draw.py"


@pytest.mark.parametrize("name", FIGURES)
def test_it_can_be_read_aloud_in_the_dark_and_in_a_narrow_column(name):
    root = read(name)
    assert root.attrib["viewBox"].startswith("0 0 900 ")
    assert all(root.find(f"{SVG}{part}").text for part in ("title", "desc"))
    style = root.find(f"{SVG}style").text
    assert "prefers-color-scheme: dark" in style
    assert min(map(int, re.findall(r"(\d+)px", style))) >= 12


def test_the_encoders_shapes_are_those_of_the_shipped_networks():
    world = get_world("portraits")
    generator = world.generator()
    encoder = load_encoder(world.weights("inversion_foundation"), generator)
    images = torch.zeros(1, 3, world.resolution, world.resolution)
    with torch.no_grad():
        maps = encoder.body(images)
        levels, codes = encoder.pyramid(maps), encoder(images)
        decoded = generator.synthesis(codes.w_plus, feature=codes.feature)
    assert generator.activation(codes.w_plus, side=16).shape == codes.feature.shape

    def named(names, tensors):
        return [f"{name} {list(tensor.shape[1:])}" for name, tensor in zip(names, tensors, strict=True)]

    drawn = labels("architecture")
    shapes = [str(list(t.shape[1:])) for t in (images, codes.w, codes.w_plus, codes.feature, decoded)]
    wanted = [*named(("T1", "T2", "T3"), levels), *named(("c1", "c2", "c3"), maps), *shapes]
    rows = [[k for k in range(codes.w_plus.shape[1]) if level_of(k) == level] for level in range(3)]
    wanted += [f"i {part[0]}\N{EN DASH}{part[-1]}" for part in rows]
    wanted += [f"{codes.feature[0, 0].numel()} queries from T3,", f"{codes.w_plus.shape[1]} tokens"]
    assert [words for words in wanted if words not in drawn] == []
    assert {str(list(t.shape[1:])) for t in (codes.w_plus, codes.feature)} <= set(labels("edit"))


def test_the_weights_of_the_objective_are_the_defaults_and_those_of_the_shipped_encoder():
    config = InversionConfig()
    card = checkpoints.read_card(get_world("portraits").weights("inversion_foundation"))["config"]
    names = ("l2", "perceptual", "identity", "feature", "alignment")
    weights = {name: getattr(config, f"weight_{name}") for name in names}
    assert {name: card[f"weight_{name}"] for name in names} == weights
    assert set(config.picture_weights.values()) == {1.0}
    assert config.weight_w == 0, "a further term is drawn when it has a weight"
    drawn = labels("loss")
    numbers = sorted(float(words) for words in drawn if re.fullmatch(r"[\d.]+", words))
    assert numbers == sorted([*(3 * [weights[name] for name in names[:3]]), *(weights[n] for n in names[3:])])
    assert f"and {config.bank:,} random codes" in drawn


def test_the_arrows_of_the_chain_are_those_of_the_cards():
    drawn = {link for path in read("chain").iter(f"{SVG}path") for link in path.get("data-links", "").split()}
    files = sorted(get_world("portraits").folder.glob("*.safetensors"))
    cards = {file.stem: checkpoints.read_card(file)["trained_on"] for file in files}
    parents = {name: {Path(parent).stem for parent in found} for name, found in cards.items()}
    compared = [parents.pop(name) for name in cards if name.startswith("peer_")]  # one box, no arrows
    assert all(found == {"generator", "identity_a", "perceptual_a"} for found in compared)
    assert drawn == {f"{parent}>{name}" for name, all_of_it in parents.items() for parent in all_of_it}


def test_every_diagram_is_in_a_notebook_with_words_for_those_who_do_not_see_it():
    cells = [cell for path in NOTEBOOKS.glob("*.ipynb") for cell in nbformat.read(path, as_version=4).cells]
    shown = re.findall(r"!\[([^]]*)\]\(figures/(\w+)\.svg\)", "\n".join(cell.source for cell in cells))
    assert {name for _, name in shown} == set(FIGURES)
    assert all(len(words) > 40 for words, _ in shown)


def test_every_image_of_a_notebook_is_beside_the_notebooks():
    """JupyterLab serves the folder of the notebooks only (`make lab`), so an image elsewhere is not found."""
    cells = [cell for path in NOTEBOOKS.glob("*.ipynb") for cell in nbformat.read(path, as_version=4).cells]
    files = re.findall(r"!\[[^]]*\]\(([^)]+)\)", "\n".join(cell.source for cell in cells))
    assert files
    assert all(file.startswith("figures/") and (NOTEBOOKS / file).is_file() for file in files)
