"""Figures of how reliable rewards are, and whether trust follows."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bpgo.analysis.figures import style
from bpgo.analysis.roles import arm_title, reward_title, truth_title
from bpgo.analysis.tables.format import number
from bpgo.config.settings import Settings

Frames = dict[str, pd.DataFrame]
AXES = {"ambiguity": "ambiguity of the prompt", "group_mean": "group's mean reward"}


def premise(settings: Settings, frames: Frames) -> Figure:
    """Rows: experiments; left by ambiguity where it is known, right by the group's mean reward."""
    bins, trends = (_of(frames[name], "gain") for name in ("premise", "premise_summary"))
    names = [name for name in settings.experiments if len(bins) and name in set(bins["experiment"])]
    if not names:
        figure = style.new_figure(1.0)
        style.say(
            figure.subplots(), "No reward in the calibration to hold the training reward against."
        )
        return figure
    figure = style.new_figure(2.35 * len(names) + 0.2)
    columns = [by for by in AXES if (bins["by"] == by).any()]
    grid = figure.subplots(len(names), len(columns), squeeze=False, sharey=True)
    for row, experiment in enumerate(names):
        rewards = [
            name
            for name in settings.rewards_of(experiment)
            if ((bins["experiment"] == experiment) & (bins["reward"] == name)).any()
        ]
        for axes, by in zip(grid[row], columns, strict=True):
            keep = (bins["experiment"] == experiment) & (bins["by"] == by)
            for place, reward in enumerate(rewards):
                part = bins[keep & (bins["reward"] == reward)].sort_values("bin")
                colour, marker = style.REWARD_LOOKS[place % len(style.REWARD_LOOKS)]
                label = _with_trend(settings, trends, experiment, reward, by)
                _line(axes, part["centre"], part, colour, marker, label)
            style.zero_line(axes)
            axes.legend(loc="upper right", fontsize=6.5, handlelength=1.6)
            axes.set_title(f"{experiment}: by {AXES[by]}", loc="left")
            if row == len(names) - 1:
                axes.set_xlabel(AXES[by])
        against = truth_title(settings, experiment)
        grid[row][0].set_ylabel(f"gain of a group's update\nin the {against} (sd)")
    low, high = grid[0][0].get_ylim()
    grid[0][0].set_ylim(low, high + 0.3 * (high - low))  # room for the legends
    return figure


def _of(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The rows of one measure of reliability."""
    return frame[frame["measure"] == measure] if len(frame) else frame


def _with_trend(
    settings: Settings, trends: pd.DataFrame, experiment: str, reward: str, by: str
) -> str:
    """A reward's title and, in brackets, its trend."""
    keep = (trends["experiment"] == experiment) & (trends["reward"] == reward)
    row = trends[keep & (trends["by"] == by)].iloc[0]
    trains = reward == settings.experiments[experiment].training_reward
    title = reward_title(settings, reward) + (", trains" if trains else "")
    return f"{title} (trend ρ {number(row['mean'], signed=True, digits=2)})"


def trust(settings: Settings, frames: Frames) -> Figure:
    """Columns: experiments; reliability inside a group by its RAS weight."""
    measure = str(frames["trust"]["measure"].iloc[0]) if len(frames["trust"]) else "gain"
    bins, summary = (_of(frames[name], measure) for name in ("trust", "trust_summary"))
    summary = summary[summary["reads"] == "weight"] if len(summary) else summary
    shown = {
        name: [
            arm
            for arm in entry.arms
            if len(bins) and ((bins["experiment"] == name) & (bins["arm"] == arm)).any()
        ]
        for name, entry in settings.experiments.items()
    }
    names = [name for name, arms in shown.items() if arms]
    if not names:
        figure = style.new_figure(1.0)
        style.say(figure.subplots(), "No arm in this configuration weighs its groups.")
        return figure
    figure = style.new_figure(3.0)
    grid = figure.subplots(1, len(names), squeeze=False, sharey=True)
    for axes, experiment in zip(grid[0], names, strict=True):
        for arm in shown[experiment]:
            part = bins[(bins["experiment"] == experiment) & (bins["arm"] == arm)]
            row = summary[(summary["experiment"] == experiment) & (summary["arm"] == arm)]
            overall = number(float(row["mean"].iloc[0]), True, 2) if len(row) else "n/a"
            colour, marker, _ = style.arm_look(arm)
            label = f"{arm_title(settings, arm)} ({overall})"
            _line(axes, part["weight"], part, colour, marker, label)
        style.zero_line(axes)
        axes.axvline(1, color=style.GREY, linewidth=0.9, zorder=1)
        axes.set_title(f"{experiment}", loc="left")
        axes.set_xlabel("weight of the group")
        axes.xaxis.set_major_locator(MaxNLocator(6))  # whatever the width, so labels fit
        axes.legend(loc="upper left", fontsize=6.5, handlelength=1.6)
    low, high = grid[0][0].get_ylim()
    most = max(len(shown[name]) for name in names)
    grid[0][0].set_ylim(low, high + (high - low) * (0.06 + 0.075 * most))  # room for the legends
    against = " or ".join(dict.fromkeys(truth_title(settings, name) for name in names))
    words = "rank correlation in the group:\ntraining reward,"
    if measure == "gain":
        words = "gain of the group's update\nin the"
    grid[0][0].set_ylabel(f"{words} {against}" + (" (sd)" if measure == "gain" else ""))
    return figure


def _line(
    axes: object, x: pd.Series, part: pd.DataFrame, colour: str, marker: str, label: str
) -> None:
    middle = part["mean"].to_numpy()
    axes.errorbar(  # type: ignore[attr-defined]
        x,
        middle,
        yerr=style.reach(middle, part["low"], part["high"]),
        color=colour,
        marker=marker,
        elinewidth=0.8,
        lw=1.2,
        label=label,
    )
