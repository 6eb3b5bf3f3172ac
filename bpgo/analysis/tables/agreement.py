"""The table of how far two runs of one configuration agree."""

from __future__ import annotations

import pandas as pd

from bpgo.analysis.roles import arm_title, reward_title
from bpgo.analysis.statistics.agreement import ALL, summarize
from bpgo.analysis.tables.format import Block, Cell, Row, Table, interval_text, number
from bpgo.config.settings import Settings


def agreement_table(settings: Settings, rows: pd.DataFrame, names: tuple[str, str]) -> Table:
    """`rows` as `bpgo.analysis.statistics.agreement`; `names` of the two runs."""
    summary = [_summary_row(settings, row) for row in _rows(summarize(rows))]
    header = ["Experiment", "Reward", "Differences", "Correlation", "Same verdict", "Opposed"]
    blocks = [Block("How far they agree", [*header, "Outside", "By chance"], summary)]
    reference = arm_title(settings, settings.analysis.reference_arm)
    for experiment, entry in settings.experiments.items():
        part = rows[rows["experiment"] == experiment]
        title = f"{entry.title}: arm − {reference}, in within-prompt base sd"
        header = ["Arm", "Reward", *names, "Verdicts"]
        blocks.append(Block(title, header, [_row(settings, row) for row in _rows(part)]))
    note = (
        f"First run: {names[0]}; second: {names[1]}. Estimates with"
        f" {settings.analysis.confidence:.0%} intervals of one difference (repeated measures);"
        " verdicts by intervals that hold for all arms of a column. Outside: share of estimates"
        " that lie outside the other run's interval; by chance: the share to be expected of runs of"
        " different seeds, if both measure the same with the variances that they say. Opposed:"
        " better in one run and worse in the other. A correlation is low, too, where arms hardly"
        " differ; arms with a variance of their own (`analysis.own_variance`) are left out of it,"
        " for they lie far off."
    )
    return Table("agreement", "Agreement of two runs", note, blocks, rows)


def _rows(frame: pd.DataFrame) -> list[Row]:
    return [{str(k): v for k, v in row.items()} for row in frame.to_dict("records")]


def _summary_row(settings: Settings, row: Row) -> list[Cell]:
    every = row["reward"] == ALL
    return [
        Cell(str(row["experiment"])),
        Cell(ALL if every else reward_title(settings, row["reward"])),
        Cell(str(row["differences"])),
        Cell(number(row["correlation"], digits=2), bold=every),
        Cell(f"{row['same_verdict']} of {row['differences']}"),
        Cell(str(row["opposed"])),
        Cell(f"{row['outside']:.0%}"),
        Cell(f"{row['expected']:.0%}" if row["expected"] == row["expected"] else "n/a"),
    ]


def _row(settings: Settings, row: Row) -> list[Cell]:
    cells = [Cell(arm_title(settings, row["arm"])), Cell(reward_title(settings, row["reward"]))]
    for run in ("first", "second"):
        text = number(row[f"difference_sd_{run}"], signed=True, digits=2)
        limits = (row[f"low_sd_{run}"], row[f"high_sd_{run}"])
        outside = " outside the other's" if row[f"{run}_outside"] else ""
        cells.append(Cell(text, interval_text(*limits, signed=True, digits=2) + outside))
    verdicts = [row["verdict_first"], row["verdict_second"]]
    words = verdicts[0] if verdicts[0] == verdicts[1] else " / ".join(verdicts)
    return [*cells, Cell(words, bold=bool(row["opposed"]))]
