"""The table of a search of training settings: a row for each candidate."""

from __future__ import annotations

import pandas as pd

from bpgo.analysis.statistics.search import LAST
from bpgo.analysis.tables.format import Block, Cell, Row, Table, number, records, spread
from bpgo.config.search import SearchSettings

HEADER = [
    "Candidate",
    "Signal-to-noise",
    "per processor second",
    "Gain, oracle reward",
    "Gain, random reward",
    "Figure of merit",
    "Processor seconds a run",
]


def search_table(frame: pd.DataFrame, sizes: SearchSettings) -> Table:
    """From `search_statistics`; bold: the largest figure of merit."""
    best = frame["merit"].max()
    rows = [_row(row, bool(row["merit"] == best)) for row in records(frame, "candidate").values()]
    seeds = ", ".join(map(str, sizes.seeds))
    title = f"{sizes.iterations} iterations, tuning seeds {seeds}"
    note = (
        "Signal-to-noise: of the oracle-reward arm's gradient of a batch at the base policy, in"
        f" Adam's metric, {sizes.batches} batches a seed (± standard error). Gain: of the oracle"
        f" over the base policy on {sizes.prompts} evaluation prompts, mean of a run's last {LAST}"
        " evaluations (± standard deviation over seeds). Figure of merit: mean gain of oracle"
        " reward over √2 times its standard deviation over seeds, which is that of a difference of"
        " two arms that are equally good. Bold: the largest. Seconds a run: training alone."
    )
    block = Block(title, HEADER, rows)
    return Table("instrument", "Training settings on tuning seeds", note, [block], frame)


def _row(row: Row, best: bool) -> list[Cell]:
    return [
        Cell(str(row["candidate"])),
        Cell(number(row["signal_to_noise"], digits=4), spread(row["signal_to_noise_se"], 4)),
        Cell(number(row["signal_to_noise_per_second"], digits=4)),
        Cell(number(row["oracle_gain"], True, 4), spread(row["oracle_sd"], 4)),
        Cell(number(row["random_gain"], True, 4), spread(row["random_sd"], 4)),
        Cell(number(row["merit"], digits=1), bold=best),
        Cell(number(row["seconds_a_run"], digits=0)),
    ]
