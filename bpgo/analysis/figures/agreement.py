"""Two runs of one configuration: each difference by the one against the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bpgo.analysis.figures import style
from bpgo.analysis.roles import arm_title, reward_title
from bpgo.analysis.statistics.agreement import summarize
from bpgo.config.settings import Settings

CAPTION = (
    "Paired differences to the reference arm in two runs of one configuration, in standard"
    " deviations of the base policy's scores within a prompt. Bars: intervals of one difference;"
    " dotted: both runs equal. Filled: outside the other run's interval in either direction. Arms"
    " with a variance of their own (a random reward) are left out: they lie far off and would set"
    " range and correlation."
)


def agreement(settings: Settings, rows: pd.DataFrame, names: tuple[str, str]) -> Figure:
    """One panel an experiment; `rows` as `bpgo.analysis.statistics.agreement`."""
    shown = [
        name for name in settings.experiments if (rows["experiment"] == name)[rows["pooled"]].any()
    ]
    figure = style.new_figure(3.6, max(3.8, 3.4 * len(shown)))
    grid = figure.subplots(1, len(shown), squeeze=False)
    handles = {}
    for axes, experiment in zip(grid[0], shown, strict=True):
        part = rows[(rows["experiment"] == experiment) & rows["pooled"]]
        bounds = part[[f"{end}_sd_{run}" for end in ("low", "high") for run in ("first", "second")]]
        most = 1.05 * float(np.nanmax(np.abs(bounds.to_numpy(float))))
        axes.plot([-most, most], [-most, most], color=style.GREY, lw=0.9, ls=":", zorder=1)
        style.zero_line(axes)
        style.zero_line(axes, vertical=True)
        for reward, (colour, marker) in _looks(settings, experiment).items():
            for row in part[part["reward"] == reward].to_dict("records"):
                x, y = row["difference_sd_first"], row["difference_sd_second"]
                across = style.reach(x, row["low_sd_first"], row["high_sd_first"])
                up = style.reach(y, row["low_sd_second"], row["high_sd_second"])
                faint = {"color": colour, "lw": 0.6, "alpha": 0.45, "fmt": "none"}
                axes.errorbar(x, y, xerr=across, yerr=up, **faint)
                fill = colour if row["first_outside"] or row["second_outside"] else "white"
                title = reward_title(settings, str(reward))
                (handles[title],) = axes.plot(x, y, marker, color=colour, mfc=fill, ms=4.5)
        found = float(summarize(part)["correlation"].iloc[0])
        words = "" if np.isnan(found) else f": correlation {found:.2f}".replace("-", "−")
        axes.set_title(f"{experiment}{words}", loc="left")
        axes.set_xlim(-most, most)
        axes.set_ylim(-most, most)
        axes.set_aspect("equal")
        axes.set_xlabel(names[0])
    grid[0][0].set_ylabel(names[1])
    reference = arm_title(settings, settings.analysis.reference_arm)
    figure.suptitle(f"difference to {reference} (base sd)", fontsize=8)
    style.legend_below(figure, list(handles.values()), list(handles), columns=3)
    return figure


def _looks(settings: Settings, experiment: str) -> dict[str, tuple[str, str]]:
    rewards = settings.rewards_of(experiment)
    looks = style.REWARD_LOOKS + tuple(style.spare_look(place) for place in range(len(rewards)))
    return dict(zip(rewards, looks, strict=False))
