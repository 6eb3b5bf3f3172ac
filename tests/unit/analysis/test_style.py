"""What all figures share."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bpgo.analysis.figures import style
from bpgo.analysis.figures.style import reach


def test_intervals_reach_below_and_above() -> None:
    found = reach([1.0, 2.0], [0.5, np.nan], [2.0, np.nan])
    assert found.tolist() == [[0.5, 0.0], [1.0, 0.0]]


def test_equal_values_have_no_negative_reach() -> None:
    """Their mean and their quantiles round differently."""
    assert reach(0.8, 0.8 + 1e-16, 0.8 - 1e-16).tolist() == [[0.0], [0.0]]
    assert reach(0.8, 0.8000001, 0.9).min() == 0


@pytest.mark.parametrize("labels", [["Pool A (CLIP of tubelets)"] * 8, ["a", "b"], ["long " * 40]])
def test_a_legend_is_no_wider_than_its_figure_where_columns_can_be_fewer(labels):
    with style.look():
        figure, axes = plt.subplots(figsize=(3.8, 3.5), layout="constrained")
        handles = [axes.plot([0], [0])[0] for _ in labels]
        style.legend_below(figure, handles, labels, columns=3)
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == labels
    if len(labels) > 1:
        assert legend.get_window_extent().width <= figure.bbox.width
    plt.close(figure)


@pytest.mark.parametrize("title", ["$x_$ and $\\foo$", "from $5 to $9", r"\frac{1}"])
def test_titles_are_shown_as_they_are_written(title):
    """Not as formulas, of which the first cannot be read and the second loses its dollars."""
    drawn = []
    for text in (title, title.replace("$", "S")):
        with style.look():
            figure = style.new_figure(1.0, 3.0)
            axes = figure.subplots()
            axes.set(title=text, xlabel=text)
            axes.plot([0], [0], label=text)
            axes.text(0, 0, text)
            style.legend_below(figure, *axes.get_legend_handles_labels())
            style.png(figure)
            drawn.append(axes.title.get_window_extent().width)
    assert drawn[0] == pytest.approx(drawn[1], rel=0.05)


@pytest.mark.parametrize("panels", [2, 4])
@pytest.mark.parametrize("last", [1.75e-4, 3.0])
def test_numbers_under_a_narrow_panel_do_not_touch(tmp_path, last, panels):
    with style.look():
        figure = style.new_figure(2.0)
        row = figure.subplots(1, panels, squeeze=False)[0]
        for axes in row:
            axes.plot([0, last], [0, 1])
        style.save_figure(figure, tmp_path, "figure")
        FigureCanvasAgg(figure).draw()
        for axes in row:
            low, high = axes.get_xlim()
            ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            boxes = [label.get_window_extent() for at, label in ticks if low <= at <= high]
            assert len(boxes) >= 2
            assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
