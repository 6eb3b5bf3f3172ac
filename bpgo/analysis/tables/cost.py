"""The table of what a run computes, counted: arms on equal footing, or charged for more."""

from __future__ import annotations

import math

import pandas as pd

from bpgo.analysis import roles
from bpgo.analysis.roles import arm_title
from bpgo.analysis.statistics.convergence import PASSES
from bpgo.analysis.tables.format import Block, Cell, Table, number
from bpgo.config.settings import Settings

HEADER = (
    *("Arm", "Runs", "Iterations", "Optimizer steps", "Samples", "Training rewards"),
    *("Passes of the rollout", "Passes with a gradient", "Passes of other policies"),
)


def cost(settings: Settings, frame: pd.DataFrame, lost: str) -> Table:
    """Counts of one run, means over seeds; `frame` as `statistics.convergence.cost` gives it."""
    blocks = []
    for experiment, entry in settings.experiments.items():
        mine = frame[frame["experiment"] == experiment]
        reference = _passes(mine[mine["arm"] == settings.analysis.reference_arm])
        rows = [
            _row(settings, experiment, arm, mine[mine["arm"] == arm], reference)
            for arm in (*entry.arms, *roles.own_sized(settings, experiment))
            if (mine["arm"] == arm).any()
        ]
        header = [*HEADER, f"All passes / {arm_title(settings, settings.analysis.reference_arm)}"]
        blocks.append(Block(entry.title, header, rows))
    note = (
        "Of one run, mean over seeds. A pass is one sample through the transformer at one step:"
        " without a gradient in the rollout and by other policies (the base, averages), forward and"
        " backward where there is a gradient, which costs about three times as much and counts so"
        " in the ratio. Samples that are still alike are computed once, and groups without a"
        " gradient are left out: passes that were saved are not counted. Training rewards: scores"
        " by all models of the training reward, without diagnostics, which no arm sees."
        f"{lost}"
    )
    return Table("cost", "What a run computes", note, blocks, frame)


def _row(
    settings: Settings, experiment: str, arm: str, runs: pd.DataFrame, reference: float
) -> list[Cell]:
    iterations = float(runs["iterations"].mean())
    own = settings.of_arm(arm)
    samples = iterations * own.rollout.prompts_per_iteration * own.rollout.group_size
    reward = settings.rewards[settings.experiments[experiment].training_reward]
    models = len(getattr(reward, "parts", None) or (reward,))
    counts = [
        *(iterations, iterations * own.training.optimizer_steps, samples, models * samples),
        *(float(runs[name].mean()) for name in PASSES),
    ]
    ratio = _passes(runs) / reference if reference else math.nan
    return [
        Cell(arm_title(settings, arm)),
        Cell(str(len(runs))),
        *(Cell(f"{count:,.0f}" if math.isfinite(count) else "n/a") for count in counts),
        Cell(number(ratio, digits=2)),
    ]


def _passes(runs: pd.DataFrame) -> float:
    """All passes of a run in forward passes: forward and backward count as three."""
    drawn, trained, others = (float(runs[name].mean()) for name in PASSES)
    return drawn + 3 * trained + others
