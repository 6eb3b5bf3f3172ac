"""What all figures share."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

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
