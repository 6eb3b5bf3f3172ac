"""The figure of differences: what sets its range, and what happens beyond it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from bpgo.analysis.figures.effects import forest

WIDE = 3.0  # half of the interval of the arm with a variance of its own


@pytest.fixture
def frames(settings):
    rows = []
    for name, entry in settings.experiments.items():
        for arm in entry.arms:
            half = WIDE if arm == "bpgo_ras" else 0.05
            ends = {"low_sd": -half, "high_sd": half}
            together = {f"simultaneous_{end}": value for end, value in ends.items()}
            names = {"experiment": name, "arm": arm, "reference": "grpo", "verdict": "equivalent"}
            for reward in settings.rewards_of(name):
                rows.append({**names, "reward": reward, "difference_sd": 0.0, **ends, **together})
    return {"differences": pd.DataFrame(rows)}


def drawn(settings, frames, own_variance):
    own = settings.analysis.model_copy(update={"own_variance": own_variance})
    figure = forest(settings.model_copy(update={"analysis": own}), frames)
    axes = figure.axes[0]
    arrows = [line.get_marker() for line in axes.lines if line.get_marker() in ("<", ">")]
    plt.close(figure)
    return axes.get_xlim(), arrows


def test_pooled_arms_set_the_range_and_an_arrow_shows_the_rest(settings, frames):
    (low, high), arrows = drawn(settings, frames, ["bpgo_ras"])
    assert -0.2 < low < -0.05
    assert 0.05 < high < 0.2
    assert sorted(arrows) == ["<", ">"]


def test_without_such_an_arm_all_is_inside(settings, frames):
    (low, high), arrows = drawn(settings, frames, [])
    assert low < -WIDE
    assert high > WIDE
    assert arrows == []
