"""Figures against training iteration."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpgo.analysis.figures import style
from bpgo.analysis.roles import BPGO, TRAINING, arm_title, reward_title
from bpgo.config.settings import Settings

Frames = dict[str, pd.DataFrame]


def training_reward(settings: Settings, frames: Frames) -> Figure:
    """Rows: experiments; left: rollouts, right: fixed prompts. Unit: base sd."""
    names = list(settings.experiments)
    figure = style.new_figure(2.2 * len(names) + 0.6)
    grid = figure.subplots(len(names), 2, squeeze=False, sharex=True, sharey="row")
    handles: dict[str, Any] = {}
    for row, experiment in enumerate(names):
        left, right = grid[row]
        training, curves = frames["training"], frames["curves"]
        known = training["adjusted"].all() if len(training) else False
        rollouts = training[training["experiment"] == experiment] if len(training) else training
        for arm, curve in _by_arm(settings, experiment, rollouts):
            colour, _, line = style.arm_look(arm)
            if arm in (settings.analysis.reference_arm, BPGO):
                left.plot(curve["iteration"], curve["gain"], color=colour, alpha=0.35, lw=0.5)
            (handles[arm],) = left.plot(curve["iteration"], curve["smooth"], color=colour, ls=line)
            left.fill_between(
                curve["iteration"], curve["low"], curve["high"], color=colour, alpha=0.1, lw=0
            )
        fixed = curves[(curves["experiment"] == experiment) & (curves["role"] == TRAINING)]
        for arm, curve in _by_arm(settings, experiment, fixed):
            handles[arm] = _gain_line(right, arm, curve)
        for axes in (left, right):
            style.zero_line(axes)
            style.whole_ticks(axes)
        words = "on rollouts" + ("" if known else " (not adjusted for prompts)")
        left.set_title(f"{experiment}: {words}", loc="left")
        right.set_title(f"{experiment}: on fixed held-out prompts", loc="left")
        left.set_ylabel("training reward,\ngain over base (base sd)")
    for axes in grid[-1]:
        axes.set_xlabel("iteration")
    _arm_legend(settings, figure, handles)
    return figure


def score_curves(settings: Settings, frames: Frames) -> Figure:
    """Rows: experiments, columns: judges; paired gain over the base policy, in base sd."""
    curves = frames["curves"]
    columns = max(len(_judges(settings, name)) for name in settings.experiments)
    names = list(settings.experiments)
    figure = style.new_figure(1.9 * len(names) + 0.7, style.width_for(columns))
    grid = figure.subplots(len(names), columns, squeeze=False, sharex=True, sharey="row")
    handles: dict[str, Any] = {}
    for row, experiment in enumerate(names):
        judges = _judges(settings, experiment)
        for axes, reward in zip(grid[row], judges, strict=False):
            part = curves[(curves["experiment"] == experiment) & (curves["reward"] == reward)]
            for arm, curve in _by_arm(settings, experiment, part):
                handles[arm] = _gain_line(axes, arm, curve)
            style.zero_line(axes)
            style.whole_ticks(axes)
            if row == len(names) - 1:
                axes.set_xlabel("iteration")
        for axes in grid[row][len(judges) :]:
            axes.axis("off")
        style.panel_titles(grid[row], [reward_title(settings, reward) for reward in judges])
        grid[row][0].set_ylabel(f"{experiment}:\ngain over base (base sd)")
    _arm_legend(settings, figure, handles)
    return figure


def _gain_line(axes: Axes, arm: str, curve: pd.DataFrame) -> Any:
    """Mean gain with its interval; arms stand slightly apart so that no bar hides another."""
    colour, marker, line = style.arm_look(arm)
    spread = (curve["iteration"].max() - curve["iteration"].min()) * 0.006
    x = curve["iteration"] + spread * curve["place"]
    middle = curve["gain_sd"]
    bars = style.reach(middle, curve["gain_sd_low"], curve["gain_sd_high"])
    drawn = axes.errorbar(
        x,
        middle,
        yerr=bars,
        color=colour,
        marker=marker,
        elinewidth=0.7,
        capsize=0,
        ls=line,
        lw=1.2,
    )
    return drawn.lines[0]


def _by_arm(
    settings: Settings, experiment: str, frame: pd.DataFrame
) -> list[tuple[str, pd.DataFrame]]:
    """The listed arms' rows in order, with their place around 0."""
    arms = settings.experiments[experiment].arms
    if frame.empty:
        return []
    parts = [(arm, frame[frame["arm"] == arm].sort_values("iteration")) for arm in arms]
    return [
        (arm, part.assign(place=place - (len(arms) - 1) / 2))
        for place, (arm, part) in enumerate(parts)
        if len(part)
    ]


def _judges(settings: Settings, experiment: str) -> list[str]:
    training = settings.experiments[experiment].training_reward
    return [name for name in settings.rewards_of(experiment) if name != training]


def _arm_legend(settings: Settings, figure: Figure, handles: dict[str, Any]) -> None:
    labels = [arm_title(settings, arm) for arm in handles]
    style.legend_below(figure, list(handles.values()), labels)
