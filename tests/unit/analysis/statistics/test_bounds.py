"""No interval reaches where its number cannot lie, however few seeds there are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import synthetic

from bpgo.analysis.statistics.bootstrap import Bootstrap, Interval
from bpgo.analysis.statistics.convergence import summarize
from bpgo.analysis.statistics.data import Collected, Scores
from bpgo.analysis.statistics.differences import differences
from bpgo.analysis.statistics.premise import trust

BOOTSTRAP = Bootstrap(samples=500)


@pytest.fixture(scope="module")
def settings():
    return synthetic.make_settings(clear=False, sweep=(), iterations=100)


def test_limits_are_cut_and_estimates_are_not():
    found = Interval(np.array([0.5]), np.array([-0.2]), np.array([1.3])).within(0.0, 1.0)
    assert [float(part[0]) for part in found] == [0.5, 0.0, 1.0]
    unknown = Interval(np.array([0.5]), np.array([np.nan]), np.array([np.nan])).within(0.0, 1.0)
    assert np.isnan(unknown.low).all()


@pytest.mark.parametrize(
    ("measure", "values", "bounds"),
    [
        ("steps_to_threshold", [2.0, 5.0, 95.0], (0.0, 100.0)),
        ("steps_to_threshold", [98.0, 95.0, 5.0], (0.0, 100.0)),
        ("oscillation", [0.01, 0.01, 0.5], (0.0, np.inf)),
        ("seconds", [1.0, 1.0, 60.0], (0.0, np.inf)),
    ],
)
def test_what_training_did(settings, measure, values, bounds):
    """Three seeds of which one is far off: 95 % intervals would be twice as wide as the values."""
    rows = [
        {"experiment": "ambiguous", "arm": arm, "seed": seed, "measure": measure}
        | {"value": value, "reached": True}
        for arm, own in (("grpo", values[::-1]), ("bpgo", values))
        for seed, value in enumerate(own)
    ]
    found = summarize(settings, pd.DataFrame(rows), BOOTSTRAP)
    assert found["mean"].to_numpy() == pytest.approx(np.mean(values))
    assert (found["low"] >= bounds[0]).all()
    assert (found["high"] <= bounds[1]).all()
    assert (found["low"] == bounds[0]).all() or (found["high"] == bounds[1]).all()
    if measure == "steps_to_threshold":
        ends = found[["low", "high", "simultaneous_low", "simultaneous_high"]].to_numpy()
        assert np.nanmax(np.abs(ends)) == 100.0


def test_the_probability_to_improve(settings):
    """0.75 with one seed and 1 with the other."""
    cube = np.zeros((3, 2, 2, 1, 4, 1))
    cube[2, :, 1, 0, :, 0] = [[1, 1, 1, -1], [1, 1, 1, 1]]
    cube[0, :, 1] = cube[1, :, 0] = cube[2, :, 0] = np.nan
    arms, prompts = ["base", "grpo", "bpgo"], [f"p{k}" for k in range(4)]
    scores = Scores("ambiguous", arms, [1, 2], [0, 1], ["oracle"], prompts, cube)
    found = differences(settings, scores, BOOTSTRAP)
    pair = found[(found["arm"] == "bpgo") & (found["reference"] == "grpo")].iloc[0]
    assert pair["improvement"] == pytest.approx(0.875)
    assert pair["improvement_high"] == 1.0
    limits = found[["improvement_low", "improvement_high"]].to_numpy()
    assert limits.min() == 0.0  # of the other direction
    assert limits.max() == 1.0


def test_correlations(settings):
    """Of reliability with the weight: 1 with one seed, 0.8 with the other."""
    ranks = {1: [1.0, 2.0, 3.0, 4.0], 2: [1.0, 3.0, 2.0, 4.0]}
    groups = pd.DataFrame(
        {"experiment": "ambiguous", "arm": "bpgo", "seed": seed, "iteration": 1}
        | {"prompt_id": f"p{k}", "ambiguity": np.nan, "reward_mean": 0.0, "prior": 0.0}
        | {"weight": rank, "gain": k / 4, "gamma": k / 4}
        for seed, own in ranks.items()
        for k, rank in enumerate(own, start=1)
    )
    nothing = pd.DataFrame()
    _, summary = trust(settings, Collected({}, nothing, groups, nothing, {}), BOOTSTRAP)
    row = summary[(summary["measure"] == "gain") & (summary["reads"] == "weight")].iloc[0]
    assert row["mean"] == pytest.approx(0.9)
    assert row["high"] == 1.0
