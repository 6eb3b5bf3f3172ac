"""The table of what training itself did: how soon, how steadily, at what cost."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bpgo.analysis.roles import arm_title
from bpgo.analysis.statistics.convergence import MEASURES
from bpgo.analysis.tables.format import (
    Block,
    Cell,
    Row,
    Table,
    how_intervals,
    interval_text,
    number,
    records,
)
from bpgo.config.settings import Settings


def convergence(settings: Settings, frames: dict[str, pd.DataFrame], lost: str) -> Table:
    """Convergence and cost of each arm."""
    summary = frames["convergence_summary"]
    blocks = []
    for experiment, entry in settings.experiments.items():
        part = summary[summary["experiment"] == experiment]
        rows = []
        for arm in entry.arms:
            mine = records(part[part["arm"] == arm], "measure")
            cells = [_measure_cell(mine, name) for name in MEASURES]
            rows.append([Cell(arm_title(settings, arm)), *cells, _time_ratio(mine)])
        header = [f"{title} ({unit})" for title, unit, _ in MEASURES.values()]
        reference = arm_title(settings, settings.analysis.reference_arm)
        blocks.append(Block(entry.title, ["Arm", *header, f"Time / {reference}"], rows))
    note = (
        "Base sd: standard deviation of the base policy's reward within a prompt."
        " Training reward of the snapshots on fixed evaluation prompts and noise, relative to the"
        " base policy's on the same, straight between snapshots; the gain at the end is that of the"
        f" final scores. Threshold: 80% of {reference}'s mean final gain; a seed that never reaches"
        " it counts with the last iteration (reached: how many did). Oscillation: swing from"
        " snapshot to snapshot, by third differences, which an even bend does not have."
        f" {how_intervals(settings)}; seeds only here. Bold:"
        f" better than {reference}, †: worse, where the interval of the paired difference excludes"
        " zero for all arms of the column at once. Times are medians and depend on what else the"
        f" machine did.{lost}"
    )
    return Table("convergence", "Convergence and cost", note, blocks, summary)


def _measure_cell(mine: dict[str, Row], measure: str) -> Cell:
    if measure not in mine:
        return Cell("n/a")
    row, (_, _, more_is_better) = mine[measure], MEASURES[measure]
    null = 1.0 if measure == "seconds" else 0.0
    digits = 1 if measure == "steps_to_threshold" else 3
    low, high = row["simultaneous_low"] - null, row["simultaneous_high"] - null
    clear = bool(low > 0 or high < 0)
    better = clear and bool(low > 0) == more_is_better
    text = number(row["mean"], digits=digits) + ("†" if clear and not better else "")
    detail = interval_text(row["low"], row["high"], digits=digits)
    if measure == "steps_to_threshold":
        detail += f" reached {int(row['reached'])} of {int(row['n_seeds'])}"
    return Cell(text, detail, better)


def _time_ratio(mine: dict[str, Row]) -> Cell:
    if "seconds" not in mine:
        return Cell("n/a")
    row = mine["seconds"]
    if not np.isfinite(row["difference"]):  # the reference arm itself
        return Cell("1")
    return Cell(
        number(row["difference"]), interval_text(row["simultaneous_low"], row["simultaneous_high"])
    )
