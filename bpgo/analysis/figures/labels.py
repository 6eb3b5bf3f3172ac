"""Names at the ends of curves, in place of a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

SIZE = 6.5  # points
LINE = SIZE * 1.22 / 72  # inches from one name to the next
MARGIN = 0.5  # inches of a row of panels that are no panel: title and ticks
BESIDE = 0.045  # of the panel's width, from its edge to the markers of the names


@dataclass(frozen=True)
class End:
    """Where a curve ends, in data units, and how it is named."""

    x: float
    y: float
    text: str
    colour: str
    marker: str


def row_height(least: float, names: int) -> float:
    """Inches of a row of panels whose names have room."""
    return max(least, MARGIN + LINE * names)


def apart(
    wanted: Sequence[float], distance: float, low: float = 0.0, high: float = 1.0
) -> NDArray[np.float64]:
    """Places at least `distance` apart, in the order of `wanted` and as near to it as they can be.

    They lie within `low` to `high`, or around its middle where that is too short. Nearness is the
    sum of squares: places less `distance` times their rank are an isotonic regression, which pools
    neighbours that overlap.
    """
    order = np.argsort(np.asarray(wanted, float), kind="stable")
    blocks: list[tuple[float, int]] = []  # mean of wanted less rank times distance, how many
    for rank, at in enumerate(order):
        mean, count = wanted[at] - rank * distance, 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    found = np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])
    spare = max(0.0, high - low - distance * (len(order) - 1))
    start = low if spare else (low + high - distance * (len(order) - 1)) / 2
    placed = np.empty(len(order))
    placed[order] = np.clip(found, start, start + spare) + distance * np.arange(len(order))
    return placed


def end_labels(axes: Axes, ends: Sequence[End], height: float) -> None:
    """Write the names right of a panel, a thin line from each to where its curve ends.

    Call it when everything is drawn: limits that change later would move the ends.

    Args:
        axes: the last panel of its row.
        ends: of its curves.
        height: inches of the row, as `row_height` gave them.
    """
    axes.autoscale_view()  # limits by all that is drawn
    points = [axes.transLimits.transform((end.x, end.y)) for end in ends]
    share = LINE / max(height - MARGIN, LINE)
    for end, point, y in zip(ends, points, apart([p[1] for p in points], share), strict=True):
        kept: dict[str, Any] = {"color": end.colour, "transform": axes.transAxes, "clip_on": False}
        axes.plot([point[0], 1 + BESIDE * 0.6], [point[1], y], lw=0.4, alpha=0.6, **kept)
        axes.plot([1 + BESIDE], [y], end.marker, ms=3.2, **kept)
        axes.text(1 + 2 * BESIDE, y, end.text, fontsize=SIZE, va="center_baseline", **kept)
