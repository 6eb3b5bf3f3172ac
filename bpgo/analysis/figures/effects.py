"""Figures of effects at the end of training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpgo.analysis.figures import style
from bpgo.analysis.roles import (
    HELD_OUT,
    ORACLE,
    TRAINING,
    arm_title,
    is_alpha,
    oracle_of,
    own_value,
    reward_title,
    sweep_values,
)
from bpgo.analysis.statistics.critical import BETTER, WORSE
from bpgo.config.settings import Settings

Frames = dict[str, pd.DataFrame]


def overoptimization(settings: Settings, frames: Frames) -> Figure:
    """Columns: experiments; rows: the oracle, the mean of the held-out rewards. Unit: base sd."""
    names = list(settings.experiments)
    gains = frames["gains"]
    roles = [role for role in (ORACLE, HELD_OUT) if len(gains) and (gains["role"] == role).any()]
    if not roles:
        return _only_text("No judged runs yet.")
    figure = style.new_figure(2.5 * len(roles) + 0.6)
    grid = figure.subplots(len(roles), len(names), squeeze=False, sharex="col", sharey="col")
    handles: dict[str, Any] = {}
    for column, experiment in enumerate(names):
        part = gains[gains["experiment"] == experiment]
        for row, role in enumerate(roles):
            axes = grid[row][column]
            for arm in settings.experiments[experiment].arms:
                drawn = _course(settings, axes, part[part["arm"] == arm], experiment, role, arm)
                if drawn is not None:
                    handles[arm] = drawn
            style.zero_line(axes)
            style.zero_line(axes, vertical=True)
            axes.axline((0, 0), slope=1, color=style.GREY, linestyle=":", linewidth=0.9)
            words = "oracle" if role == ORACLE else "held-out rewards (mean)"
            axes.set_title(f"{experiment}: {words}", loc="left")
            if column == 0:
                kind = "true" if role == ORACLE else "held-out"
                axes.set_ylabel(f"{kind} gain (base sd)")
            if row == len(roles) - 1:
                axes.set_xlabel("proxy gain: training reward (base sd)")
    labels = [arm_title(settings, arm) for arm in handles]
    style.legend_below(figure, list(handles.values()), labels)
    return figure


def _course(
    settings: Settings, axes: Axes, gains: pd.DataFrame, experiment: str, role: str, arm: str
) -> Any:
    """Course on the curve's prompts, then seeds and mean at the end; gives the mean's marker."""
    colour, marker, line = style.arm_look(arm)
    oracle = oracle_of(settings, experiment)
    wanted = gains["reward"] == oracle if role == ORACLE else gains["role"] == role
    keys = ["prompts", "seed", "iteration"]
    proxy = gains[gains["role"] == TRAINING].groupby(keys)["gain_sd"].mean()
    true = gains[wanted].groupby(keys)["gain_sd"].mean()
    both = pd.DataFrame({"x": proxy, "y": true}).dropna().reset_index()
    if both.empty:
        return None
    course = both[both["prompts"] == "curve"].groupby("iteration")[["x", "y"]].mean()
    axes.plot(course["x"], course["y"], color=colour, ls=line, lw=1, marker=".", ms=2.5, alpha=0.65)
    end = both[both["prompts"] == "all"]
    axes.plot(end["x"], end["y"], marker, color=colour, ms=2.6, alpha=0.55, mew=0)
    (drawn,) = axes.plot(
        end["x"].mean(), end["y"].mean(), marker, color=colour, ms=7, mec="white", mew=0.7, zorder=5
    )
    return drawn


def forest(settings: Settings, frames: Frames) -> Figure:
    """Rows: experiments and their arms, columns: rewards; paired differences in base sd.

    The arms that share a variance set the range: one that is judged by its own (a random reward)
    spreads so much wider that their intervals would hide behind their markers. Where it leaves
    the range, an arrow says so.
    """
    reference = settings.analysis.reference_arm
    gaps = frames["differences"]
    gaps = gaps[gaps["reference"] == reference] if len(gaps) else gaps
    shown = {
        name: [arm for arm in (*entry.arms, *settings.policies) if arm != reference]
        for name, entry in settings.experiments.items()
    }
    shown = {name: arms for name, arms in shown.items() if arms}
    if gaps.empty or not shown:
        return _only_text(f"No arm to compare with {arm_title(settings, reference)}.")
    margin = settings.analysis.equivalence_margin
    drawn = [gaps["experiment"].eq(name) & gaps["arm"].isin(arms) for name, arms in shown.items()]
    limits = _range_of_pooled(gaps[np.any(drawn, axis=0)], settings.analysis.own_variance, margin)
    columns = max(len(settings.rewards_of(name)) for name in shown)
    heights = [len(arms) + 1.2 for arms in shown.values()]
    figure = style.new_figure(0.2 * sum(heights) + 0.5 * len(shown) + 0.4, style.width_for(columns))
    grid = figure.subplots(len(shown), columns, squeeze=False, sharex=True, height_ratios=heights)
    for row, (experiment, arms) in enumerate(shown.items()):
        rewards = settings.rewards_of(experiment)
        for column, (axes, reward) in enumerate(zip(grid[row], rewards, strict=False)):
            part = gaps[(gaps["experiment"] == experiment) & (gaps["reward"] == reward)]
            _forest_panel(axes, part.set_index("arm"), arms, margin, limits)
            axes.set_yticks(range(len(arms)))
            axes.set_yticklabels([arm_title(settings, arm) for arm in arms] if column == 0 else [])
            axes.tick_params(left=False)
        for axes in grid[row][len(rewards) :]:
            axes.axis("off")
        style.panel_titles(grid[row], _titles(settings, experiment))
        grid[row][0].set_ylabel(experiment)
    style.few_ticks(grid[0][0])
    figure.align_ylabels(grid[:, 0])
    words = f"paired difference to {arm_title(settings, reference)} (base sd)"
    figure.supxlabel(words, fontsize=8)
    return figure


def _range_of_pooled(
    gaps: pd.DataFrame, own_variance: list[str], margin: float
) -> tuple[float, float]:
    """Limits of the axis [base sd]: margin and intervals of the arms that share a variance."""
    pooled = gaps[~gaps["arm"].isin(own_variance)]
    drawn = pooled[["difference_sd", "simultaneous_low_sd", "simultaneous_high_sd"]].to_numpy(float)
    ends = np.append(drawn[np.isfinite(drawn)], [-margin, margin])
    room = 0.06 * (ends.max() - ends.min())
    return float(ends.min() - room), float(ends.max() + room)


def _forest_panel(
    axes: Axes, part: pd.DataFrame, arms: list[str], margin: float, limits: tuple[float, float]
) -> None:
    axes.axvspan(-margin, margin, color="#EFEFEF", zorder=0)
    style.zero_line(axes, vertical=True)
    axes.set_xlim(limits)
    for place, arm in enumerate(arms):
        if arm not in part.index:
            continue
        entry = part.loc[arm]
        colour, marker, _ = style.arm_look(arm)
        ends = [entry["difference_sd"]]
        if np.isfinite(entry["low_sd"]):
            together = entry["simultaneous_low_sd"], entry["simultaneous_high_sd"]
            axes.hlines(place, *together, color=colour, linewidth=0.8)
            axes.hlines(place, entry["low_sd"], entry["high_sd"], color=colour, linewidth=1.8)
            ends += together
        fill = colour if entry["verdict"] in (BETTER, WORSE) else "white"
        axes.plot(entry["difference_sd"], place, marker, color=colour, mfc=fill, ms=5)
        for limit, beyond, arrow in (
            (limits[0], min(ends) < limits[0], "<"),
            (limits[1], max(ends) > limits[1], ">"),
        ):
            if beyond:
                axes.plot(limit, place, arrow, color=colour, ms=4, mew=0, clip_on=False, zorder=4)
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def sweep(settings: Settings, frames: Frames) -> Figure:
    """Rows: sweeps, columns: rewards; paired difference to the reference arm, in base sd."""
    lines = {}
    for name, entry in settings.sweeps.items():
        values = sweep_values(settings, entry.experiment, entry.arm, entry.setting)
        if len(values) > 1:
            lines[name] = values
    if not lines or frames["differences"].empty:
        return _only_text("No sweep in this configuration.")
    columns = max(len(settings.rewards_of(settings.sweeps[name].experiment)) for name in lines)
    figure = style.new_figure(1.75 * len(lines) + 0.35, style.width_for(columns))
    grid = figure.subplots(len(lines), columns, squeeze=False, sharex="row", sharey="row")
    for row, (name, values) in enumerate(lines.items()):
        entry = settings.sweeps[name]
        for axes, reward in zip(grid[row], settings.rewards_of(entry.experiment), strict=False):
            _sweep_panel(settings, frames, axes, entry.experiment, reward, values)
            own = own_value(settings, entry.arm, entry.setting)
            if values and own is not None:
                axes.axvline(own, color="#D0D0D0", linewidth=4, zorder=0)
            style.few_ticks(axes)
            axes.set_xlabel("α" if is_alpha(entry.setting) else entry.word)
        style.panel_titles(grid[row], _titles(settings, entry.experiment))
        reference = arm_title(settings, settings.analysis.reference_arm)
        grid[row][0].set_ylabel(f"{entry.experiment}:\ndifference to\n{reference} (base sd)")
    return figure


def _sweep_panel(
    settings: Settings,
    frames: Frames,
    axes: Axes,
    experiment: str,
    reward: str,
    values: list[tuple[float, str]],
) -> None:
    reference = settings.analysis.reference_arm
    gaps = frames["differences"]
    part = gaps[
        (gaps["experiment"] == experiment)
        & (gaps["reward"] == reward)
        & (gaps["reference"] == reference)
    ].set_index("arm")
    style.zero_line(axes)
    points = [(0.0, 0.0, 0.0, 0.0)] if (0.0, reference) in values else []
    for value, arm in values:
        if arm in part.index:
            entry = part.loc[arm]
            middle = entry["difference_sd"]
            low, high = entry["simultaneous_low_sd"], entry["simultaneous_high_sd"]
            points.append((value, middle, *style.reach(middle, low, high).flatten()))
    if points:
        x, y, down, up = np.array(points).T
        axes.errorbar(x, y, yerr=[down, up], color="#0072B2", marker="o", elinewidth=1, lw=1)


def _titles(settings: Settings, experiment: str) -> list[str]:
    """Of an experiment's rewards, in their order."""
    trains = settings.experiments[experiment].training_reward
    return [
        reward_title(settings, reward) + (" (trains)" if reward == trains else "")
        for reward in settings.rewards_of(experiment)
    ]


def _only_text(text: str) -> Figure:
    figure = style.new_figure(1.0)
    style.say(figure.subplots(), text)
    return figure
