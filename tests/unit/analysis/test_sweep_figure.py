"""The figure of sweeps: a panel for each reward, a point for each value that was run."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest
import synthetic

from bpgo.analysis.figures import style
from bpgo.analysis.figures.make import DRAW


@pytest.mark.parametrize(
    ("setting", "swept", "label"),
    [
        ("training.learning_rate", [3e-5, 1e-3], "learning_rate"),
        ("rollout.group_size", [6, 24], "group_size"),
        ("training.split", ["groups", "steps"], None),  # words have no place on an axis
    ],
)
def test_a_sweep_over_a_setting_of_the_configuration(settings, frames, setting, swept, label):
    changed, renamed = synthetic.swept_otherwise(settings, frames, setting, swept)
    with style.look():
        figure = DRAW["sweep"](changed, renamed)
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert {axes.get_xlabel() for axes in panels} == ({label} if label else set())
    for axes in panels:
        places = sorted({float(x) for line in axes.containers for x in line[0].get_xdata()})
        own = {"training.learning_rate": 3e-4, "rollout.group_size": 12.0}[setting]
        assert places == sorted([*map(float, swept), own])
    plt.close(figure)
