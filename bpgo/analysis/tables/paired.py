"""The table of two results folders, arm by arm."""

from __future__ import annotations

import pandas as pd

from bpgo.analysis.roles import arm_title, reward_title
from bpgo.analysis.tables.format import (
    Block,
    Cell,
    Row,
    Table,
    difference_cell,
    how_verdicts,
    interval_text,
    number,
)
from bpgo.config.settings import BASE_ARM, Settings

LISTED = 12  # settings that a note names


def paired_table(
    settings: Settings, rows: pd.DataFrame, names: tuple[str, str], differing: list[str]
) -> Table:
    """`rows` as `bpgo.analysis.statistics.paired`; `differing`: the settings that differ."""
    blocks = []
    for experiment, entry in settings.experiments.items():
        part = rows[rows["experiment"] == experiment]
        header = [
            "Arm",
            "Reward",
            "Seeds",
            *names,
            "Second − first",
            "One difference",
            "p",
            "Higher",
        ]
        if len(part):
            title = f"{entry.title}: in within-prompt base sd"
            blocks.append(Block(title, header, [_row(settings, row) for row in _rows(part)]))
    listed = "; ".join(differing[:LISTED])
    more = f"; and {len(differing) - LISTED} more" if len(differing) > LISTED else ""
    base = rows[rows["arm"] == BASE_ARM]
    equal = "equal" if not base["difference"].any() else "not equal"
    note = (
        f"First: {names[0]}; second: {names[1]}. Settings in which they differ:"
        f" {listed or 'none; what differs is the code, the machine or chance'}{more}. Runs of one"
        " arm and one seed pair, with the same prompts and noise. Intervals of the difference hold"
        f" for all arms of a reward at once ({settings.analysis.confidence:.0%}, repeated measures:"
        " one variance for the arms of both); beside them that of one difference and its p-value."
        " Higher: share of samples that score higher in the second, a tie counts half."
        f" {how_verdicts(settings)} The untrained policy's scores are"
        f" {equal if len(base) else 'unknown'}."
    )
    return Table("paired", "Two results folders, paired", note, blocks, rows)


def _rows(frame: pd.DataFrame) -> list[Row]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _row(settings: Settings, row: Row) -> list[Cell]:
    alone = interval_text(row["low_sd"], row["high_sd"], signed=True, digits=2)
    return [
        Cell(arm_title(settings, row["arm"])),
        Cell(reward_title(settings, row["reward"])),
        Cell(str(row["n_seeds"])),
        Cell(number(row["mean_first"])),
        Cell(number(row["mean_second"])),
        difference_cell(row),
        Cell(alone),
        Cell(number(row["p_value"])),
        Cell(f"{row['improvement']:.0%}"),
    ]
