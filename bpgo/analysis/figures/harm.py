"""Figures of over-optimization along the path from the base policy, and of harm."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpgo.analysis.figures import style
from bpgo.analysis.figures.families import Shown, behind, rows_of
from bpgo.analysis.figures.labels import End, end_labels, row_height
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
    rows = rows_of(settings, names)
    heights = [row_height(2.4, len(row.arms)) for row in rows]
    figure = style.new_figure(sum(heights) + 0.3)
    grid = figure.subplots(len(rows), 2, squeeze=False, sharex="row", height_ratios=heights)
    for panels, row, height in zip(grid, rows, heights, strict=True):
        part = known[known["experiment"] == row.experiment]
        metric = main_metric(settings, row.experiment)
        titles = {"proxy": "training reward", "gold": reward_title(settings, metric)}
        ends: list[End] = []
        for axes, (axis, title) in zip(panels, titles.items(), strict=True):
            ends = _courses(axes, part, axis, row, settings)
            if axis == "gold":
                _mark_turns(axes, part, turning, row)
            style.zero_line(axes)
            axes.set_title(f"{row.title}\n{title}" if axis == "proxy" else title, loc="left")
        panels[0].set_ylabel("gain over base (base sd)")
        end_labels(panels[-1], ends, height)
    for axes in grid[-1]:
        axes.set_xlabel("√KL to the base policy's path")
    return figure


def _has(frame: pd.DataFrame, experiment: str) -> bool:
    return bool((frame["experiment"] == experiment).any())


def _courses(
    axes: Axes, part: pd.DataFrame, axis: str, row: Shown, settings: Settings
) -> list[End]:
    """Every arm's course with its intervals; where they end."""
    for arm in row.behind:
        mine = part[part["arm"] == arm].sort_values("iteration")
        behind(axes, mine["divergence"], mine[axis])
    ends = []
    for arm in row.arms:
        mine = part[part["arm"] == arm].sort_values("iteration")
        if mine.empty:
            continue
        colour, marker, line = row.look(arm)
        bars = style.reach(mine[axis], mine[f"{axis}_low"], mine[f"{axis}_high"])
        x, y = mine["divergence"], mine[axis]
        axes.errorbar(x, y, bars, color=colour, marker=marker, ls=line, lw=1.2, elinewidth=0.7)
        title = arm_title(settings, arm)
        ends.append(End(float(x.iloc[-1]), float(y.iloc[-1]), title, colour, marker))
    return ends


def _mark_turns(axes: Axes, part: pd.DataFrame, turning: pd.DataFrame, row: Shown) -> None:
    """A ring where the main metric of an arm turns, if it does."""
    if turning.empty:  # the main metric is a training reward, or no arm was followed
        return
    turned = turning[(turning["experiment"] == row.experiment) & turning["turned"]]
    for arm, iteration in zip(turned["arm"], turned["iteration"], strict=True):
        point = part[(part["arm"] == arm) & (part["iteration"] == iteration)]
        if arm in row.arms:
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
    arms = {name: [BASE_ARM, *settings.compared(name)] for name in names}
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
