"""The table of harm: what training broke, and the main metric at equal training."""

from __future__ import annotations

import pandas as pd

from bpgo.analysis import roles
from bpgo.analysis.roles import arm_title, reward_title
from bpgo.analysis.statistics.convergence import SHARE_OF_GAIN
from bpgo.analysis.statistics.harm import MEASURES
from bpgo.analysis.tables.format import (
    Block,
    Cell,
    Row,
    Table,
    how_differences,
    how_intervals,
    interval_text,
    number,
    records,
)
from bpgo.config.settings import BASE_ARM, Settings

Frames = dict[str, pd.DataFrame]
EQUAL = [name for name in MEASURES if name.startswith("gold_")]


def harm(settings: Settings, frames: Frames, lost: str) -> Table:
    """Two blocks an experiment; measures that the stored scores lack are left out."""
    found, turning = frames["harm"], frames["turning"]
    blocks = []
    for experiment, entry in settings.experiments.items():
        part = found[found["experiment"] == experiment] if len(found) else found
        turns = turning[turning["experiment"] == experiment] if len(turning) else turning
        broken = [name for name in MEASURES if name not in EQUAL and _has(part, name)]
        equal = [name for name in EQUAL if _has(part, name)]
        metric = reward_title(settings, roles.main_metric(settings, experiment))
        rows = [
            _row(settings, part, arm, broken) for arm in _arms(part, settings.compared(experiment))
        ]
        header = ["Arm", "Seeds", *(MEASURES[name].title for name in broken)]
        blocks.append(Block(f"{entry.title}: harm", header, rows if broken else []))
        rows = [
            [*_row(settings, part, arm, equal), *_turn(turns, arm)]
            for arm in settings.compared(experiment)
            if _has(part, arm, "arm")
        ]
        header = ["Arm", "Seeds", *(MEASURES[name].title for name in equal)]
        header += ["Turning point (iteration)", "Fall after it", "Training reward after it"]
        blocks.append(Block(f"{entry.title}: {metric}, change (base sd)", header, rows))
    reference = arm_title(settings, settings.analysis.reference_arm)
    note = (
        "Changes are against the base policy's sample of the same seed, prompt and noise, in base"
        " sd (standard deviation of its scores within a prompt), on the main metric. √KL: root of"
        " the KL divergence of the policy's path from the base policy's, per latent number. Worst"
        " tenth: mean change on the prompts where it is lowest, which is below zero by bad luck"
        " alone; on prompts that the other seeds choose it is about zero without harm. Better by"
        " all judges: share of prompts where none says worse and one says better. Worse by all but"
        " trained: none but the training reward says better, one says worse, the training reward"
        " does not."
        " Vendi score (effective number of different samples) and mean pairwise distance of samples"
        " of one prompt; KID: unbiased squared distance to the base policy's samples. At equal"
        f" training reward, divergence: where a run first has {SHARE_OF_GAIN:.0%} of {reference}'s"
        " mean final value (of how many runs, where some never do). Turning point: where the mean"
        " over seeds is highest, with its range in resamples of seeds; fall and rise from there to"
        " the end on each seed from where the others turn. Bold turning point: the whole interval"
        " of the fall lies below zero and that of the rise above. Levels:"
        f" {how_intervals(settings)}. Bold: better than {reference}, †: worse, in √KL: different;"
        f" {how_differences(settings)}.{lost}"
    )
    title = "Over-optimization and harm"
    return Table("harm", title, note, blocks, _data(found, turning))


def _has(part: pd.DataFrame, name: str, column: str = "measure") -> bool:
    return bool(len(part) and (part[column] == name).any())


def _arms(part: pd.DataFrame, arms: list[str]) -> list[str]:
    """Those with a row; the base policy stands first if its samples were measured."""
    return [arm for arm in (BASE_ARM, *arms) if _has(part, arm, "arm")]


def _row(settings: Settings, part: pd.DataFrame, arm: str, names: list[str]) -> list[Cell]:
    mine = part[part["arm"] == arm]
    by_name = records(mine, "measure")
    cells = [_cell(by_name[name], name) if name in by_name else Cell("n/a") for name in names]
    return [Cell(arm_title(settings, arm)), Cell(str(int(mine["n_runs"].max()))), *cells]


def _cell(row: Row, name: str) -> Cell:
    """The level with its interval; marked by its difference to the reference arm."""
    shown = MEASURES[name]
    low, high = row["to_reference_simultaneous_low"], row["to_reference_simultaneous_high"]
    more, less = bool(low > 0), bool(high < 0)
    better = (more and shown.better >= 0) or (less and shown.better <= 0)
    signed = name.startswith(("gold", "worst"))
    text = number(row["mean"] * shown.scale, signed, shown.digits)
    text += "†" if (more or less) and not better else ""
    limits = (row["low"] * shown.scale, row["high"] * shown.scale)
    detail = interval_text(*limits, signed, shown.digits)
    if row["n_seeds"] < row["n_runs"]:
        detail += f" {int(row['n_seeds'])} of {int(row['n_runs'])} runs"
    return Cell(text, detail, better)


def _turn(turning: pd.DataFrame, arm: str) -> list[Cell]:
    found = turning[turning["arm"] == arm] if len(turning) else turning
    if found.empty:
        return [Cell("n/a")] * 3
    row = found.iloc[0]
    where = interval_text(row["iteration_low"], row["iteration_high"], digits=0)
    cells = [Cell(str(int(row["iteration"])), where, bool(row["turned"]))]
    for name in ("fall", "rise"):
        detail = interval_text(row[f"{name}_low"], row[f"{name}_high"], signed=True, digits=2)
        cells.append(Cell(number(row[name], signed=True, digits=2), detail))
    return cells


def _data(found: pd.DataFrame, turning: pd.DataFrame) -> pd.DataFrame:
    """The measures, then the turning points as three more, without differences."""
    if turning.empty:
        return found
    keys = turning[["experiment", "arm", "n_seeds"]].assign(n_runs=turning["n_seeds"])
    parts = [found]
    for measure, name in (("turning_point", "iteration"), ("fall", "fall"), ("rise", "rise")):
        columns = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
        values = {short: turning[column] for short, column in columns.items()}
        parts.append(keys.assign(measure=measure, **values))
    return pd.concat(parts, ignore_index=True)
