"""Directions: their files, how they are found, and what applying them changes."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn
from torch.nn.functional import normalize

from clcae_lib.editing import (
    Direction,
    Labelled,
    alignment_probe,
    apply,
    apply_all,
    calibrate,
    channel_effects,
    channel_spread,
    condition,
    effects,
    factorise,
    fit_probe,
    ganspace,
    held_out_r_squared,
    interfacegan,
    interpolate,
    label_codes,
    load_directions,
    load_ganspace,
    mix,
    pick,
    rank_channels,
    region_effects,
    response,
    save_directions,
    sefa,
    stylespace,
    traverse,
)
from clcae_lib.inversion import Inversion
from clcae_lib.models import Generator

DIM, ROWS = 8, 8


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(32, DIM, 2, channels={4: 8, 8: 6, 16: 4, 32: 4}).eval().requires_grad_(False)


@pytest.fixture
def inversion():
    source = torch.Generator().manual_seed(1)
    w = torch.randn(3, DIM, generator=source)
    w_plus = w[:, None] + 0.1 * torch.randn(3, ROWS, DIM, generator=source)
    return Inversion(w, w_plus, torch.randn(3, 4, 16, 16, generator=source))


def unit(index):
    return torch.eye(DIM)[index]


def rows_moved(edited, inversion):
    moved = (edited.w_plus - inversion.w_plus).abs().amax(dim=(0, 2)) > 0
    return moved.nonzero().flatten().tolist()


# ------------------------------------------------------------------- files


def test_directions_survive_a_file(tmp_path):
    kept = {
        "yaw": Direction(torch.randn(DIM), "yaw", unit=2.5, provenance={"method": "interfacegan", "seed": 3}),
        "hair": Direction(torch.randn(ROWS, DIM), "hair", "w_plus", layers=(1, 4)),
        "smile": Direction(torch.randn(70), "smile", "s", 0.3, (1, 2), {"method": "stylespace"}),
    }
    loaded = load_directions(save_directions(tmp_path / "directions.safetensors", kept))
    assert loaded.keys() == kept.keys()
    for name, direction in kept.items():
        found, expected = dict(vars(loaded[name])), dict(vars(direction))
        assert torch.equal(found.pop("vector"), expected.pop("vector"))
        assert found == expected


def test_published_directions_of_interfacegan_load(tmp_path):
    row, boundary = torch.randn(512), np.random.default_rng(0).normal(size=(1, 512))
    torch.save(row[None], tmp_path / "smile.pt")
    torch.save(row.expand(1, 18, 512).clone(), tmp_path / "pose.pt")
    torch.save(torch.randn(1, 18, 512), tmp_path / "other.pt")
    np.save(tmp_path / "age.npy", boundary)
    files = ("smile.pt", "pose.pt", "other.pt", "age.npy")
    smile, pose, other, age = (load_directions(tmp_path / f)[f.partition(".")[0]] for f in files)
    assert (smile.name, smile.space) == ("smile", "w")
    assert torch.equal(smile.vector, row)
    assert torch.equal(pose.vector, row)
    assert (other.space, tuple(other.vector.shape)) == ("w_plus", (18, 512))
    assert (age.name, age.space, age.vector.dtype) == ("age", "w", torch.float32)
    assert np.allclose(age.vector.numpy(), boundary[0], atol=1e-6)


def test_published_components_of_ganspace_load(tmp_path):
    vectors, std = torch.randn(80, 1, 512), torch.rand(80)
    torch.save({"mean": torch.randn(1, 512), "comp": vectors, "std": std}, tmp_path / "pca.pt")
    loaded = load_ganspace(tmp_path / "pca.pt")
    assert torch.equal(loaded.vectors, vectors[:, 0])
    assert loaded.direction(3).unit == pytest.approx(std[3].item())


def test_a_direction_in_w_acts_on_every_layer():
    with pytest.raises(ValueError, match='give space="w_plus"'):
        Direction(unit(0), "yaw", layers=(1, 2))
    with pytest.raises(ValueError, match=r'"s" is \[S\]'):
        Direction(torch.ones(2, 5), "smile", "s")
    assert Direction(unit(0), "yaw").restricted([1, 2]).layers == (1, 2)
    steps = Direction(unit(0), "yaw", unit=3.0).step(torch.tensor([1.0, -2.0]))
    assert torch.equal(steps, torch.stack([3 * unit(0), -6 * unit(0)]))


# ------------------------------------------------------------------- finding


def test_interfacegan_finds_the_normal_that_made_the_labels():
    source = torch.Generator().manual_seed(2)
    w = torch.randn(4000, DIM, generator=source) * torch.linspace(0.3, 3, DIM)
    normal = normalize(torch.randn(DIM, generator=source) / torch.linspace(0.3, 3, DIM), dim=0)
    for sign in (1, -1):
        found = interfacegan(w, sign * (w @ normal), name="smile", penalty=1.0)
        assert found.vector.norm().item() == pytest.approx(1, abs=1e-5)
        assert sign * (found.vector @ normal).item() > 0.98
        assert found.provenance["accuracy"] > 0.99
    with pytest.raises(ValueError, match=r"share=0\.001"):
        interfacegan(w[:100], w[:100, 0], name="smile", share=0.001)
    with pytest.raises(ValueError, match="the ends overlap"):
        interfacegan(w[:100], torch.zeros(100), name="smile")


def test_conditioning_removes_what_is_shared_and_nothing_else():
    mixed = Direction(unit(0) + unit(1) + 2 * unit(2), "age")
    others = [Direction(unit(1), "glasses"), Direction(unit(1) + unit(2), "grey")]
    free = condition(mixed, others)
    assert torch.allclose(free.vector, unit(0), atol=1e-6)
    assert free.provenance["conditioned_on"] == ["glasses", "grey"]
    assert condition(mixed, []) is mixed
    with pytest.raises(ValueError, match="is in the span of age"):
        condition(mixed, [mixed])


def test_ganspace_equals_principal_components_of_scikit_learn():
    source = torch.Generator().manual_seed(3)
    w = torch.randn(500, DIM, generator=source) @ torch.randn(DIM, DIM, generator=source) + 2
    ours, theirs = ganspace(w, components=4), PCA(4).fit(w.double().numpy())
    assert torch.allclose(ours.std.double(), torch.from_numpy(theirs.explained_variance_).sqrt(), rtol=1e-4)
    cosines = (ours.vectors.double() * torch.from_numpy(theirs.components_)).sum(dim=1)
    assert torch.allclose(cosines.abs(), torch.ones(4).double(), atol=1e-5)
    with pytest.raises(ValueError, match="components=9"):
        ganspace(w, components=9)


def test_sefa_maximises_what_the_modulation_weights_amplify(generator):
    values, vectors = factorise(generator, layers=[1, 2])
    weights = torch.cat([generator.convs[k].conv.modulation.weight for k in (0, 1)])
    rows = normalize(weights, dim=1)
    assert torch.allclose((rows @ vectors.T).square().sum(dim=0), values, atol=1e-4)  # what v amplifies
    assert torch.allclose(values, torch.linalg.svdvals(rows).square(), atol=1e-4)
    assert torch.allclose(vectors @ vectors.T, torch.eye(DIM), atol=1e-5)
    assert [d.layers for d in sefa(generator, layers=[1, 2], count=3)] == [(1, 2)] * 3
    assert [d.space for d in sefa(generator, count=2)] == ["w", "w"]
    with pytest.raises(ValueError, match="convolutions are 0 to 6"):
        sefa(generator, layers=[7])


def test_sefa_edits_the_layers_that_it_factorised(generator, inversion):
    """Only the activations from the first factorised layer on may change."""
    edited = apply(generator, inversion, sefa(generator, layers=[2, 3], count=1)[0], 1.0)
    before, after = (generator.run_with_activations(codes.w_plus)[1] for codes in (inversion, edited))
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True] * 3 + [False] * 5


def test_a_linear_probe_reads_what_is_linear_and_reports_when_nothing_is():
    source = torch.Generator().manual_seed(8)
    x = torch.randn(1000, 6, generator=source)
    noise = torch.randn(1000, generator=source)
    y = torch.stack([3 * x[:, 0] - x[:, 1] + 4, noise, x[:, 2] + noise], dim=1)
    probe = fit_probe(x, y, penalty=1e-4)
    assert probe.weight[:2, 0].tolist() == pytest.approx([3, -1], abs=0.01)
    assert probe.bias[0].item() == pytest.approx(4, abs=0.01)
    linear, unrelated, noisy = held_out_r_squared(x, y, penalty=1e-4).tolist()
    assert linear > 0.999
    assert unrelated < 0.03
    assert 0.3 < noisy < 0.65


def test_the_alignment_probes_direction_is_the_mean_gradient():
    source = torch.Generator().manual_seed(9)
    w = torch.randn(600, DIM, generator=source)
    turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=source))[0]

    def encoder(codes):
        return torch.tanh(codes @ turn)

    factors = torch.stack([encoder(w) @ torch.ones(DIM), torch.randn(600, generator=source)], dim=1)
    found = alignment_probe(encoder, Labelled(w, factors), {"smile": 0}, penalty=1e-5)["smile"]
    slope = (1 - encoder(w).square()).mean(dim=0)
    assert (found.vector @ normalize(turn @ slope, dim=0)).item() > 0.999
    assert (found.name, found.provenance["method"]) == ("smile", "alignment")
    assert found.provenance["r_squared"] > 0.99


# ------------------------------------------------------------------- measuring and calibrating


class Plain(Generator):
    """A generator whose images are its codes, so that their factors are known."""

    style_dim, n_latent = DIM, ROWS

    def __init__(self):
        nn.Module.__init__(self)

    def sample_w(self, n, *, generator):
        return torch.randn(n, DIM, generator=generator) * 0.1

    def synthesis(self, w, *, noise="fixed", style_offsets=None):
        w = w.mean(dim=1) if w.ndim == 3 else w
        return w.view(len(w), 1, 1, DIM)


class Linear(nn.Module):
    """Three factors: 5 w0 degrees, w1 limited to 0.2, and w0 + w2."""

    def forward(self, images):
        w = images.flatten(1)
        return torch.stack([5 * w[:, 0], w[:, 1].clamp(-0.2, 0.2), w[:, 0] + w[:, 2]], dim=1)


def test_calibrated_strength_one_is_one_standard_deviation():
    for sign in (1, -1):
        found = calibrate(Direction(sign * 4 * unit(0), "yaw"), Plain(), Linear(), column=0, std=3.0)
        assert torch.allclose(found.step(1.0), 0.6 * unit(0), rtol=0.03, atol=1e-6)  # 5 * 0.6 = 3
        assert found.provenance["moved"] == pytest.approx(1, abs=0.03)
    limited = calibrate(Direction(unit(1), "limited"), Plain(), Linear(), column=1, std=1.0)
    assert limited.provenance["moved"] == pytest.approx(0.2, abs=0.02)


def test_effects_and_the_choice_of_the_most_selective():
    directions = [Direction(unit(i), str(i)) for i in range(4)]
    table = effects(Plain(), Linear(), directions, std=torch.tensor([5.0, 1.0, 1.0]))
    assert table[0].tolist() == pytest.approx([1, 0, 1], abs=1e-5)
    assert table[2].tolist() == pytest.approx([0, 0, 1], abs=1e-5)
    assert table[3].abs().max() == 0
    assert pick(table, 2) == 2  # component 0 moves the third factor as far, and the first with it
    assert pick(table, 0) == 0


def test_labels_are_the_regressors_reading_of_each_codes_image():
    labelled = label_codes(Plain(), Linear(), 100, seed=0)
    assert torch.allclose(labelled.factors[:, 0], 5 * labelled.w[:, 0])
    assert label_codes(Plain(), Linear(), 100, seed=0).w.equal(labelled.w)
    step = response(Plain(), Linear(), Direction(unit(0), "yaw", unit=2.0), labelled.w)
    assert step[:, 0].tolist() == pytest.approx([10.0] * 100, rel=1e-4)
    assert step[:, 2].mean().item() == pytest.approx(2.0, rel=1e-4)


# ------------------------------------------------------------------- applying


def test_an_edit_moves_all_three_codes_of_each_image(generator, inversion):
    direction = Direction(unit(2), "yaw", unit=0.5)
    edited = apply(generator, inversion, direction, 3.0)
    assert torch.allclose(edited.w - inversion.w, 1.5 * unit(2).expand(3, DIM), atol=1e-6)
    assert torch.allclose(edited.w_plus - inversion.w_plus, 1.5 * unit(2).expand(3, ROWS, DIM), atol=1e-6)
    five = [generator.run_with_activations(codes.w_plus)[1][5] for codes in (edited, inversion)]
    assert torch.allclose(edited.feature, inversion.feature + five[0] - five[1], atol=1e-5)
    corrections = edited.feature - inversion.feature
    assert not torch.allclose(corrections[0], corrections[1], atol=1e-4)
    for i in range(3):
        single = apply(generator, inversion[i], direction, 3.0)
        assert torch.allclose(edited.feature[i], single.feature[0], atol=1e-5)
    assert apply(generator, Inversion(inversion.w, inversion.w_plus), direction).feature is None


def test_an_edit_of_the_generators_own_codes_is_exact(generator):
    """With F the generator's own activation, decoding with it must equal decoding only the edited W+."""
    own = Inversion.from_w(generator.sample_w(2, generator=torch.Generator().manual_seed(4)), generator)
    own = Inversion(own.w, own.w_plus, generator.activation(own.w_plus))
    edited = apply(generator, own, Direction(unit(3), "age"), 1.0)
    assert torch.allclose(edited.decode(generator), generator.synthesis(edited.w), atol=1e-5)


def test_strengths_may_differ_and_zero_changes_nothing(generator, inversion):
    edited = apply(generator, inversion, Direction(unit(0), "yaw"), torch.tensor([0.0, 1.0, -2.0]))
    assert torch.equal(edited.w[0], inversion.w[0])
    assert torch.allclose(edited.feature[0], inversion.feature[0], atol=1e-6)
    assert (edited.w - inversion.w)[:, 0].tolist() == pytest.approx([0, 1, -2], abs=1e-5)


def test_layers_limit_an_edit(generator, inversion):
    edited = apply(generator, inversion, Direction(unit(0), "yaw"), 1.0, layers=[0, 2])
    assert rows_moved(edited, inversion) == [0, 2]
    assert torch.equal(edited.w, inversion.w)
    own_layers = Direction(unit(0), "yaw", "w_plus", layers=(1, 2))
    assert rows_moved(apply(generator, inversion, own_layers, 1.0, layers=[2, 3]), inversion) == [2]
    by_row = Direction(torch.arange(ROWS)[:, None] * unit(0), "rows", "w_plus")
    step = (apply(generator, inversion, by_row, 1.0).w_plus - inversion.w_plus)[0, :, 0]
    assert step.tolist() == pytest.approx(list(range(ROWS)), abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "space", "layers", "message"),
    [
        ([512], "w", None, "pose: made for 512 numbers in a code; .* has 8"),
        ([18, DIM], "w_plus", None, r"pose: made for 18 rows of W\+; .* has 8"),
        ([DIM], "w", [1, 8], r"pose: acts on layers \[1, 8\]; the rows .* are 0 to 7"),
        ([DIM], "w", [-1], r"pose: acts on layers \[-1\]; the rows .* are 0 to 7"),
        ([5], "s", None, "pose: made for 5 style channels"),
    ],
)
def test_an_edit_that_does_not_fit_names_what_does_not(generator, inversion, shape, space, layers, message):
    with pytest.raises(ValueError, match=message):
        apply(generator, inversion, Direction(torch.zeros(shape), "pose", space), layers=layers)


def test_edits_in_sequence_add_up(generator, inversion):
    yaw, smile = Direction(unit(0), "yaw"), Direction(unit(1), "smile")
    once = apply_all(generator, inversion, [(yaw, 1.0), (smile, -1.0)])
    steps = apply(generator, apply(generator, inversion, smile, -1.0), yaw, 1.0)
    for name in ("w", "w_plus", "feature"):
        assert torch.allclose(getattr(once, name), getattr(steps, name), atol=1e-5)


def test_traversal_has_the_unedited_image_at_zero(generator, inversion):
    strip = traverse(generator, inversion, Direction(unit(0), "yaw"), (-1, 0, 1), space="w_plus")
    assert strip.shape == (3, 3, 3, 32, 32)
    assert torch.allclose(strip[:, 1], generator.synthesis(inversion.w_plus), atol=1e-5)
    assert not torch.allclose(strip[:, 0], strip[:, 2], atol=1e-3)


def test_mixing_takes_rows_from_the_other_and_carries_f(generator, inversion):
    a, b = inversion[:2], inversion[2:3]
    mixed = mix(generator, a, b, [5, 6, 7])
    assert torch.equal(mixed.w_plus[:, :5], a.w_plus[:, :5])
    assert torch.equal(mixed.w_plus[:, 5:], b.w_plus[:, 5:].expand(2, -1, -1))
    assert torch.allclose(mixed.feature, a.feature, atol=1e-6)  # only layers above F were mixed
    low = mix(generator, a, b, [0, 1])
    moved = generator.activation(low.w_plus) - generator.activation(a.w_plus)
    assert torch.allclose(low.feature, a.feature + moved, atol=1e-5)
    assert moved.abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"W\+ are 0 to 7"):
        mix(generator, a, b, [8])


def test_interpolation_meets_both_ends_and_the_middle(inversion):
    a, b = inversion[0:1], inversion[1:2]
    assert torch.equal(interpolate(a, b, 0.0).w_plus, a.w_plus)
    assert torch.allclose(interpolate(a, b, 1.0).feature, b.feature)
    assert torch.allclose(interpolate(a, b, 0.5).w, (a.w + b.w) / 2)


# ------------------------------------------------------------------- StyleSpace


def channels_of(generator):
    return sum(generator.style_sizes)


def test_styles_are_what_the_layers_make_of_a_code(generator):
    """An offset equal to the difference of two codes' styles must turn one image into the other."""
    a, b = torch.randn(2, 3, ROWS, DIM, generator=torch.Generator().manual_seed(5))
    offset = generator.styles(b) - generator.styles(a)
    assert offset.shape == (3, channels_of(generator))
    for stop in (None, 8):
        moved, plain = (generator.synthesis(a, style_offsets=o, stop_at=stop) for o in (offset, None))
        assert torch.allclose(moved, generator.synthesis(b, stop_at=stop), atol=1e-5)
        assert not torch.allclose(moved, plain, atol=1e-3)
    rows = torch.tensor(generator.style_rows)
    for row in range(ROWS):
        other = a[:1].clone()
        other[:, row] += 1
        assert torch.equal((generator.styles(other) - generator.styles(a[:1]))[0].abs() > 1e-6, rows == row)


def test_an_edit_in_stylespace_carries_f_and_adds_up(generator, inversion):
    vector = torch.randn(channels_of(generator), generator=torch.Generator().manual_seed(6))
    direction = Direction(vector, "smile", "s", unit=0.2)
    edited = apply(generator, inversion, direction, torch.tensor([0.0, 1.0, -2.0]))
    assert torch.equal(edited.w_plus, inversion.w_plus)
    assert torch.allclose(edited.styles[2], -0.4 * vector, atol=1e-6)
    expected = inversion.feature - generator.activation(inversion.w_plus)
    expected = expected + generator.activation(inversion.w_plus, style_offsets=edited.styles)
    assert torch.allclose(edited.feature, expected, atol=1e-5)
    assert (edited.feature - inversion.feature)[1].abs().max() > 1e-3
    twice = apply(generator, apply(generator, inversion, direction, 0.5), direction, 0.5)
    assert torch.allclose(twice.styles[1], edited.styles[1], atol=1e-6)
    assert torch.allclose(twice.feature[1], edited.feature[1], atol=1e-4)
    assert not torch.allclose(edited.decode(generator)[1], inversion.decode(generator)[1], atol=1e-3)


def test_layers_mixing_and_interpolation_apply_to_styles_too(generator, inversion):
    direction = Direction(torch.ones(channels_of(generator)), "smile", "s")
    rows = torch.tensor(generator.style_rows)
    limited = apply(generator, inversion, direction, 1.0, layers=[2, 5])
    assert torch.equal(limited.styles[0] > 0, torch.isin(rows, torch.tensor([2, 5])))
    plain, smiling = inversion[:1], apply(generator, inversion[1:2], direction, 2.0)
    assert torch.equal(mix(generator, plain, smiling, [1]).styles[0] == 2, rows == 1)
    assert torch.allclose(interpolate(plain, smiling, 0.25).styles, torch.tensor(0.5))
    assert interpolate(plain, plain, 0.5).styles is None


def difference(generator, w, spread, channel):
    """Return the change of the images by one standard deviation of a channel, by finite differences."""
    offset = torch.zeros(1, len(spread))
    offset[0, channel] = 0.01
    ends = [generator.synthesis(w, style_offsets=sign * offset) for sign in (1, -1)]
    return (ends[0] - ends[1]) / 0.02 * spread[channel]


def test_effects_of_channels_are_their_derivatives(generator):
    def reading(images):
        return torch.stack([images[:, 0].mean(dim=(1, 2)), images[:, :, 4:8, 4:8].mean(dim=(1, 2, 3))], 1)

    w = torch.randn(20, DIM, generator=torch.Generator().manual_seed(7))
    spread = channel_spread(generator, count=50)
    found = channel_effects(generator, reading, w, spread=spread)
    assert found.shape == (channels_of(generator), 2)
    for channel in (0, 9, channels_of(generator) - 1):
        slope = reading(difference(generator, w, spread, channel)).mean(dim=0)
        assert torch.allclose(found[channel], slope, rtol=0.02, atol=1e-3)


def test_effects_on_a_region_are_measured_inside_and_outside(generator):
    mask = torch.zeros(32, 32)
    mask[:8, :8] = 1
    w, spread = torch.randn(3, DIM), channel_spread(generator, count=50)
    found = region_effects(generator, mask, w, spread=spread, probes=200)
    squares = difference(generator, w, spread, 3).square()
    inside = squares[:, :, :8, :8].mean().sqrt().item()
    outside = ((squares.sum() - squares[:, :, :8, :8].sum()) / (9 * (1024 - 64))).sqrt().item()
    assert found[3].tolist() == pytest.approx([inside, outside], rel=0.25)
    with pytest.raises(ValueError, match="mask: expected"):
        region_effects(generator, torch.ones(32, 32), w, spread=spread)


def test_channels_are_ranked_and_joined_by_their_effect():
    table = torch.tensor([[0.1, 0.0], [-0.9, 0.1], [1.0, 3.0], [0.3, 0.0]])
    assert rank_channels(table, 0)[:2] == [1, 3]
    spread, rows = torch.tensor([1.0, 2.0, 1.0, 1.0]), [0, 0, 1, 1]
    one, two = (stylespace(table, spread, rows, 0, name="smile", channels=n) for n in (1, 2))
    assert one.vector.tolist() == [0, 0, 1, 0]
    assert torch.allclose(two.vector, normalize(torch.tensor([0, -1.8, 1.0, 0]), dim=0))
    first = stylespace(table, spread, rows, 0, name="smile", channels=1, layers=[0])
    assert (first.vector.tolist(), first.layers, first.provenance["channels"]) == ([0, -1, 0, 0], (0,), [1])
    with pytest.raises(ValueError, match="have 2 of them"):
        stylespace(table, spread, rows, 0, name="smile", channels=3, layers=[0])
