"""The figure of sweeps: a panel for each reward, a point for each value that was run."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from bpgo.analysis.figures import style
from bpgo.analysis.figures.make import DRAW
from bpgo.config.variants import SweepSettings


@pytest.mark.parametrize(
    ("setting", "swept", "label"),
    [
        ("training.learning_rate", [3e-5, 1e-3], "learning_rate"),
        ("rollout.group_size", [6, 24], "group_size"),
        ("training.split", ["groups", "steps"], None),  # words have no place on an axis
    ],
)
def test_a_sweep_over_a_setting_of_the_configuration(settings, frames, setting, swept, label):
    """The made-up runs of alpha 0.1 and 0.9, as if they were of other settings."""
    entry = {"experiment": "ambiguous", "arm": "bpgo_ras", "setting": setting, "values": swept}
    sweep = SweepSettings.model_validate(entry)
    old = [settings.sweeps["alpha"].arm_at(value) for value in (0.1, 0.9)]
    names = dict(zip(old, map(sweep.arm_at, swept), strict=True))
    arms = {names.get(name, name): arm for name, arm in settings.arms.items()}
    changed = settings.model_copy(update={"sweeps": {"other": sweep}, "arms": arms})
    renamed = {
        name: frame.replace({"arm": names, "reference": names}) for name, frame in frames.items()
    }
    with style.look():
        figure = DRAW["sweep"](changed, renamed)
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert {axes.get_xlabel() for axes in panels} == ({label} if label else set())
    for axes in panels:
        places = sorted({float(x) for line in axes.containers for x in line[0].get_xdata()})
        own = {"training.learning_rate": 3e-4, "rollout.group_size": 12.0}[setting]
        assert places == sorted([*map(float, swept), own])
    plt.close(figure)
