"""The table of the offline track: every trust rule in every world."""

from __future__ import annotations

import pandas as pd

from bpgo.analysis.tables.format import (
    Block,
    Cell,
    Row,
    Table,
    interval_text,
    number,
    records,
)
from bpgo.config.settings import Settings

HEADER = ["Rule", "Efficiency", "AUROC", "Remark"]


def ranked(frame: pd.DataFrame) -> list[str]:
    """The rules from the most efficient one down, by the mean over worlds; those without last."""
    means = frame.groupby("rule", sort=False)["efficiency"].mean()
    return [str(name) for name in means.sort_values(ascending=False, kind="stable").index]


def trust_table(settings: Settings, frame: pd.DataFrame) -> Table:
    """One block for each experiment and source of groups."""
    order = ranked(frame)
    blocks = []
    for (experiment, source), part in frame.groupby(["experiment", "source"], sort=False):
        rows = records(part, "rule")
        title = settings.experiments[str(experiment)].title
        whole = max(rows.values(), key=lambda row: int(row["n_groups"]))
        judged = whole["n_right"] + whole["n_wrong"]
        whose = "the base policy" if source == "base" else f"runs of {source}"
        blocks.append(
            Block(
                f"{title}: {whole['n_groups']} groups of {whose}, {whole['n_prompts']} prompts;"
                f" of {judged} groups whose rewards and oracle have an order,"
                f" {whole['n_right']} are ranked right",
                HEADER,
                [_row(name, rows[name]) for name in order if name in rows],
            )
        )
    return Table("trust", "Trust rules on stored groups", _note(settings), blocks, frame)


def _row(name: str, row: Row) -> list[Cell]:
    if row["lacks"]:
        return [Cell(name), Cell("n/a"), Cell("n/a"), Cell(str(row["lacks"]))]
    cells = [Cell(name)]
    for figure, even in (("efficiency", 1.0), ("auroc", 0.5)):
        low, high = row[f"{figure}_low"], row[f"{figure}_high"]
        wide = high - low > 1e-9  # what is 1 or 0 by definition has no interval
        detail = interval_text(low, high, digits=2) if wide else ""
        cells.append(Cell(number(row[figure], digits=2), detail, bool(low > even)))
    return [*cells, Cell(str(row["note"]))]


def _note(settings: Settings) -> str:
    options = settings.analysis
    return (
        "Efficiency: how much a rule's update raises the oracle to first order, at equal length of"
        " the update, relative to the same update without a rule (uniform: 1 by definition). AUROC:"
        " the probability that a group whose ranking is right has a larger weight than one whose"
        f" ranking is not (.5: chance). {options.confidence:.0%} intervals by a bootstrap over"
        f" prompts ({options.bootstrap_samples} resamples). Bold: the interval lies above 1 or"
        " above .5; not corrected for the number of rules."
    )
