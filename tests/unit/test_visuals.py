"""Grids pixel by pixel, and figures by what stands in them."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from clcae_lib.plots import (
    PALETTE,
    heatmap,
    image_grid,
    overlay,
    save_figure,
    show_attention,
    show_curves,
    show_forest,
    show_grid,
    show_images,
    show_intervals,
    show_method_curves,
    show_methods,
    show_traversal,
    show_verdicts,
    theme,
)
from clcae_lib.plots.comparison import VERDICT_COLOURS


def flat(*levels, side=2):
    return torch.stack([torch.full((3, side, side), float(level)) for level in levels])


@pytest.fixture(autouse=True)
def nothing_left_open():
    """No function may leave a figure in pyplot's list, nor change the defaults unasked."""
    before = dict(plt.rcParams)
    yield
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def saved(figure, folder):
    with Image.open(save_figure(figure, folder / "figure.png")) as picture:
        return np.asarray(picture.convert("RGB"))


def test_grid_places_every_pixel():
    grid = image_grid(flat(-1, 0, 1, side=1), columns=2, padding=1, background=7)
    expected = [[7, 7, 7, 7, 7], [7, 0, 7, 128, 7], [7, 7, 7, 7, 7], [7, 255, 7, 7, 7], [7, 7, 7, 7, 7]]
    assert grid.dtype == np.uint8
    assert (grid == np.array(expected, dtype=np.uint8)[..., None]).all()


def test_grid_enlarges_without_smoothing_and_keeps_channels():
    red = torch.tensor([1.0, -1, -1])[None, :, None, None].expand(1, 3, 2, 2)
    grid = image_grid(red, padding=0, scale=3)
    assert grid.shape == (6, 6, 3)
    assert (grid == np.array([255, 0, 0])).all()
    assert image_grid(flat(*[0] * 9), padding=0).shape == (6, 6, 3)  # three by three


def test_grid_refuses_nothing_and_nonsense():
    with pytest.raises(ValueError, match="0 images"):
        image_grid(torch.zeros(0, 3, 4, 4))
    with pytest.raises(ValueError, match="scale=0"):
        image_grid(flat(0), scale=0)


def test_labelled_grid_shows_its_labels_and_pictures():
    figure = show_grid([flat(-1, 0, 1), flat(1, 1, 1)], ["ours", "truth"], ["a", "b", "c"], title="Edits")
    axes = figure.axes
    assert [axis.get_title(loc="center") for axis in axes[:3]] == ["a", "b", "c"]
    assert [axes[0].get_ylabel(), axes[3].get_ylabel()] == ["ours", "truth"]
    levels = [axis.images[0].get_array().mean() for axis in axes]
    assert levels == [0, 128, 255, 255, 255, 255]
    assert {axis.images[0].get_interpolation() for axis in axes} == {"nearest"}
    assert figure.get_suptitle() == "Edits"


def test_labelled_grid_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="2 row labels for 1 rows"):
        show_grid([flat(0)], ["a", "b"])
    with pytest.raises(ValueError, match="one shape"):
        show_grid([flat(0), flat(0, 1)])
    with pytest.raises(ValueError, match="1 titles for 2 images"):
        show_images(flat(0, 1), titles=["a"])


def test_images_leave_unused_places_empty():
    figure = show_images(flat(0, 0.5, 1), titles=["x", "y", "z"], columns=2)
    assert [len(axis.images) for axis in figure.axes] == [1, 1, 1, 0]
    assert figure.axes[2].get_title(loc="center") == "z"


def test_traversal_labels_strengths_with_their_sign():
    figure = show_traversal(torch.zeros(2, 3, 3, 4, 4), (-1.5, 0, 2), labels=["yaw", "smile"])
    assert [axis.get_title(loc="center") for axis in figure.axes[:3]] == ["-1.5", "0", "+2"]


def test_overlay_is_brightest_where_attention_is():
    attention = torch.zeros(2, 2)
    attention[0, 1] = 0.3
    pixels = overlay(torch.zeros(3, 8, 8), attention, strength=1.0)
    assert pixels.shape == (8, 8, 3)
    quarter = pixels.reshape(2, 4, 2, 4, 3).astype(int).sum(axis=(1, 3, 4))
    assert quarter.argmax() == 1
    assert (pixels[:4, 4:] == pixels[0, 4]).all()  # enlarged without smoothing
    dimmer = overlay(torch.zeros(3, 8, 8), attention, strength=1.0, peak=1.0)
    assert dimmer[0, 4].sum() < pixels[0, 4].sum()
    with pytest.raises(ValueError, match="not negative"):
        overlay(torch.zeros(3, 8, 8), -attention)


def test_attention_figure_has_the_picture_first():
    figure = show_attention(torch.zeros(3, 8, 8), torch.rand(3, 2, 2), ["w0", "w1", "w2"], columns=2)
    assert [axis.get_title(loc="center") for axis in figure.axes] == ["picture", "w0", "w1", "w2"]


def test_heatmap_writes_each_number_and_centres_on_zero():
    table = pd.DataFrame([[1.0, -0.5], [0.0, 0.25]], index=["yaw", "smile"], columns=["yaw", "smile"])
    figure = heatmap(table, decimals=2, title="Effects")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "-0.50", "0.00", "0.25"]
    mesh = figure.axes[0].collections[0]
    assert mesh.get_clim() == (-1.0, 1.0)
    white = mesh.cmap(mesh.norm(0.0))
    assert min(white[:3]) > 0.9


def test_intervals_stand_where_the_table_says():
    table = pd.DataFrame(
        {
            "variant": ["full", "none", "full", "none"],
            "origin": ["live", "live", "reference", "reference"],
            "value": [1.0, 2.0, 1.5, 2.5],
            "low": [0.5, 1.5, 1.0, 2.0],
            "high": [1.5, 2.5, 2.0, 3.0],
        }
    )
    figure = show_intervals(table, label="variant", hue="origin", unit="dB")
    axis = figure.axes[0]
    assert [line.get_xdata().tolist() for line in axis.lines] == [[1.0, 2.0], [1.5, 2.5]]
    segments = axis.collections[1].get_segments()
    assert [s[:, 0].tolist() for s in segments] == [[1.0, 2.0], [2.0, 3.0]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["full", "none"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["live", "reference"]
    assert to_rgb(axis.lines[0].get_color()) == to_rgb(PALETTE[0])


def test_curves_are_sorted_and_carry_their_band():
    table = pd.DataFrame({"step": [1.0, 0.1], "value": [0.9, 0.2], "low": [0.8, 0.1], "high": [1.0, 0.3]})
    axis = show_curves(table, x="step", log_x=True, ticks=[0.1, 1]).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [0.1, 1.0]
    assert len(axis.collections) == 1
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.1", "1"]


def test_saved_pictures_are_crisp_and_moderate_in_size(tmp_path):
    """Enlarging 64 pixels to a figure must give their own colours only, away from edges between pixels."""
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    pixels = saved(show_images(board.expand(1, 3, 8, 8), size=3.0), tmp_path)
    assert 300 < pixels.shape[0] < 600
    inside = pixels[40:-40, 40:-40, 0]
    assert np.isin(inside, [0, 255]).mean() > 0.95


def test_every_figure_can_be_saved(tmp_path):
    table = pd.DataFrame({"x": [1, 2], "value": [0.5, 0.7], "low": [0.4, 0.6], "high": [0.6, 0.8]})
    figures = (heatmap(pd.DataFrame(np.eye(3))), show_curves(table, x="x"), show_intervals(table, label="x"))
    for figure in figures:
        assert isinstance(figure, Figure)
        assert saved(figure, tmp_path).std() > 1


def test_a_notebook_shows_a_figure_by_its_own_png():
    content = show_images(flat(0, 1))._repr_png_()
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "PNG"


def test_theme_sets_the_palette_when_asked():
    with plt.rc_context():
        theme()
        colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        assert [to_rgb(c) for c in colours] == [to_rgb(c) for c in PALETTE]


# ------------------------------------------------------------------- methods beside each other


def boxes(figure, texts):
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts]


def test_names_of_near_points_cover_neither_each_other_nor_a_point():
    near = [0.5 + 0.01 * i for i in range(8)]
    table = pd.DataFrame({"x": near, "y": near, "kind": "encoder"}).assign(
        method=[f"method {i}" for i in range(8)]
    )
    figure = show_methods(table, x="x", y="y")
    axis = figure.axes[0]
    names = boxes(figure, axis.texts)
    assert len(names) == 8
    assert not [1 for i, a in enumerate(names) for b in names[:i] if a.overlaps(b)]
    spots = axis.transData.transform(list(zip(near, near, strict=True)))
    assert not [1 for box in names for spot in spots if box.contains(*spot)]


def test_every_curve_is_named_in_its_colour_in_every_panel():
    table = pd.DataFrame({"method": ["a", "a", "b", "b"], "x": [0, 1, 0, 2.0], "up": [0, 1, 0, 1.0]})
    table["down"] = -table["up"]
    figure = show_method_curves(table, x="x", measures={"up": "rises", "down": "falls"}, x_label="sd")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["rises", "falls"]
    for axis in figure.axes:
        colours = {text.get_text(): text.get_color() for text in axis.texts}
        assert colours == {"a": PALETTE[0], "b": PALETTE[1]}
        a, b = boxes(figure, axis.texts)
        assert not a.overlaps(b), "both curves end at one height"
    many = pd.concat([table.assign(method=str(i)) for i in range(len(PALETTE) + 1)])
    with pytest.raises(ValueError, match="choose some"):
        show_method_curves(many, x="x", measures={"up": "rises"})


def test_a_verdict_colours_its_gain_and_a_missing_comparison_stays_empty():
    cells = [
        ("a", "PSNR", 1.25, "better"),
        ("b", "PSNR", -2.0, "worse"),
        ("a", "LPIPS", 0.0, "undecided"),
    ]
    judged = pd.DataFrame(cells, columns=["method", "measure", "value", "verdict"])
    axis = show_verdicts(judged).axes[0]
    texts = {text.get_text(): text.get_position() for text in axis.texts}
    assert texts == {"+1.25": (0.5, 0.5), "-2": (0.5, 1.5), "+0": (1.5, 0.5)}
    faces = [tuple(shape.get_facecolor()[0][:3]) for shape in axis.collections]
    assert faces == [to_rgb(VERDICT_COLOURS[verdict]) for *_, verdict in cells]


def test_a_forest_has_a_line_for_each_comparison_that_has_an_interval(tmp_path):
    cells = [("a", "PSNR", 1.0, 0.5, 1.5, "better"), ("b", "PSNR", -1.0, -2.0, 0.5, "undecided")]
    cells += [("b", "edits", 0.1, np.nan, np.nan, "undecided")]
    columns = ["variant", "question", "value", "low", "high", "verdict"]
    figure = show_forest(pd.DataFrame(cells, columns=columns), columns=2)
    psnr, edits = figure.axes
    assert [label.get_text() for label in psnr.get_yticklabels()] == ["a", "b"]
    lines = [line.get_segments()[0][:, 0].tolist() for line in psnr.collections]
    assert lines == [[0.5, 1.5], [-2.0, 0.5]]
    assert to_rgb(psnr.collections[0].get_color()[0][:3]) == to_rgb(VERDICT_COLOURS["better"])
    assert not edits.collections
    assert saved(figure, tmp_path).std() > 1
    assert show_forest(pd.DataFrame(columns=columns)).axes, "without a comparison it is empty"
