"""What all figures share."""

from __future__ import annotations

import numpy as np

from bpgo.analysis.figures.style import reach


def test_intervals_reach_below_and_above() -> None:
    found = reach([1.0, 2.0], [0.5, np.nan], [2.0, np.nan])
    assert found.tolist() == [[0.5, 0.0], [1.0, 0.0]]


def test_equal_values_have_no_negative_reach() -> None:
    """Their mean and their quantiles round differently."""
    assert reach(0.8, 0.8 + 1e-16, 0.8 - 1e-16).tolist() == [[0.0], [0.0]]
    assert reach(0.8, 0.8000001, 0.9).min() == 0
