"""Tables of differences between arms: all of them, the declared ones, and what they would need."""

from __future__ import annotations

import math

import pandas as pd

from bpgo.analysis import roles
from bpgo.analysis.roles import TRAINING, arm_title, reward_title
from bpgo.analysis.statistics.power import CAUTION, EFFECT
from bpgo.analysis.tables.format import (
    Block,
    Cell,
    Row,
    Table,
    difference_cell,
    how_differences,
    how_intervals,
    how_verdicts,
    interval_text,
    number,
    records,
)
from bpgo.config.settings import BASE_ARM, Settings

Frames = dict[str, pd.DataFrame]


def reward_label(settings: Settings, experiment: str, reward: str) -> str:
    """The reward's title with its role in the experiment."""
    title = reward_title(settings, reward)
    role = roles.reward_role(settings, experiment, reward)
    if role == TRAINING:
        title += " (trains)"
    return title + (" [main]" if reward == roles.main_metric(settings, experiment) else "")


def differences(settings: Settings, frames: Frames, lost: str) -> Table:
    """Every arm less the reference arm, and less the base policy, by every reward."""
    blocks = []
    for experiment in settings.experiments:
        for reference in (settings.analysis.reference_arm, BASE_ARM):
            blocks.append(_difference_block(settings, frames, experiment, reference))
    note = (
        f"Paired differences (same seed, prompt and noise). {how_differences(settings)}."
        f" {how_verdicts(settings)} On the main metric alone: IQM, the interquartile mean over"
        f" runs; Check, the interval of the one difference by itself, {how_intervals(settings)};"
        " Improvement, the probability that a sample scores higher than the reference's paired"
        f" sample; Seeds better.{_collapsed(settings, frames['gains'])}{lost}"
    )
    title = "Paired differences between arms, in within-prompt base sd"
    return Table("differences", title, note, blocks, frames["differences"])


def _difference_block(settings: Settings, frames: Frames, experiment: str, reference: str) -> Block:
    rewards = settings.rewards_of(experiment)
    main = roles.main_metric(settings, experiment)
    gaps = frames["differences"]
    gaps = gaps[(gaps["experiment"] == experiment) & (gaps["reference"] == reference)]
    rows = []
    for arm in settings.compared(experiment):
        if arm == reference:
            continue
        mine = records(gaps[gaps["arm"] == arm], "reward")
        cells = [Cell(arm_title(settings, arm))]
        cells += [
            difference_cell(mine[name]) if name in mine else Cell("missing") for name in rewards
        ]
        rows.append(cells + _main_cells(mine.get(main)))
    labels = [reward_label(settings, experiment, name) for name in rewards]
    header = ["Arm", *labels, "IQM", "Check", "Improvement", "Seeds better"]
    names = f"arm − {arm_title(settings, reference)}"
    title = f"{settings.experiments[experiment].title}: {names}, in within-prompt base sd"
    return Block(title, header, rows)


def _main_cells(row: Row | None) -> list[Cell]:
    """What is said of the main metric alone."""
    if row is None:
        return [*(Cell("missing"),) * 3, Cell("0")]
    odds = interval_text(row["improvement_low"], row["improvement_high"], digits=2)
    check = interval_text(row["check_low_sd"], row["check_high_sd"], signed=True, digits=2)
    return [
        Cell(number(row["iqm_sd"], signed=True, digits=2)),
        Cell(check),
        Cell(number(row["improvement"], digits=2), odds),
        Cell(f"{row['seeds_better']} of {row['n_seeds']}"),
    ]


def _collapsed(settings: Settings, gains: pd.DataFrame) -> str:
    """A sentence that names the runs far below their arm's others by the main metric, if any."""
    found = []
    for experiment in settings.experiments:
        metric = roles.main_metric(settings, experiment)
        far = gains["collapsed"] & (gains["experiment"] == experiment) & (gains["reward"] == metric)
        found += [f"{experiment}/{row.arm} seed {row.seed}" for row in gains[far].itertuples()]
    if not found:
        return ""
    return (
        f" Collapsed runs ({len(found)}), more than 4 robust standard deviations below their arm's"
        f" median on the main metric: {', '.join(found)}. They count, and intervals are less sure"
        " than they say."
    )


def primary(settings: Settings, frames: Frames, lost: str) -> Table:
    """The contrasts that were declared beforehand, each judged by itself."""
    rows, found = [], records(frames["primary"], "experiment")
    for experiment, declared in settings.primary_contrasts().items():
        names = f"{arm_title(settings, declared.arm)} − {arm_title(settings, declared.reference)}"
        cells = [Cell(settings.experiments[experiment].title)]
        cells.append(Cell(f"{names}, {reward_title(settings, declared.metric)}"))
        if experiment not in found:
            rows.append([*cells, Cell("0"), *(Cell("not run"),) * 5])
            continue
        row = found[experiment]
        raw = interval_text(row["low"], row["high"], signed=True)
        check = interval_text(row["check_low_sd"], row["check_high_sd"], signed=True, digits=2)
        cells += [
            Cell(str(row["n_seeds"])),
            difference_cell(row, "", "detectable_alone"),
            Cell(number(row["difference"], signed=True), raw),
            Cell(check),
            Cell(number(row["p_value"])),
            Cell(row["verdict"]),
        ]
        rows.append(cells)
    header = ["Experiment", "Contrast", "Seeds", "Difference (within-prompt base sd)"]
    header += ["Difference (reward's unit)", "Check", "p", "Verdict"]
    note = (
        "One difference an experiment, declared before looking (primary); so it is judged"
        f" by itself. {settings.analysis.confidence:.0%} intervals by repeated measures"
        f" (variance of seeds pooled over arms, t). {how_verdicts(settings)} Check:"
        f" {how_intervals(settings)}.{lost}"
    )
    blocks = [Block("Primary contrasts", header, rows)]
    return Table("primary", "The declared contrasts", note, blocks, frames["primary"])


def power(settings: Settings, frame: pd.DataFrame, lost: str = "") -> Table:
    """How many seeds would find a difference; `frame` as `bpgo.analysis.statistics.power`."""
    effect = float(frame["effect"].iloc[0]) if len(frame) else EFFECT
    blocks = []
    for experiment, entry in settings.experiments.items():
        rows = [
            _power_row(settings, row)
            for _, row in frame[frame["experiment"] == experiment].iterrows()
        ]
        header = ["Reward", "Difference of", "Seeds here", "Variance a seed", "Seen from"]
        header += [f"Seeds for {effect:g}", "With caution", "All of a table", "Two arms alone"]
        header += ["Figure of merit"]
        blocks.append(Block(f"{entry.title}, in within-prompt base sd", header, rows))
    note = (
        f"Seeds that find a true difference of {effect:g} base sd (standard deviation of the base"
        f" policy's scores within a prompt) with 80% power, by"
        f" {settings.analysis.confidence:.0%} intervals of one difference and the variance of seeds"
        " pooled over the arms of this configuration. With caution: if the variance is at its upper"
        f" {CAUTION:.0%} limit, for these runs know it from few seeds. All of a table: by intervals"
        " that hold for all arms of a column at once. Two arms alone: without the other arms. Seen"
        " from: smallest difference that the seeds at hand find. More prompts: no number of seeds"
        " is enough. Figure of merit: the gain of GRPO on the oracle's rewards over the standard"
        f" deviation of a difference of two arms at one seed.{lost}"
    )
    return Table("power", "How many seeds a difference needs", note, blocks, frame)


def _power_row(settings: Settings, row: pd.Series) -> list[Cell]:
    arms = {"arms": "two arms", "base": f"arm − {arm_title(settings, BASE_ARM)}"}
    reference = arm_title(settings, settings.analysis.reference_arm)
    contrast = str(row["contrast"])
    words = arms.get(contrast) or f"{arm_title(settings, contrast)} − {reference}"
    needed = ("seeds", "seeds_cautious", "seeds_table", "seeds_two_arms")
    return [
        Cell(reward_label(settings, str(row["experiment"]), str(row["reward"]))),
        Cell(words),
        Cell(str(row["n_seeds"])),
        Cell(number(row["variance"], digits=4)),
        Cell(number(row["visible"], digits=2)),
        *(Cell(f"{row[k]:.0f}" if math.isfinite(row[k]) else "more prompts") for k in needed),
        Cell(number(row["merit"], digits=1) if pd.notna(row["merit"]) else ""),
    ]
