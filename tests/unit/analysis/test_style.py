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
