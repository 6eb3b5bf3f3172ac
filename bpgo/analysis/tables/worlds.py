"""The table of worlds: a row for each measure, a column for each world."""

from __future__ import annotations

import pandas as pd

from bpgo.analysis.statistics.worlds import CONFIDENCE, OPEN, SAMPLES
from bpgo.analysis.tables.format import Block, Cell, Table, interval_text, number, records

SIGNALS = {
    "by_mean": "group mean",
    "by_mean_fixed": "the same at fixed ambiguity",
    "by_moving_average": "mean minus moving average",
    "by_moving_average_fixed": "the same at fixed ambiguity",
    "by_sft_mean": "mean minus own base mean",
    "by_sft_mean_fixed": "the same at fixed ambiguity",
}
COUNTED = {f"counted_{name}": label for name, label in SIGNALS.items()}
BLOCKS: dict[str, dict[str, str]] = {
    "Judges: correlation of what the oracle leaves over, within groups of specified captions": {
        "judges_a_b": "pools a and b",
        "judges_a_c": "pools a and c",
    },
    "What gives ambiguity away": {
        "mean_ambiguity": "correlation of ambiguity with group mean",
    },
    "Reliability of pool a": {
        "reliability_specified": "specified captions",
        "reliability_open": "open captions",
        "counted_reliability_specified": "specified captions, by statements met",
        "counted_reliability_open": "open captions, by statements met",
    },
    "What gives reliability away: its correlation with": SIGNALS,
    "The same, reliability by statements met": COUNTED,
    "The base policy": {
        "oracle_specified": "oracle, specified captions",
        "oracle_open": "oracle, open captions",
        "constant": "share of groups with a constant oracle",
        "counted_constant": "the same, by statements met",
    },
}


def worlds_table(frame: pd.DataFrame, groups: int, size: int) -> Table:
    """From rows (world, measure, estimate, low, high); `groups` of `size` samples were drawn."""
    worlds = list(dict.fromkeys(frame["world"]))
    found = {world: records(frame[frame["world"] == world], "measure") for world in worlds}
    blocks = []
    for title, measures in BLOCKS.items():
        rows = [
            [Cell(label), *(_cell(found[world][measure]) for world in worlds)]
            for measure, label in measures.items()
        ]
        blocks.append(Block(title, ["Measure", *worlds], rows))
    note = (
        f"{groups} groups of {size} samples of the base policy a world. Reliability: gamma of"
        " reward and oracle in a group. Correlations over groups are rank correlations. Statements"
        " met: the oracle in few levels. Specified: ambiguity 0; open:"
        f" {OPEN:g} and more. {CONFIDENCE:.0%} intervals by a bootstrap over prompts ({SAMPLES}"
        " resamples)."
    )
    return Table("worlds", "Worlds", note, blocks, frame)


def _cell(row: dict[str, float]) -> Cell:
    detail = interval_text(row["low"], row["high"], digits=2)
    return Cell(number(row["estimate"], digits=2), detail)
