"""The shipped weights are complete and small, and each was trained on the files beside it."""

from pathlib import Path

import pytest
import torch

from clcae_lib import paths
from clcae_lib.editing import named_directions, response
from clcae_lib.inversion import METHODS, ClcaeInverter, images_seen
from clcae_lib.models.backbone import make_backbone
from clcae_lib.training.body import pretrained_body
from clcae_lib.weights import checkpoints, load_alignment, load_encoder, load_feature_editor
from clcae_lib.worlds import get_world

FOLDER = paths.root() / "data" / "portraits"
JUDGES = [f"{kind}_{copy}" for kind in ("oracle", "identity", "perceptual") for copy in "ab"]
PEERS = ["peer_psp", "peer_restyle_psp", "peer_hfgi"]
NAMES = ["generator", *JUDGES, "body", "alignment", "inversion_foundation", "inversion_published"]
NAMES += ["feature_editor", *PEERS]
EDITED = ("yaw", "pitch", "smile", "mouth_open", "age", "hair_length", "glasses", "beard", "light_azimuth")


@pytest.fixture(autouse=True)
def _shipped(monkeypatch):
    monkeypatch.setenv("CLCAE_DATA", str(FOLDER.parent))


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_has_a_card_that_says_how_it_was_made(name):
    card = checkpoints.read_card(FOLDER / f"{name}.safetensors")
    assert card["command"].startswith("clcae train")
    assert {"seed", "seconds", "device", "images_seen", "measures"} <= card.keys()
    assert card["measures"]
    assert card["images_seen"] > 0


def test_images_seen_are_those_of_the_cards_and_0_without_a_training():
    cards = {name: checkpoints.read_card(FOLDER / f"{name}.safetensors")["images_seen"] for name in NAMES}
    expected = {name: 0 for name, method in METHODS.items() if not method.trained}
    expected |= {name: cards[f"peer_{name}"] for name in ("psp", "restyle_psp", "hfgi")}
    expected |= dict.fromkeys(("clcae", "hybrid"), cards["inversion_foundation"])
    expected |= {"clcae_published": cards["inversion_published"], "nearest_code": cards["alignment"]}
    expected["clcae_edited"] = cards["inversion_foundation"] + cards["feature_editor"]
    expected |= {"e4e": None, "restyle_e4e": None}  # not shipped, so without a card
    assert {name: images_seen(name, "portraits") for name in METHODS} == expected
    with pytest.raises(ValueError, match="is not one of"):
        images_seen("gan", "portraits")


def test_each_link_was_trained_on_the_links_that_are_here():
    assert checkpoints.check_chain(FOLDER) == []
    cards = {path.stem: checkpoints.read_card(path) for path in FOLDER.glob("*.safetensors")}
    parents = {name: {Path(parent).stem for parent in card["trained_on"]} for name, card in cards.items()}
    judged = [name for name, found in parents.items() if any(parent.endswith("_b") for parent in found)]
    assert set(judged) == {"identity_b", "perceptual_b"}, "the measuring judges take no part"
    assert parents["inversion_foundation"] == {"generator", "alignment", "perceptual_a", "identity_a"}


def test_comparisons_start_from_the_body_that_is_here_and_train_none(monkeypatch, tmp_path):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path))
    monkeypatch.setattr("clcae_lib.training.body.train", lambda *_, **__: pytest.fail("trained another body"))
    make_backbone("small").load_state_dict(pretrained_body("portraits", device="cpu"))
    assert not list(tmp_path.iterdir()), "nothing is rendered or kept either"


def test_the_body_was_trained_on_what_the_renderer_draws_today():
    card = checkpoints.read_card(FOLDER / "body.safetensors")
    assert card["renderer"] == get_world("portraits").renderer, "run clcae train body --install"


def test_directions_are_of_this_generator_and_do_what_they_are_named_after():
    world = get_world("portraits")
    found = named_directions(world, device="cpu")
    card = checkpoints.read_card(FOLDER / "directions.safetensors")
    assert {"yaw", "smile", "age", "glasses", "mouth_open"} <= found.keys() == card["measures"].keys()
    generator, oracle = world.generator(), world.oracle("measure")
    w = generator.sample_w(16, generator=torch.Generator().manual_seed(9))
    for name in ("yaw", "smile", "age", "glasses"):
        column = list(world.factor_names).index(name)
        moved = response(generator, oracle, found[name], w)[:, column].mean() / world.factor_std[column]
        assert moved > 0.5, name


def test_the_feature_editor_carries_f_closer_to_where_it_belongs_than_the_formula():
    world = get_world("portraits")
    load_feature_editor(world.weights("feature_editor"), world.generator())
    measures = checkpoints.read_card(world.weights("feature_editor"))["measures"]
    for term in ("feature", "l2", "perceptual", "identity"):
        assert measures[term] < 0.9 * measures[f"formula_{term}"], term


def test_all_weights_together_stay_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) < 40e6


def test_judges_read_what_the_edits_need():
    for copy in "ab":
        r2 = checkpoints.read_card(FOLDER / f"oracle_{copy}.safetensors")["measures"]["r2"]
        assert all(r2[name] >= 0.85 for name in EDITED), r2
        identity = checkpoints.read_card(FOLDER / f"identity_{copy}.safetensors")["measures"]
        assert identity["verification_auc"] >= 0.96


def test_the_oracle_reads_held_out_renders_as_its_card_says():
    world = get_world("portraits")
    images = world.images("test", 200)
    oracle = world.oracle("measure")
    with torch.no_grad():
        found = oracle(images.images(slice(None)))
    column = list(world.factor_names).index("yaw")
    true = images.factors(slice(None))[:, column]
    r2 = 1 - (found[:, column] - true).square().mean() / true.var()
    assert abs(float(r2) - checkpoints.read_card(world.weights("oracle_b"))["measures"]["r2"]["yaw"]) < 0.05


def test_the_reference_inverter_reconstructs_better_in_each_wider_space():
    world = get_world("portraits")
    images = world.images("test", 48).images(slice(None))
    inverter = ClcaeInverter.load("portraits", preset="foundation", device="cpu")
    inversion = inverter.invert(images)
    errors = {
        space: float((inversion.decode(inverter.generator, space).clamp(-1, 1) - images).square().mean())
        for space in ("w", "w_plus", "f")
    }
    assert errors["f"] < errors["w_plus"] < errors["w"], errors
    blank = float((images - images.mean(0)).square().mean())
    assert errors["w"] < 0.5 * blank


@pytest.mark.parametrize("name", ["portraits", "portraits with encoders"])
def test_loading_networks_draws_no_random_numbers(name):
    world = get_world("portraits")
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    generator = world.generator("cpu")
    for judge in ("oracle", "identity", "perceptual"):
        getattr(world, judge)("measure")
    if name != "portraits":
        for preset in ("foundation", "published"):
            load_encoder(world.weights(f"inversion_{preset}"), generator)
        load_alignment(world.weights("alignment"))
    assert torch.equal(torch.rand(4), wanted)
