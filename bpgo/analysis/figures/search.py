"""The figure of a search of training settings: how far the anchors come with each candidate."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bpgo.analysis.figures import style
from bpgo.config.search import GOOD, IDLE

COLUMNS = 4  # panels in a row
LOOKS = {GOOD: ("#0072B2", "o", "oracle reward"), IDLE: ("#D55E00", "v", "random reward")}


def search_courses(courses: pd.DataFrame) -> Figure:
    """A panel for each candidate: gain against iterations, thin lines seeds, markers their mean.

    courses: rows of `course_rows`.
    """
    names = list(dict.fromkeys(courses["candidate"]))
    rows, columns = math.ceil(len(names) / COLUMNS), min(COLUMNS, len(names))
    figure = style.new_figure(1.75 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    panels = list(grid.flat)
    for axes, name in zip(panels, names, strict=False):
        mine = courses[courses["candidate"] == name]
        for anchor in LOOKS:
            _lines(axes, mine[mine["anchor"] == anchor], anchor)
        style.zero_line(axes)
        axes.set_title(name, loc="left")
    for axes in panels[len(names) :]:
        axes.axis("off")
    for column in range(columns):
        last = [row for row in range(rows) if row * columns + column < len(names)][-1]
        grid[last][column].set_xlabel("iteration")
        grid[last][column].tick_params(labelbottom=True)
    for row in grid:
        row[0].set_ylabel("gain over base")
    style.legend_below(figure, *panels[0].get_legend_handles_labels())
    return figure


def _lines(axes: Axes, mine: pd.DataFrame, anchor: str) -> None:
    colour, marker, label = LOOKS[anchor]
    for _, run in mine.groupby("seed", sort=False):
        axes.plot(run["iteration"], run["gain"], color=colour, linewidth=0.6, alpha=0.5)
    mean = mine.groupby("iteration")["gain"].mean()
    axes.plot(mean.index, mean, color=colour, marker=marker, markersize=3, label=label)
