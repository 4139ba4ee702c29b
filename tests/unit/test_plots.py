"""Figures by their contents."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from clcae_lib.plots import (
    PALETTE,
    heatmap,
    show_attention,
    show_curves,
    show_forest,
    show_grid,
    show_images,
    show_intervals,
    show_method_curves,
    show_methods,
    show_verdicts,
)
from clcae_lib.plots.methods import VERDICT_COLOURS


def flat(*levels, side=2):
    return torch.stack([torch.full((3, side, side), float(level)) for level in levels])


@pytest.fixture(autouse=True)
def nothing_left_open():
    """No function may leave a figure in pyplot's list, nor change the defaults."""
    before = dict(plt.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def png(figure):
    """The figure as a notebook shows it."""
    with Image.open(io.BytesIO(figure._repr_png_())) as image:
        return np.asarray(image.convert("RGB"))


def centred(axes):
    return [axis.get_title(loc="center") for axis in axes]


def test_a_grid_shows_its_labels_and_images():
    figure = show_grid([flat(-1, 0, 1), flat(1, 1, 1)], ["ours", "truth"], ["a", "b", "c"], title="Edits")
    axes = figure.axes
    assert centred(axes[:3]) == ["a", "b", "c"]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["ours", "truth"]
    assert [axis.images[0].get_array().mean() for axis in axes] == [0, 128, 255, 255, 255, 255]
    assert {axis.images[0].get_interpolation() for axis in axes} == {"nearest"}
    assert figure.get_suptitle() == "Edits"


def test_a_grid_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="2 row labels for 1 rows"):
        show_grid([flat(0)], ["a", "b"])
    for rows in ([], [flat(0), flat(0, 1)]):
        with pytest.raises(ValueError, match="one shape"):
            show_grid(rows)


def test_images_leave_unused_places_empty_and_stay_crisp():
    """Enlarging 8 pixels to a figure must give only their own colours, away from edges between pixels."""
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    figure = show_images(board.expand(3, 3, 8, 8), columns=2, size=3.0)
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0]
    pixels = png(figure)
    assert 600 < pixels.shape[0] < 800
    assert np.isin(pixels[40:280, 40:280, 0], [0, 255]).mean() > 0.95


def test_attention_is_brightest_where_the_weights_are_and_the_image_comes_first():
    attention = torch.zeros(2, 2, 2)
    attention[0, 0, 1], attention[1, 1, 0] = 0.3, 5.0
    figure = show_attention(torch.zeros(3, 8, 8), attention, ["w0", "w1"], columns=2)
    assert centred(figure.axes) == ["image", "w0", "w1", ""]
    for axis, brightest in zip(figure.axes[1:], (1, 2), strict=False):
        pixels = axis.images[0].get_array()
        assert pixels.shape == (8, 8, 3)
        assert pixels.reshape(2, 4, 2, 4, 3).astype(int).sum(axis=(1, 3, 4)).argmax() == brightest
        assert (pixels[:4, :4] == pixels[0, 0]).all(), "enlarged without smoothing"
    with pytest.raises(ValueError, match="not negative"):
        show_attention(torch.zeros(3, 8, 8), -attention, ["w0", "w1"])
    with pytest.raises(ValueError, match="1 titles for 2 maps"):
        show_attention(torch.zeros(3, 8, 8), attention, ["w0"])


def test_a_heatmap_writes_each_number_but_zero_and_centres_signed_ones_on_it():
    table = pd.DataFrame([[1.0, -0.5], [-0.04, 0.25]], index=["yaw", "smile"], columns=["yaw", "smile"])
    figure = heatmap(table, title="Effects")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.0", "-0.5", "", "0.2"]
    assert heatmap(table.abs()).axes[0].collections[0].get_clim() == (0.0, 1.0)
    mesh = figure.axes[0].collections[0]
    assert mesh.get_clim() == (-1.0, 1.0)
    assert min(mesh.cmap(mesh.norm(0.0))[:3]) > 0.9
    assert png(figure).std() > 1


def test_intervals_have_the_places_of_the_table():
    table = pd.DataFrame(
        {
            "variant": ["full", "none", "full", "none"],
            "origin": ["live", "live", "reference", "reference"],
            "value": [1.0, 2.0, 1.5, 2.5],
            "low": [0.5, 1.5, 1.0, 2.0],
            "high": [1.5, 2.5, 2.0, 3.0],
        }
    )
    axis = show_intervals(table, label="variant", hue="origin", unit="dB").axes[0]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[1.0, 2.0], [1.5, 2.5]]
    assert [s[:, 0].tolist() for s in axis.collections[1].get_segments()] == [[1.0, 2.0], [2.0, 3.0]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["full", "none"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["live", "reference"]
    assert to_rgb(axis.lines[0].get_color()) == to_rgb(PALETTE[0])


def test_curves_are_sorted_and_carry_their_band():
    table = pd.DataFrame({"step": [1.0, 0.1], "value": [0.9, 0.2], "low": [0.8, 0.1], "high": [1.0, 0.3]})
    axis = show_curves(table, x="step").axes[0]
    assert axis.lines[0].get_xdata().tolist() == [0.1, 1.0]
    assert len(axis.collections) == 1


def test_curves_of_one_colour_have_different_lines():
    table = pd.DataFrame({"x": 0, "value": 0.0, "name": [f"curve {k}" for k in range(9)]})
    lines = show_curves(table, x="x", hue="name").axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 9


def boxes(figure, texts):
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts]


def test_names_of_near_points_cover_neither_each_other_nor_a_point():
    near = [0.5 + 0.01 * i for i in range(8)]
    names = [f"method {i}" for i in range(8)]
    figure = show_methods(
        pd.DataFrame({"x": near, "y": near, "kind": "encoder", "method": names}), x="x", y="y"
    )
    axis = figure.axes[0]
    drawn = boxes(figure, axis.texts)
    assert len(drawn) == 8
    assert not [1 for i, a in enumerate(drawn) for b in drawn[:i] if a.overlaps(b)]
    spots = axis.transData.transform(list(zip(near, near, strict=True)))
    assert not [1 for box in drawn for spot in spots if box.contains(*spot)]


def test_more_points_than_names_fit_are_numbered():
    names = [f"method {i}" for i in range(12)]
    table = pd.DataFrame({"x": range(12), "y": range(12), "kind": "encoder", "method": names})
    figure = show_methods(table, x="x", y="y")
    listed, *numbers = figure.axes[0].texts
    assert listed.get_text().splitlines() == [f"{i}  {name}" for i, name in enumerate(names, 1)]
    assert [text.get_text() for text in numbers] == [str(i) for i in range(1, 13)]
    assert png(figure).std() > 1


def test_panels_of_points_share_the_numbers_of_the_methods():
    names = [f"method {i}" for i in range(9)]
    first = pd.DataFrame({"x": range(9), "y": range(9), "kind": "encoder", "method": names, "edits": "a"})
    second = first.iloc[1:].assign(edits="b")
    left, right = show_methods(pd.concat([first, second]), x="x", y="y", panel="edits").axes
    assert [axis.get_title(loc="left") for axis in (left, right)] == ["a", "b"]
    listed, *numbers = right.texts
    assert listed.get_text().splitlines() == [f"{i}  {name}" for i, name in enumerate(names, 1)]
    assert [text.get_text() for text in numbers] == [str(i) for i in range(2, 10)]
    assert [text.get_text() for text in left.texts] == [str(i) for i in range(1, 10)]


def test_only_points_on_the_front_are_filled():
    table = pd.DataFrame(
        {"method": ["a", "b"], "kind": ["encoder", "CLCAE"], "x": [1.0, 2.0], "y": [2.0, 1.0]}
    )
    table = table.assign(x_low=table["x"] - 0.1, x_high=table["x"] + 0.1, on_front=[False, True])
    axis = show_methods(table, x="x", y="y", labels={"x": "dB"}).axes[0]
    assert {text.get_text() for text in axis.texts} == {"a", "b"}
    faces = {line.get_xdata()[0]: line.get_markerfacecolor() for line in axis.lines if len(line.get_xdata())}
    assert faces[1.0] == "white" != faces[2.0]
    assert axis.get_xlabel() == "dB"


def test_every_curve_is_named_in_its_colour_in_one_legend():
    table = pd.DataFrame({"method": ["a", "a", "b", "b"], "x": [0, 1, 0, 2.0], "up": [0, 1, 0, 1.0]})
    table["down"] = -table["up"]
    figure = show_method_curves(table, x="x", measures={"up": "rises", "down": "falls"}, x_label="sd")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["rises", "falls"]
    (legend,) = figure.legends
    named = zip(legend.get_lines(), legend.get_texts(), strict=True)
    assert {text.get_text(): line.get_color() for line, text in named} == {"a": PALETTE[0], "b": PALETTE[1]}
    for axis in figure.axes:
        assert [line.get_color() for line in axis.lines] == [PALETTE[0], PALETTE[1]]
    kinds = pd.concat([table.assign(edits="a"), table[table["method"] == "b"].assign(edits="b")])
    figure = show_method_curves(kinds, x="x", measures={"up": "rises"}, rows="edits")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["a: rises", "b: rises"]
    assert [line.get_color() for line in figure.axes[1].lines if len(line.get_xdata())] == [PALETTE[1]]
    many = pd.concat([table.assign(method=str(i)) for i in range(len(PALETTE) + 1)])
    with pytest.raises(ValueError, match="choose fewer"):
        show_method_curves(many, x="x", measures={"up": "rises"})


def test_a_verdict_colours_its_gain_and_a_missing_comparison_stays_empty():
    cells = [("a", "PSNR", 1.25, "better"), ("b", "PSNR", -2.0, "worse"), ("a", "LPIPS", 0.0, "undecided")]
    axis = show_verdicts(pd.DataFrame(cells, columns=["method", "measure", "value", "verdict"])).axes[0]
    texts = {text.get_text(): text.get_position() for text in axis.texts}
    assert texts == {"+1.25": (0.5, 0.5), "-2": (0.5, 1.5), "+0": (1.5, 0.5)}
    faces = [tuple(shape.get_facecolor()[0][:3]) for shape in axis.collections]
    assert faces == [to_rgb(VERDICT_COLOURS[verdict]) for *_, verdict in cells]


def test_a_forest_has_a_line_for_each_comparison_that_has_an_interval():
    cells = [("a", "PSNR", 1.0, 0.5, 1.5, "better"), ("b", "PSNR", -1.0, -2.0, 0.5, "undecided")]
    cells += [("b", "edits", 0.1, np.nan, np.nan, "undecided")]
    columns = ["variant", "question", "value", "low", "high", "verdict"]
    psnr, edits = show_forest(pd.DataFrame(cells, columns=columns), columns=2).axes
    assert [label.get_text() for label in psnr.get_yticklabels()] == ["a", "b"]
    lines = [line.get_segments()[0][:, 0].tolist() for line in psnr.collections]
    assert lines == [[0.5, 1.5], [-2.0, 0.5]]
    assert to_rgb(psnr.collections[0].get_color()[0][:3]) == to_rgb(VERDICT_COLOURS["better"])
    assert not edits.collections
    assert show_forest(pd.DataFrame(columns=columns)).axes, "without a comparison it is empty"


@pytest.mark.parametrize(("value", "text"), [(4.6, "+4.6 >"), (-4.6, "< -4.6")])
def test_a_gain_far_beyond_the_others_is_written_at_the_edge_of_its_panel(value, text):
    cells = [("a", "PSNR", 0.1, 0.0, 0.2, "better"), ("b", "PSNR", value, value - 0.1, value + 0.1, "worse")]
    axis = show_forest(
        pd.DataFrame(cells, columns=["variant", "question", "value", "low", "high", "verdict"])
    ).axes[0]
    assert [(shown.get_text(), to_rgb(shown.get_color())) for shown in axis.texts] == [
        (text, to_rgb(VERDICT_COLOURS["worse"]))
    ]
    assert len(axis.collections) == 1
    assert max(map(abs, axis.get_xlim())) < 1
