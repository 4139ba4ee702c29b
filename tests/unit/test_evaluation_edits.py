"""Reconstructions, edits and generators measured in a world so simple that every number is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from clcae_lib.editing import Direction, cached_directions, find_directions
from clcae_lib.evaluation import (
    Judges,
    effect_matrix,
    evaluate_generator,
    evaluate_inversion,
    measure_edits,
    measure_paths,
    oracle_check,
    r_squared,
    same_person_similarity,
    summarise_edits,
    summarise_paths,
    true_edit,
)
from clcae_lib.evaluation.paths import _smoothness
from clcae_lib.inversion import Inversion
from clcae_lib.models import Generator
from clcae_lib.worlds import World, WorldError

NAMES = ("yaw", "smile", "glasses", "nose")
STD = torch.tensor([10.0, 0.5, 0.25, 0.5])
SCALE = torch.tensor([40.0, 2.0, 2.0, 2.0])
SIDE, DIM, ROWS = 16, 4, 8
LAYERS = {"interfacegan": (1, 2), "ganspace": (1, 2), "sefa": (0,), "alignment": (2,)}


def paint(values):
    """A picture whose bands of rows are the factors, each divided by its scale."""
    bands = (values / SCALE).repeat_interleave(SIDE // DIM, dim=1)
    return bands[:, None, :, None].expand(-1, 3, -1, SIDE).contiguous()


def read(images):
    return images.mean(dim=(1, 3)).unflatten(1, (DIM, -1)).mean(dim=2) * SCALE


class Reader(nn.Module):
    """Reads the factors back, `gain` times too large."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = gain

    def forward(self, images):
        return self.gain * read(images)


class Face(nn.Module):
    """An identity that is the angle of the nose's value."""

    def forward(self, images):
        angle = read(images)[:, 3]
        return torch.stack([angle.cos(), angle.sin()], dim=1)


class Difference(nn.Module):
    name = "plain difference"

    def forward(self, a, b):
        return (a - b).abs().mean(dim=(1, 2, 3))

    def pooled(self, images):
        return read(images) / STD


class Painter(Generator):
    """A generator whose code is the factors; its activation 5 holds them too, and is what it paints."""

    style_dim, n_latent = DIM, ROWS

    def __init__(self, spread=1.0):
        nn.Module.__init__(self)
        self.spread = spread

    def sample_w(self, n, *, generator):
        return self.spread * torch.randn(n, DIM, generator=generator) * STD

    def activation(self, w, *, side=16, style_offsets=None, noise="fixed"):
        w = w.mean(dim=1) if w.ndim == 3 else w
        return w[:, :, None, None].expand(-1, -1, 2, 2)

    def synthesis(self, w, *, feature=None, style_offsets=None, noise="fixed", stop_at=None):
        return paint((self.activation(w) if feature is None else feature).mean(dim=(2, 3)))


class Exact:
    """Inverts without error in F, with an error of 0.1 standard deviations in W+, and of 0.2 in W."""

    generator = Painter()

    def invert(self, images):
        values = read(images)
        w_plus = (values + 0.1 * STD)[:, None].expand(-1, ROWS, -1)
        return Inversion(values + 0.2 * STD, w_plus, values[:, :, None, None].expand(-1, -1, 2, 2))


class Portraits:
    def __init__(self, size, view=0):
        source = torch.Generator().manual_seed(7)
        self.values = torch.randn(size, DIM, generator=source) * STD
        if view:
            self.values[:, :3] = torch.randn(size, 3, generator=source) * STD[:3]

    def __len__(self):
        return len(self.values)

    def factors(self, indices):
        return self.values[list(indices)]

    def images(self, indices):
        return paint(self.factors(indices))


class Bands(World):
    name, resolution = "bands", SIDE
    factor_names, state_names = NAMES, NAMES[:3]
    factor_std = STD
    factor_low, factor_high = torch.tensor([-40.0, -2, -2, -2]), torch.tensor([40.0, 2, 2, 2])

    def __init__(self, spread=1.0):
        self.spread = spread

    def images(self, split, size=None, *, view=0):
        return Portraits(size, view)

    def generator(self, device="cpu"):
        return Painter(self.spread)

    def oracle(self, role, device="cpu"):
        return Reader(gain=1.0 if role == "measure" else 1.25)

    def identity(self, role, device="cpu"):
        return Face()

    def perceptual(self, role, device="cpu"):
        return Difference()

    def render(self, factors):
        return paint(factors)


@pytest.fixture
def judges():
    return Judges.of(Bands())


@pytest.fixture
def portraits():
    data = Portraits(40)
    return data.images(range(40)), data.factors(range(40))


def direction(name, *, others=()):
    vector = torch.zeros(DIM)
    for each in (name, *others):
        vector[NAMES.index(each)] = STD[NAMES.index(each)]
    return Direction(vector, name)


# ------------------------------------------------------------------- reconstruction


def test_reconstruction_errors_are_those_of_the_inverter(judges, portraits):
    images, factors = portraits
    table = evaluate_inversion(Exact(), images, judges=judges, factors=factors, batch_size=7)
    assert len(table) == 3 * 40
    assert table["perceptual_name"].unique().tolist() == ["plain difference"]
    means = table.groupby("space").mean(numeric_only=True)
    assert means["factor_error"].to_dict() == pytest.approx({"w": 0.2, "w_plus": 0.1, "f": 0}, abs=1e-5)
    assert means["factor_error_render"].max() == pytest.approx(0, abs=1e-5)
    step = (0.1 * STD / SCALE).square().mean().item()
    assert means.loc["w_plus", "mse"] == pytest.approx(step, rel=1e-4)
    assert means.loc["w_plus", "psnr"] == pytest.approx(10 * math.log10(4 / step), abs=0.01)
    assert means.loc["w", "identity"] == pytest.approx(math.cos(0.1), abs=1e-5)  # 0.2 of 0.5
    assert means.loc["f", "ssim"] == pytest.approx(1, abs=1e-5)
    assert means.loc["w", "perceptual"] == pytest.approx((0.2 * STD / SCALE).mean().item(), rel=1e-4)


def test_the_oracle_is_checked_on_renders_and_on_reconstructions(judges, portraits):
    images, factors = portraits
    blurred = paint(factors * torch.tensor([1.0, 0.5, 1.0, 1.0]))
    table = oracle_check(blurred, images, factors, judges=judges).set_index("factor")
    assert list(table.index) == list(NAMES[:3])
    assert table["r2_renders"].tolist() == pytest.approx([1, 1, 1])
    mean, spread = factors[:, 1].mean().item(), factors[:, 1].std(correction=0).item()
    assert table.loc["smile", "r2_inversions"] == pytest.approx(
        1 - 0.25 * (1 + (mean / spread) ** 2), abs=1e-4
    )
    assert r_squared(factors.mean(dim=0).expand(40, 4), factors).abs().max() < 1e-5


def test_one_person_in_two_states_keeps_its_identity():
    assert same_person_similarity(Bands(), count=20).tolist() == pytest.approx([1.0] * 20, abs=1e-5)


# ------------------------------------------------------------------- edits


@pytest.mark.parametrize("space", ["w", "w_plus", "f"])
def test_an_exact_edit_is_seen_as_exact(judges, portraits, space):
    images, factors = portraits
    table = measure_edits(Exact(), {"smile": direction("smile")}, images, factors, judges=judges, space=space)
    assert table["moved"].tolist() == pytest.approx([1.0] * 40, abs=1e-4)
    assert table["reached"].all()
    assert table["leakage"].max() < 1e-4
    assert table["leakage_truth"].max() < 1e-4
    inverted = {"w": 0.2, "w_plus": 0.1, "f": 0.0}[space]
    assert (table["moved_from_original"] - table["moved"]).abs().max() == pytest.approx(inverted, abs=1e-4)
    if space == "f":
        assert table["truth_distance"].max() < 1e-6
        assert table["identity"].min() > 0.9999


def test_leakage_is_the_root_mean_square_of_what_else_moved(judges, portraits):
    images, factors = portraits
    leaky = direction("smile", others=("yaw", "nose"))
    table = measure_edits(Exact(), {"smile": leaky}, images, factors, judges=judges)
    assert table["leakage"].tolist() == pytest.approx(
        [math.sqrt(1 / 2)] * 40, abs=1e-4
    )  # yaw of yaw and glasses
    assert table["identity"].tolist() == pytest.approx(
        [math.cos(0.5)] * 40, abs=1e-4
    )  # the nose turned by 0.5
    expected = (STD[0] / SCALE[0] + STD[3] / SCALE[3]).item() / DIM
    assert table["truth_distance"].tolist() == pytest.approx([expected] * 40, rel=1e-3)
    matrix = effect_matrix(table, factors=["yaw", "smile", "glasses"])
    assert matrix.loc["smile"].tolist() == pytest.approx([1, 1, 0], abs=1e-4)


def test_an_edit_the_wrong_way_or_too_weak_is_not_reached(judges, portraits):
    images, factors = portraits
    backward, weak = direction("yaw").flipped(), Direction(0.4 * direction("yaw").vector, "yaw")
    for wrong, moved in ((backward, -1.0), (weak, 0.4)):
        table = measure_edits(Exact(), {"yaw": wrong}, images, factors, judges=judges)
        assert table["moved"].mean() == pytest.approx(moved, abs=1e-4)
        assert not table["reached"].any()


def test_the_side_with_room_is_edited_and_the_truth_stays_in_range(judges):
    factors = torch.tensor([[35.0, 0, 0, 0], [-35.0, 0, 0, 0]])
    signs, changed = true_edit(judges, factors, "yaw")
    assert signs.tolist() == [-1, 1]
    assert changed[:, 0].tolist() == [25, -25]
    signs, changed = true_edit(judges, factors, "yaw", side="up")
    assert (signs.tolist(), changed[:, 0].tolist()) == ([1, 1], [40, -25])
    images = paint(factors)
    table = measure_edits(Exact(), {"yaw": direction("yaw")}, images, factors, judges=judges, side="up")
    assert table["wanted"].tolist() == pytest.approx([0.5, 1])
    down = measure_edits(Exact(), {"yaw": direction("yaw")}, images, factors, judges=judges, side="down")
    assert down["strength"].tolist() == [-1, -1]
    assert down["moved"].tolist() == pytest.approx([1, 0.5], abs=1e-4)  # pictures end at black, and so at -40
    with pytest.raises(ValueError, match="'tail'"):
        true_edit(judges, factors, "tail")


def test_the_summary_counts_portraits_reached(judges, portraits):
    images, factors = portraits
    edits = {"yaw": direction("yaw"), "glasses": Direction(torch.zeros(DIM), "glasses")}
    table = summarise_edits(measure_edits(Exact(), edits, images, factors, judges=judges))
    shares = table[table["metric"] == "reached"].set_index("factor")["value"].to_dict()
    assert shares == {"yaw": 1.0, "glasses": 0.0}


def test_a_straight_path_is_monotone_and_even(judges, portraits):
    images, factors = portraits
    edits = {"smile": direction("smile"), "yaw": direction("yaw").flipped()}
    table = measure_paths(Exact(), edits, images, factors, judges=judges)
    means = table.groupby("factor").mean(numeric_only=True)
    assert means.loc["smile", ["monotone", "rank", "moved", "jump"]].tolist() == pytest.approx(
        [1] * 4, abs=1e-3
    )
    assert means.loc["yaw", ["monotone", "rank", "moved"]].tolist() == pytest.approx([0, -1, -1], abs=1e-3)
    step = 0.5 * (STD[1] / SCALE[1]).item() / DIM  # what half a standard deviation changes of the picture
    assert means.loc["smile", "path_length"] == pytest.approx(step / 0.25, rel=1e-3)
    plain = measure_edits(Exact(), {"smile": direction("smile")}, images, factors, judges=judges)
    same = ["moved", "leakage", "identity", "truth_distance", "effect.nose"]
    smile = table[table["factor"] == "smile"]
    assert np.allclose(smile[same].to_numpy(), plain[same].to_numpy(), atol=1e-5)
    shares = summarise_paths(table, resamples=50)
    shares = shares[shares["metric"] == "monotone"].set_index("factor")["value"].to_dict()
    assert shares == {"smile": 1.0, "yaw": 0.0}


def test_a_path_that_does_everything_at_once_is_a_jump(judges):
    """Pictures that change in one of four steps have a jump of 4; a path that never changes has 1."""
    same, other = torch.zeros(2, 3, SIDE, SIDE), torch.full((2, 3, SIDE, SIDE), 0.5)
    sudden = _smoothness(judges, [same, same, same, other, other], 0.5)
    assert sudden["jump"] == pytest.approx([4, 4])
    assert sudden["path_length"] == pytest.approx([0.5 / 4 / 0.25] * 2)
    assert _smoothness(judges, [same] * 5, 0.5) == {"path_length": [0, 0], "jump": [1, 1]}


def test_a_factor_at_its_end_lowers_the_rank_less_than_the_share(judges):
    images = paint(torch.tensor([[-38.0, 0, 0, 0]]))
    table = measure_paths(Exact(), {"yaw": direction("yaw")}, images, read(images), judges=judges)
    assert table["monotone"].tolist() == [False]  # images end at black, and so at -40: a tie of two readings
    assert table["rank"].tolist() == pytest.approx([spearmanr(range(5), [1.5, 1.5, 3, 4, 5]).statistic])
    assert 0.9 < table["rank"].item() < 1


def test_an_edit_that_does_nothing_has_no_rank(judges, portraits):
    images, factors = portraits
    edits = {"smile": Direction(torch.zeros(DIM), "smile"), "yaw": direction("yaw")}
    table = measure_paths(Exact(), edits, images, factors, judges=judges)
    ranks = table.set_index("factor")["rank"]
    assert ranks["smile"].isna().all()
    assert ranks["yaw"].notna().all()
    means = summarise_paths(table, resamples=20).set_index(["factor", "metric"])["value"]
    assert ("smile", "rank") not in means.index
    assert means["smile", "monotone"] == 0


def test_a_range_of_unequal_steps_is_refused(judges, portraits):
    images, factors = portraits
    with pytest.raises(ValueError, match="equal steps"):
        measure_paths(Exact(), {}, images, factors, judges=judges, strengths=(-1, 0, 2))


@pytest.mark.parametrize("method", ["interfacegan", "ganspace", "sefa", "alignment"])
def test_directions_found_by_name_move_their_factor(judges, portraits, method, monkeypatch):
    images, factors = portraits
    world = Bands()
    if method == "sefa":
        world.generator = lambda device="cpu": with_weights(Painter())
    if method == "alignment":
        monkeypatch.setattr(World, "require", lambda self, name, command: name)
        encoder = nn.Linear(DIM, DIM, bias=False).requires_grad_(False)
        monkeypatch.setattr(
            "clcae_lib.editing.find.load_alignment", lambda path, device: (None, encoder, 1.0)
        )
    found = find_directions(world, ["yaw", "glasses"], method, samples=2000, components=4)
    assert [d.name for d in found.values()] == ["yaw", "glasses"]
    table = measure_edits(Exact(), found, images, factors, judges=judges)
    moved = table.groupby("factor")["moved"].mean()
    assert moved.to_dict() == pytest.approx(
        {"yaw": 0.8, "glasses": 0.8}, abs=0.05
    )  # labels were 1.25 too large
    with pytest.raises(ValueError, match="no factor of bands: yaw, smile"):
        find_directions(world, ["tail"], method)
    rows = find_directions(world, ["yaw"], method, samples=500, components=4, layers=LAYERS[method])["yaw"]
    assert (rows.space, rows.layers) == ("w_plus", LAYERS[method])


def test_stylespace_is_found_by_name_and_a_missing_alignment_is_named():
    torch.manual_seed(0)
    world, generator = Bands(), Generator(SIDE, DIM, 2, channels={4: 6, 8: 6, 16: 6}).eval()
    world.generator = lambda device="cpu": generator.requires_grad_(False)
    options = {"effect_codes": 8, "calibrated_on": 16, "channels": 5}
    found = find_directions(world, ["glasses"], "stylespace", **options, layers=[0, 1])["glasses"]
    assert (found.space, found.layers, int((found.vector != 0).sum())) == ("s", (0, 1), 5)
    assert found.provenance["moved"] > 0
    with pytest.raises(WorldError, match="clcae train alignment"):
        find_directions(world, ["yaw"], "alignment", samples=100)


def test_directions_are_found_once_for_equal_arguments(tmp_path, monkeypatch):
    monkeypatch.setenv("CLCAE_CACHE", str(tmp_path))
    world, options = Bands(), {"samples": 500, "calibrated_on": 16}
    first = cached_directions(world, ["yaw"], **options)
    world.generator = None  # would fail if it were asked for
    again = cached_directions(world, ["yaw"], **options)
    assert torch.equal(first["yaw"].vector, again["yaw"].vector)
    assert first["yaw"].unit == again["yaw"].unit
    for other in ({"seed": 1}, {"layers": [0]}, {"conditional": False}):
        with pytest.raises(TypeError):
            cached_directions(world, ["yaw"], **options, **other)


def with_weights(generator):
    """Modulation weights whose leading eigenvectors are the coordinates."""
    layer = nn.Module()
    layer.conv = nn.Module()
    layer.conv.modulation = nn.Module()
    rows = torch.eye(DIM).repeat_interleave(torch.tensor([4, 3, 2, 1]), dim=0)
    layer.conv.modulation.weight = nn.Parameter(rows)
    generator.conv1, generator.convs = layer, nn.ModuleList()
    return generator


# ------------------------------------------------------------------- generators


def test_a_generator_that_draws_the_truth_is_as_near_as_renders_are():
    card = evaluate_generator(Bands(), samples=600)
    assert card["frechet"] < 0.1
    assert card["frechet_renders"] < 0.1
    assert min(card["precision"], card["recall"]) > 0.8
    assert list(card["factors"]) == list(NAMES[:3])
    assert max(card["factors"].values()) < 0.2
    assert list(card["spread"].values()) == pytest.approx([1, 1, 1], abs=0.1)
    assert (card["features"], card["samples"]) == ("plain difference", 600)


def test_a_collapsed_generator_shows_in_every_number():
    card = evaluate_generator(Bands(spread=0.1), samples=600)
    assert card["frechet"] == pytest.approx(4 * 0.9**2, rel=0.1)  # four factors, spread 0.1 for 1
    assert card["recall"] < 0.1
    assert card["precision"] > 0.9
    assert list(card["spread"].values()) == pytest.approx([0.1] * 3, abs=0.02)
    assert card["factors"]["smile"] == pytest.approx(0.9 * math.sqrt(2 / math.pi), rel=0.1)
    assert card["factors"][card["worst_factor"]] == max(card["factors"].values())
