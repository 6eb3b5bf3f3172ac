"""The paper's tables on our runs: built from statistics alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bpgo.analysis import roles
from bpgo.analysis.roles import arm_title
from bpgo.analysis.statistics.compute import load_statistics
from bpgo.analysis.statistics.critical import BETTER, WORSE
from bpgo.analysis.tables.cost import cost
from bpgo.analysis.tables.differences import differences, power, primary, reward_label
from bpgo.analysis.tables.format import (
    Block,
    Cell,
    Table,
    how_intervals,
    interval_text,
    number,
    save_table,
)
from bpgo.analysis.tables.harm import harm
from bpgo.analysis.tables.paper import (
    NOTE,
    paper_alpha_rows,
    paper_block,
    paper_part_rows,
    paper_rows,
    paper_table,
)
from bpgo.analysis.tables.premise import premise
from bpgo.analysis.tables.training import convergence
from bpgo.config.paper import PAPER_TASKS
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.config.variants import value_text

Frames = dict[str, pd.DataFrame]


def make_tables(settings: Settings, statistics: Path, output: Path) -> None:
    """Write every table of `bpgo.analysis.TABLES` as CSV, Markdown and LaTeX."""
    frames, account = load_statistics(Path(statistics))
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    for table in build_tables(settings, frames, account):
        save_table(table, output)


def build_tables(settings: Settings, frames: Frames, account: dict[str, Any]) -> list[Table]:
    """All tables, in the order of `bpgo.analysis.TABLES`."""
    lost = missing_note(account)
    return [
        primary(settings, frames, lost),
        _main(settings, frames, lost),
        differences(settings, frames, lost),
        _parts(settings, frames, lost),
        _sweep(settings, frames, lost),
        premise(settings, frames),
        convergence(settings, frames, lost),
        cost(settings, frames["cost"], lost),
        harm(settings, frames, lost),
        power(settings, frames["power"], lost),
        _paper(),
    ]


def missing_note(account: dict[str, Any]) -> str:
    """A sentence that names the runs that are missing, and why; empty if none is."""
    lost = [
        f"{entry['experiment']}/{entry['arm']}"
        + (f" seed {entry['seed']}" if entry["seed"] is not None else "")
        + f" ({entry['reason']})"
        for entry in account["missing"]
    ]
    return f" Missing runs ({len(lost)}): {', '.join(lost)}." if lost else ""


def given_note(settings: Settings) -> str:
    """What rows of given policies say; empty if there are none."""
    if not settings.policies:
        return ""
    return (
        " (given): a policy that was trained elsewhere, the same one for every seed, so its seeds"
        " differ by noise alone; its differences have a variance of their own, and say nothing of"
        " another training of it."
    )


def _mark_note(settings: Settings) -> str:
    reference = arm_title(settings, settings.analysis.reference_arm)
    margin = settings.analysis.equivalence_margin
    return (
        f"Bold: better than {reference}, †: worse, where the interval of the paired difference"
        " (same seed, prompt and noise) excludes zero for all arms of the column at once, and is"
        f" not within ±{margin:g} within-prompt standard deviations of the base policy; not"
        " corrected for the number of columns."
    )


def score_cells(
    settings: Settings, frames: Frames, experiment: str, arm: str, rewards: list[str]
) -> list[Cell]:
    """Mean and interval of an arm for each reward, marked by its paired difference."""
    final, gaps = frames["final"], frames["differences"]
    mine = final[(final["experiment"] == experiment) & (final["arm"] == arm)]
    gaps = gaps[
        (gaps["experiment"] == experiment)
        & (gaps["arm"] == arm)
        & (gaps["reference"] == settings.analysis.reference_arm)
    ]
    cells = []
    for reward in rewards:
        rows, gap = mine[mine["reward"] == reward], gaps[gaps["reward"] == reward]
        if rows.empty:
            cells.append(Cell("missing"))
            continue
        row = rows.iloc[0]
        verdict = gap.iloc[0]["verdict"] if len(gap) else ""
        text = number(row["mean"]) + ("†" if verdict == WORSE else "")
        cells.append(Cell(text, interval_text(row["low"], row["high"]), verdict == BETTER))
    return cells


def _seeds(frames: Frames, experiment: str, arm: str) -> Cell:
    final = frames["final"]
    rows = final[(final["experiment"] == experiment) & (final["arm"] == arm)]
    return Cell(str(int(rows["n_seeds"].min())) if len(rows) else "0")


def _score_block(
    settings: Settings, frames: Frames, experiment: str, arms: dict[str, str], first: str = "Arm"
) -> Block:
    """Arms (name to label) by rewards."""
    rewards = settings.rewards_of(experiment)
    header = [first, "Seeds", *(reward_label(settings, experiment, name) for name in rewards)]
    rows = [
        [
            Cell(label),
            _seeds(frames, experiment, arm),
            *score_cells(settings, frames, experiment, arm, rewards),
        ]
        for arm, label in arms.items()
    ]
    return Block(_experiment_title(settings, frames, experiment), header, rows)


def _experiment_title(settings: Settings, frames: Frames, experiment: str) -> str:
    final = frames["final"]
    rows = final[final["experiment"] == experiment]
    prompts = f"; {int(rows['n_prompts'].max())} prompts" if len(rows) else ""
    samples = int(rows["n_samples"].max()) if len(rows) else 1
    return (
        f"{settings.experiments[experiment].title}{prompts}, {samples} sample(s) a prompt and seed"
    )


def _main(settings: Settings, frames: Frames, lost: str) -> Table:
    blocks = []
    for experiment, entry in settings.experiments.items():
        arms = [BASE_ARM, *settings.compared(experiment)]
        labels = {arm: arm_title(settings, arm) for arm in arms}
        block = _score_block(settings, frames, experiment, labels)
        block.rows.extend(paper_rows(entry.paper, settings.rewards_of(experiment)))
        blocks.append(block)
    table, task = PAPER_TASKS[settings.model.task]
    beside = any(entry.paper for entry in settings.experiments.values())
    if not beside:
        blocks.append(paper_block(table, task=task))
    note = (
        f"Mean score at the end of training, in each reward's own unit (oracle: share from 0 to 1);"
        f" higher is better. {how_intervals(settings)}. {_mark_note(settings)}"
        f" [main]: the metric declared beforehand.{given_note(settings)}"
        f"{NOTE if beside else ''}{lost}"
    )
    return Table(
        "main", "Base policy and arms by all rewards", note, blocks, _tidy(settings, frames)
    )


def _tidy(settings: Settings, frames: Frames) -> pd.DataFrame:
    """Final scores with the paired differences to the reference arm and to the base policy."""
    result = frames["final"]
    keys = ["experiment", "arm", "reward"]
    wanted = {
        "difference": "difference",
        "low": "low",
        "high": "high",
        "simultaneous_low": "simultaneous_low",
        "simultaneous_high": "simultaneous_high",
        "verdict": "verdict",
        "improvement": "improvement",
        "n_seeds": "n_seeds",
    }
    for label, reference in (("reference", settings.analysis.reference_arm), ("base", BASE_ARM)):
        gaps = frames["differences"]
        gaps = gaps[gaps["reference"] == reference][[*keys, *wanted]]
        names = {name: f"to_{label}_{short}" for name, short in wanted.items()}
        result = result.merge(gaps.rename(columns=names), on=keys, how="left")
    return result


def _parts(settings: Settings, frames: Frames, lost: str) -> Table:
    labels = {
        settings.analysis.reference_arm: "neither (GRPO)",
        roles.RAS: "RAS",
        roles.CRT: "CRT",
        roles.BPGO: "RAS + CRT (BPGO)",
        roles.SHUFFLED: "RAS, weights shuffled (control)",
    }
    blocks, names, beside = [], [], []
    for experiment, entry in settings.experiments.items():
        present = {arm: label for arm, label in labels.items() if arm in entry.arms}
        if len(present) > 2 or roles.RAS in present:
            block = _score_block(settings, frames, experiment, present, "Parts")
            rows = paper_part_rows(entry.paper, settings.rewards_of(experiment))
            block.rows.extend(rows)
            beside += rows
            blocks.append(block)
            names.append(experiment)
    if not beside:
        _, task = PAPER_TASKS[settings.model.task]
        blocks.append(paper_block("table3", "Parts", task))
    note = f"{how_intervals(settings)}. {_mark_note(settings)}{NOTE if beside else ''}{lost}"
    tidy = _tidy(settings, frames)
    data = tidy[tidy["experiment"].isin(names) & tidy["arm"].isin(labels)]
    return Table("parts", "The parts of BPGO", note, blocks, data)


def _sweep(settings: Settings, frames: Frames, lost: str) -> Table:
    blocks, data, beside = [], [], []
    for sweep in settings.sweeps.values():
        arms = roles.swept_arms(settings, sweep.experiment, sweep.arm, sweep.setting)
        values = {arm: value for value, arm in arms.items()}
        labels = {arm: value_text(value) for arm, value in values.items()}
        if labels:
            shown = "α" if roles.is_alpha(sweep.setting) else sweep.word
            block = _score_block(settings, frames, sweep.experiment, labels, shown)
            if sweep.arm == roles.RAS and roles.is_alpha(sweep.setting):
                paper = settings.experiments[sweep.experiment].paper
                rows = paper_alpha_rows(paper, settings.rewards_of(sweep.experiment))
                block.rows.extend(rows)
                beside += rows
            title = f"{arm_title(settings, sweep.arm)}; {block.title}"
            blocks.append(Block(title, block.header, block.rows))
            part = _tidy(settings, frames)
            part = part[(part["experiment"] == sweep.experiment) & part["arm"].isin(labels)]
            data.append(part.assign(value=part["arm"].map(values)))
    if not blocks:
        blocks = [Block("No sweep in this configuration", [], [])]
    if not beside:
        blocks.append(paper_block("table4", "α"))
    others = any(sweep.block for sweep in settings.sweeps.values())
    note = (
        f"α = 0 is {arm_title(settings, settings.analysis.reference_arm)}; the arm's own value"
        f" comes from its file{', or from the configuration' if others else ''}."
        f" {how_intervals(settings)}. {_mark_note(settings)}{NOTE if beside else ''}{lost}"
    )
    joined = pd.concat(data, ignore_index=True) if data else pd.DataFrame(columns=["value"])
    alone = all(roles.is_alpha(sweep.setting) for sweep in settings.sweeps.values())
    title = "Scaling magnitude" if alone else "Settings over their values"
    return Table("sweep", title, note, blocks, joined)


def _paper() -> Table:
    names = ("table1", "table2", "table3", "table4")
    firsts = ("Method", "Method", "Parts", "α")
    blocks = [paper_block(name, first) for name, first in zip(names, firsts, strict=True)]
    data = pd.concat([paper_table(name).assign(table=name) for name in names], ignore_index=True)
    note = (
        "arXiv 2511.18919, Tables 1 to 4. (?): second-hand readings of the paper differ or flag"
        " this figure. Higher is better throughout."
    )
    return Table("paper", "The paper's own tables", note, blocks, data)
