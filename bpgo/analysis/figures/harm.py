"""Figures of over-optimization along the path from the base policy, and of harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpgo.analysis.figures import style
from bpgo.analysis.roles import arm_title, main_metric, reward_title
from bpgo.analysis.statistics.harm import MEASURES
from bpgo.config.settings import BASE_ARM, Settings

Frames = dict[str, pd.DataFrame]


def path(settings: Settings, frames: Frames) -> Figure:
    """Rows: experiments; gain of the training reward and of the main metric against sqrt(KL)."""
    courses, turning = frames["courses"], frames["turning"]
    known = courses[courses["divergence"].notna()] if len(courses) else courses
    names = [name for name in settings.experiments if len(known) and _has(known, name)]
    if not names:
        figure = style.new_figure(1.0)
        style.say(figure.subplots(), "The divergence from the base policy was not measured.")
        return figure
    figure = style.new_figure(2.4 * len(names) + 0.6)
    grid = figure.subplots(len(names), 2, squeeze=False, sharex="row")
    handles: dict[str, Any] = {}
    for row, experiment in enumerate(names):
        part = known[known["experiment"] == experiment]
        metric = main_metric(settings, experiment)
        titles = {"proxy": "training reward", "gold": reward_title(settings, metric)}
        for axes, (axis, title) in zip(grid[row], titles.items(), strict=True):
            for arm in settings.experiments[experiment].arms:
                mine = part[part["arm"] == arm].sort_values("iteration")
                if len(mine):
                    handles[arm] = _course(axes, mine, axis, arm)
                    if axis == "gold":
                        _mark_turn(axes, mine, turning, experiment, arm)
            style.zero_line(axes)
            axes.set_title(f"{experiment}: {title}", loc="left")
            if row == len(names) - 1:
                axes.set_xlabel("√KL to the base policy's path")
        grid[row][0].set_ylabel("gain over base (base sd)")
    labels = [arm_title(settings, arm) for arm in handles]
    style.legend_below(figure, list(handles.values()), labels)
    return figure


def _has(frame: pd.DataFrame, experiment: str) -> bool:
    return bool((frame["experiment"] == experiment).any())


def _course(axes: Axes, mine: pd.DataFrame, axis: str, arm: str) -> Any:
    colour, marker, line = style.arm_look(arm)
    bars = style.reach(mine[axis], mine[f"{axis}_low"], mine[f"{axis}_high"])
    drawn = axes.errorbar(
        mine["divergence"],
        mine[axis],
        yerr=bars,
        color=colour,
        marker=marker,
        elinewidth=0.7,
        ls=line,
        lw=1.2,
    )
    return drawn.lines[0]


def _mark_turn(
    axes: Axes, mine: pd.DataFrame, turning: pd.DataFrame, experiment: str, arm: str
) -> None:
    """A ring where the main metric turns, if it does."""
    keep = (turning["experiment"] == experiment) & (turning["arm"] == arm) & turning["turned"]
    for iteration in turning[keep]["iteration"]:
        point = mine[mine["iteration"] == iteration]
        axes.plot(point["divergence"], point["gold"], "o", ms=11, mfc="none", mec="#B00020")


def harm(settings: Settings, frames: Frames) -> Figure:
    """Rows: experiments and their arms, columns: measures; levels with their intervals."""
    found = frames["harm"]
    shown = [
        name
        for name in MEASURES
        if not name.startswith("gold_") and len(found) and (found["measure"] == name).any()
    ]
    names = [name for name in settings.experiments if len(found) and _has(found, name)]
    if not shown or not names:
        figure = style.new_figure(1.0)
        style.say(figure.subplots(), "No scores to compare with the base policy's.")
        return figure
    arms = {name: [BASE_ARM, *settings.experiments[name].arms] for name in names}
    with_base = {
        name: ((found["experiment"] == name) & (found["arm"] == BASE_ARM)).any() for name in names
    }
    arms = {name: own if with_base[name] else own[1:] for name, own in arms.items()}
    heights = [len(own) + 1.2 for own in arms.values()]
    height = 0.2 * sum(heights) + 0.5 * len(names) + 0.3
    figure = style.new_figure(height, style.width_for(len(shown)))
    grid = figure.subplots(
        len(names), len(shown), squeeze=False, sharex="col", height_ratios=heights
    )
    for row, (experiment, own) in enumerate(arms.items()):
        part = found[found["experiment"] == experiment]
        for column, (axes, name) in enumerate(zip(grid[row], shown, strict=True)):
            _panel(axes, part[part["measure"] == name].set_index("arm"), own, name)
            axes.set_yticks(range(len(own)))
            axes.set_yticklabels([arm_title(settings, a) for a in own] if column == 0 else [])
            axes.tick_params(left=False)
            style.few_ticks(axes)
        style.panel_titles(grid[row], [MEASURES[name].title for name in shown], 13)
        grid[row][0].set_ylabel(experiment)
    figure.align_ylabels(grid[:, 0])
    return figure


def _panel(axes: Axes, part: pd.DataFrame, arms: list[str], name: str) -> None:
    scale = MEASURES[name].scale
    if name.startswith("worst"):
        style.zero_line(axes, vertical=True)
    for place, arm in enumerate(arms):
        if arm not in part.index:
            continue
        entry = part.loc[arm]
        colour, marker, _ = style.arm_look(arm)
        if np.isfinite(entry["low"]):
            axes.hlines(place, entry["low"] * scale, entry["high"] * scale, color=colour, lw=1.2)
        low, high = (entry[f"to_reference_simultaneous_{end}"] for end in ("low", "high"))
        fill = colour if low > 0 or high < 0 else "white"
        axes.plot(entry["mean"] * scale, place, marker, color=colour, mfc=fill, ms=5)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
