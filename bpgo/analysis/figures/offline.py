"""The figure of the offline track: efficiency and AUROC of every trust rule in every world."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpgo.analysis.figures import style
from bpgo.analysis.tables.format import number as as_text
from bpgo.analysis.tables.trust import ranked

LOOKS = (*style.REWARD_LOOKS, ("#CC79A7", "s"), ("#E69F00", "<"))  # of the worlds
ROW = 0.085  # inches for each world in a rule's row
PANELS = {  # label, what no rule has, what is shown
    "efficiency": ("efficiency of the update (no rule: 1)", 1.0, (0.5, 1.75)),
    "auroc": ("AUROC of the weight for a right ranking", 0.5, (-0.03, 1.03)),
}
CAPTION = (
    "Every trust rule on stored groups. Left: how much its update raises the oracle to first order,"
    " at equal length, relative to no rule. Right: the probability that a group whose ranking is"
    " right has a larger weight than one whose ranking is not. Bars: intervals over prompts. A"
    " number at the edge: beyond what is shown. A rule without markers needs what the"
    " groups do not have."
)


def trust_rules(frame: pd.DataFrame) -> Figure:
    """Rows: rules, the most efficient above; left efficiency, right AUROC; markers by world."""
    names = ranked(frame)
    worlds = list(dict.fromkeys(zip(frame["experiment"], frame["source"], strict=True)))
    height = 1.1 + len(names) * (0.09 + ROW * len(worlds))
    figure = style.new_figure(height)
    grid = figure.subplots(1, 2, sharey=True)
    place = {name: row for row, name in enumerate(names)}
    spread = 0.62 * (np.arange(len(worlds)) - (len(worlds) - 1) / 2) / max(1, len(worlds))
    for axes, (value, (label, even, shown)) in zip(grid, PANELS.items(), strict=True):
        for number, world in enumerate(worlds):
            keep = (frame["experiment"] == world[0]) & (frame["source"] == world[1])
            part = frame[keep & np.isfinite(frame[value])]
            at = part["rule"].map(place).to_numpy(float) + spread[number]
            _points(axes, part, value, at, number, world)
        axes.axvline(even, color=style.GREY, linewidth=0.9, zorder=1)
        axes.set_xlabel(label)
        axes.set_xlim(shown)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        for row in range(0, len(names), 2):
            axes.axhspan(row - 0.5, row + 0.5, color="#F4F4F4", zorder=0, linewidth=0)
    grid[0].set_yticks(range(len(names)), [_label(frame, name) for name in names])
    for name in names:
        rows = frame[frame["rule"] == name]
        if not np.isfinite(rows["efficiency"]).any():
            why = str(rows["lacks"].iloc[0])
            grid[0].text(1, place[name], why, color=style.GREY, fontsize=6, va="center")
    handles, labels = grid[0].get_legend_handles_labels()
    style.legend_below(figure, handles, labels, 5)
    return figure


def _label(frame: pd.DataFrame, rule: str) -> str:
    """A rule's name, and the truth that it reads where it does."""
    notes = frame.loc[frame["rule"] == rule, "note"]
    return next((f"{rule} ({note})" for note in notes if note.startswith("reads")), rule)


def _points(
    axes: Axes,
    part: pd.DataFrame,
    value: str,
    at: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    number: int,
    world: tuple[str, str],
) -> None:
    colour, marker = LOOKS[number % len(LOOKS)]
    lowest, highest = PANELS[value][2]
    middle = part[value].to_numpy(float)
    for row, found in zip(at, middle, strict=True):
        if not lowest <= found <= highest:
            low = found < lowest
            size = as_text(found, digits=2)
            text = f"◂ {size}" if low else f"{size} ▸"
            edge, side = (lowest, "left") if low else (highest, "right")
            axes.text(edge, row, text, color=colour, fontsize=6, ha=side, va="center")
    axes.errorbar(
        middle,
        at,
        xerr=style.reach(middle, part[f"{value}_low"], part[f"{value}_high"]),
        linestyle="none",
        color=colour,
        marker=marker,
        markersize=3.5,
        elinewidth=0.9,
        label=world[0] if world[1] == "base" else f"{world[0]}, {world[1]}",
    )
