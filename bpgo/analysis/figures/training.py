"""Figures against training iteration."""

from __future__ import annotations

from textwrap import wrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpgo.analysis.figures import style
from bpgo.analysis.figures.families import Shown, behind, rows_of
from bpgo.analysis.figures.labels import End, end_labels, row_height
from bpgo.analysis.roles import BPGO, TRAINING, arm_title, reward_title
from bpgo.config.settings import Settings

WORDS = "gain over base (base sd)"
LETTERS = len(WORDS)  # of a line beside it
OFFSET, OFFSETS = 0.006, 0.05  # from one arm to the next and of all, in shares of the iterations
Frames = dict[str, pd.DataFrame]


def training_reward(settings: Settings, frames: Frames) -> Figure:
    """Rows: experiments, or their families of arms; left: rollouts, right: fixed prompts.

    Unit: base sd.
    """
    rows = rows_of(settings, list(settings.experiments))
    heights = [row_height(2.2, len(row.arms)) for row in rows]
    figure = style.new_figure(sum(heights) + 0.3)
    grid = figure.subplots(len(rows), 2, squeeze=False, sharex=True, height_ratios=heights)
    training, curves = frames["training"], frames["curves"]
    known = training["adjusted"].all() if len(training) else False
    words = "on rollouts" + ("" if known else " (not adjusted for prompts)")
    for (left, right), row, height in zip(grid, rows, heights, strict=True):
        right.sharey(left)
        rollouts = training[training["experiment"] == row.experiment] if len(training) else training
        for _, curve in _by_arm(row.behind, rollouts):
            behind(left, curve["iteration"], curve["smooth"])
        for arm, curve in _by_arm(row.arms, rollouts):
            _rollouts(left, row, arm, curve, settings)
        fixed = curves[(curves["experiment"] == row.experiment) & (curves["role"] == TRAINING)]
        ends = _gain_lines(right, row, fixed, settings)
        for axes in (left, right):
            style.zero_line(axes)
            style.whole_ticks(axes)
        left.set_title(f"{row.title}\n{words}", loc="left")
        right.set_title("on fixed held-out prompts", loc="left")
        left.set_ylabel(f"training reward,\n{WORDS}")
        end_labels(right, ends, height)
    for axes in grid[-1]:
        axes.set_xlabel("iteration")
    return figure


def score_curves(settings: Settings, frames: Frames) -> Figure:
    """Rows: experiments, or their families of arms; columns: judges; paired gain over the base.

    Unit: base sd.
    """
    curves = frames["curves"]
    columns = max(len(_judges(settings, name)) for name in settings.experiments)
    rows = rows_of(settings, list(settings.experiments))
    heights = [row_height(1.9, len(row.arms)) for row in rows]
    figure = style.new_figure(sum(heights) + 0.4, style.width_for(columns + 1))
    grid = figure.subplots(
        len(rows), columns, squeeze=False, sharex=True, sharey="row", height_ratios=heights
    )
    titled: set[str] = set()
    for panels, row, height in zip(grid, rows, heights, strict=True):
        judges, ends = _judges(settings, row.experiment), []
        for axes, reward in zip(panels, judges, strict=False):
            mine = (curves["experiment"] == row.experiment) & (curves["reward"] == reward)
            ends = _gain_lines(axes, row, curves[mine], settings)
            style.zero_line(axes)
            style.whole_ticks(axes)
        for axes in panels[len(judges) :]:
            axes.axis("off")
        if row.experiment not in titled:  # its rows have the same judges
            style.panel_titles(panels, [reward_title(settings, reward) for reward in judges])
        titled.add(row.experiment)
        panels[0].set_ylabel("\n".join([*wrap(f"{row.title}:", LETTERS), WORDS]))
        if judges:
            end_labels(panels[len(judges) - 1], ends, height)
    for axes in grid[-1]:
        axes.set_xlabel("iteration")
    return figure


def _rollouts(axes: Axes, row: Shown, arm: str, curve: pd.DataFrame, settings: Settings) -> None:
    """A running mean with its band; each iteration of the reference arm and BPGO."""
    colour, _, line = row.look(arm)
    if arm in (settings.analysis.reference_arm, BPGO):
        axes.plot(curve["iteration"], curve["gain"], color=colour, alpha=0.35, lw=0.5)
    axes.plot(curve["iteration"], curve["smooth"], color=colour, ls=line)
    axes.fill_between(
        curve["iteration"], curve["low"], curve["high"], color=colour, alpha=0.1, lw=0
    )


def _gain_lines(axes: Axes, row: Shown, frame: pd.DataFrame, settings: Settings) -> list[End]:
    """Mean gains with their intervals; arms stand slightly apart so that no bar hides another."""
    for _, curve in _by_arm(row.behind, frame):
        behind(axes, curve["iteration"], curve["gain_sd"])
    ends, drawn = [], _by_arm(row.arms, frame)
    for place, (arm, curve) in enumerate(drawn):
        colour, marker, line = row.look(arm)
        share = min(OFFSET, OFFSETS / len(drawn))
        spread = (curve["iteration"].max() - curve["iteration"].min()) * share
        x = curve["iteration"] + spread * (place - (len(drawn) - 1) / 2)
        middle = curve["gain_sd"]
        bars = style.reach(middle, curve["gain_sd_low"], curve["gain_sd_high"])
        axes.errorbar(x, middle, bars, color=colour, marker=marker, ls=line, lw=1.2, elinewidth=0.7)
        title = arm_title(settings, arm)
        ends.append(End(float(x.iloc[-1]), float(middle.iloc[-1]), title, colour, marker))
    return ends


def _by_arm(arms: list[str], frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of arms that have some, in order."""
    parts = [(arm, frame[frame["arm"] == arm].sort_values("iteration")) for arm in arms]
    return [(arm, part) for arm, part in parts if len(part)]


def _judges(settings: Settings, experiment: str) -> list[str]:
    training = settings.experiments[experiment].training_reward
    return [name for name in settings.rewards_of(experiment) if name != training]
