"""`python -m bpgo simulate`: what the intervals are worth, as a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from bpgo.analysis.statistics.simulation import (
    COMPONENTS,
    CONFIDENCE,
    EVERY_ARM,
    ONE_ARM,
    STEADY,
    Size,
    components,
    simulate,
)
from bpgo.analysis.tables.format import Block, Cell, Table, number, save_table


def simulate_command(output: Path, tables: int | None = None, seed: int = 0) -> Path:
    """Write `output`/simulation.csv, .md and .tex; gives the Markdown's path."""
    size = Size() if tables is None else replace(Size(), tables=tables)
    output.mkdir(parents=True, exist_ok=True)
    save_table(simulation_table(simulate(size, seed), size), output)
    return output / "simulation.md"


def simulation_table(frame: pd.DataFrame, size: Size) -> Table:
    """One block per metric and kind of collapse."""
    known, share, depth = components()
    words = {
        STEADY: "no run collapses",
        EVERY_ARM: f"{share:.0%} of the runs of every arm collapse, by {depth:g}",
        ONE_ARM: f"{share:.0%} of the runs of one arm collapse, by {depth:g}",
    }
    blocks = []
    for (metric, collapse), part in frame.groupby(["metric", "collapse"], sort=False):
        rows = [
            [
                Cell(str(row["seeds"])),
                Cell(str(row["method"])),
                Cell(number(row["half_width"], digits=2)),
                *(Cell(_percent(row[name])) for name in _SHARES),
            ]
            for _, row in part.iterrows()
        ]
        arms = known[str(metric)].arms
        title = f"{metric}: {arms} arms, {words[str(collapse)]}"
        blocks.append(Block(title, ["Seeds", "Interval", "Half-width", *_SHARES.values()], rows))
    note = (
        f"{size.tables} drawn tables of {size.columns} independent columns a line, with the"
        f" variances of {COMPONENTS.name}; {CONFIDENCE:.0%} intervals, widths in standard"
        " deviations of all samples of the base policy. Coverage: share of the intervals that hold"
        " the true difference; where one arm's runs collapse, of that arm's. Bold by chance: share"
        " of cells, columns and tables with an interval that excludes zero although all arms are"
        " equal. Dunnett's intervals are made for the column."
    )
    return Table("simulation", "What the intervals are worth", note, blocks, frame)


_SHARES = {
    "coverage": "Coverage",
    "false_cell": "Bold by chance: cell",
    "false_column": "column",
    "false_table": "table",
}


def _percent(value: float) -> str:
    return f"{value:.1%}" if value == value else "n/a"
