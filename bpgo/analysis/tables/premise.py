"""The table of reliability: where rewards rank well, what arms read of it, and what they trust."""

from __future__ import annotations

import pandas as pd

from bpgo.analysis.roles import arm_title, truth_title
from bpgo.analysis.statistics.premise import FIXED
from bpgo.analysis.statistics.reliability import MEASURES
from bpgo.analysis.tables.differences import reward_label
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

Frames = dict[str, pd.DataFrame]
TRENDS = {
    "overall": "mean",
    "ambiguity": "with ambiguity",
    "group_mean": "with group mean",
    f"group_mean{FIXED}": "with group mean, ambiguity fixed",
}
READS = {
    "deviation": "mean − prior with",
    f"deviation{FIXED}": "mean − prior, ambiguity fixed, with",
    "weight": "weight with",
    f"weight{FIXED}": "weight, ambiguity fixed, with",
}


def premise(settings: Settings, frames: Frames) -> Table:
    """Reliability under the base policy, and during training."""
    trends, bins = frames["premise_summary"], frames["premise"]
    blocks = []
    for experiment, entry in settings.experiments.items():
        rows = []
        for reward in settings.rewards_of(experiment) if len(trends) else []:
            part = trends[(trends["experiment"] == experiment) & (trends["reward"] == reward)]
            if part.empty:
                continue
            cells = [Cell(reward_label(settings, experiment, reward))]
            cells.append(Cell(str(part["n_groups"].max())))
            for measure in ("gain", "gamma"):
                cells += _cells(part[part["measure"] == measure], "by", TRENDS)
            rows.append([*cells, _course(bins, experiment, reward)])
        names = [f"{MEASURES[m]} {words}" for m in ("gain", "gamma") for words in TRENDS.values()]
        header = ["Reward", "Groups", *names, "gain from clear to ambiguous"]
        title = f"{entry.title}: the base policy's groups, against the"
        blocks.append(Block(f"{title} {truth_title(settings, experiment)}", header, rows))
    blocks.append(_training(settings, frames["trust_summary"]))
    confidence = f"{settings.analysis.confidence:.0%}"
    note = (
        "How well a reward ranks the samples of a group of one prompt by the oracle (without one:"
        " by the mean of the other rewards). gain: mean of advantage times truth, by how much the"
        " group's update raises the truth to first order, in standard deviations of the truth"
        " within a group; 0 where reward or truth is constant. γ: Goodman and Kruskal's, over pairs"
        " without a tie. Under the base policy every sample has noise of its own; the next columns"
        " are Spearman's correlations over groups of reliability with the prompt's ambiguity (the"
        " premise expects it negative) and with the group's mean reward (positive), also with"
        f" ambiguity held fixed; {confidence} bootstrap intervals over groups. During training,"
        " with its noise: the same of what the arm reads, the group's mean less its prior, and of"
        " the weight that the group got; means over seeds. Bold: the interval excludes zero."
    )
    title = "Does the premise hold, and does trust follow?"
    return Table("premise", title, note, blocks, trends)


def _cells(rows: pd.DataFrame, key: str, wanted: dict[str, str]) -> list[Cell]:
    found = records(rows, key)
    return [_ranked(found[name]) if name in found else Cell("unknown") for name in wanted]


def _ranked(row: Row) -> Cell:
    clear = bool(row["low"] > 0 or row["high"] < 0)
    detail = interval_text(row["low"], row["high"], signed=True, digits=2)
    return Cell(number(row["mean"], signed=True, digits=2), detail, clear)


def _course(bins: pd.DataFrame, experiment: str, reward: str) -> Cell:
    keep = (bins["experiment"] == experiment) & (bins["reward"] == reward)
    keep &= (bins["by"] == "ambiguity") & (bins["measure"] == "gain")
    means = bins[keep].sort_values("bin")["mean"]
    return Cell(", ".join(number(value, digits=2) for value in means))


def _training(settings: Settings, summary: pd.DataFrame) -> Block:
    """What each arm reads and gives, during training."""
    known = [m for m in MEASURES if len(summary) and (summary["measure"] == m).any()]
    header = ["Arm", "Experiment", "Seeds", "Groups"]
    header += [f"{words} {MEASURES[measure]}" for measure in known for words in READS.values()]
    rows = []
    keys = ["experiment", "arm"]
    groups = list(summary.groupby(keys, sort=False)) if known else []
    for experiment, arm, part in ((str(e), str(a), part) for (e, a), part in groups):
        cells = [Cell(arm_title(settings, arm)), Cell(settings.experiments[experiment].title)]
        cells += [Cell(str(part["n_seeds"].max())), Cell(str(part["n_groups"].max()))]
        for measure in known:
            cells += _cells(part[part["measure"] == measure], "reads", READS)
        rows.append(cells)
    return Block("What arms read and trust, during training", header, rows)
