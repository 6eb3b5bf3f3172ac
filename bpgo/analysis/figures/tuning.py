"""The figure of equal tuning: what every candidate of every arm gained."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bpgo.analysis.figures import style

ROW = 0.2  # inches of an arm
CAPTION = (
    "Equal tuning. Each dot is a candidate: its gain by the oracle over the base policy, mean over"
    " tuning seeds. Diamond: the arm as it stands. Ring: chosen. Crosses at the left edge:"
    " candidates that failed."
)


def tuning_gains(rows: pd.DataFrame, summary: pd.DataFrame, titles: dict[str, str]) -> Figure:
    """Rows: arms, in the order of the configuration; from `search_rows` and `tuning_summary`."""
    arms = list(summary["arm"])
    figure = style.new_figure(1.0 + ROW * len(arms))
    axes = figure.subplots()
    means = rows.groupby(["arm", "candidate"], sort=False)["gain"].agg(
        lambda gain: gain.mean(skipna=False)
    )
    finite = means[np.isfinite(means)]
    low = float(min(finite.min(), 0)) if len(finite) else 0.0
    high = float(max(finite.max(), 0)) if len(finite) else 1.0
    edge = low - 0.06 * (high - low)
    for place, (arm, chosen) in enumerate(zip(arms, summary["chosen"], strict=True)):
        gains = means[arm].to_numpy(float)
        colour = style.arm_look(arm)[0]
        known = np.isfinite(gains)
        drawn = known.copy()
        drawn[0] = False
        axes.plot(gains[drawn], [place] * drawn.sum(), "o", color=colour, alpha=0.7, markersize=3.5)
        if known[0]:
            axes.plot(gains[:1], [place], "D", color=colour, markersize=4.5)
        if known[chosen]:
            axes.plot(gains[[chosen]], [place], "o", mfc="none", mec=colour, markersize=9)
        failed = int((~known).sum())
        if failed:
            axes.plot([edge], [place], "x", color=colour, markersize=4)
            axes.text(edge, place, f"  {failed}", color=colour, fontsize=6, va="center")
        if place % 2:
            axes.axhspan(place - 0.5, place + 0.5, color="#F4F4F4", zorder=0, linewidth=0)
    style.zero_line(axes, vertical=True)
    axes.set_yticks(range(len(arms)), [titles[arm] for arm in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("gain by the oracle over the base policy")
    return figure
