"""Every figure of the suite, from statistics alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bpgo.analysis import FIGURES
from bpgo.analysis.figures import effects as figures_effects
from bpgo.analysis.figures import harm as figures_harm
from bpgo.analysis.figures import reliability as figures_reliability
from bpgo.analysis.figures import style
from bpgo.analysis.figures import training as figures_training
from bpgo.analysis.statistics.compute import load_statistics
from bpgo.config.settings import Settings

Draw = Callable[[Settings, dict[str, pd.DataFrame]], Figure]

DRAW: dict[str, Draw] = {
    "training_reward": figures_training.training_reward,
    "curves": figures_training.score_curves,
    "overoptimization": figures_effects.overoptimization,
    "path": figures_harm.path,
    "harm": figures_harm.harm,
    "differences": figures_effects.forest,
    "trust": figures_reliability.trust,
    "premise": figures_reliability.premise,
    "sweep": figures_effects.sweep,
}

# The statistics that each figure draws, for its CSV.
DATA = {
    "training_reward": ("training", "curves"),
    "curves": ("curves",),
    "overoptimization": ("gains",),
    "path": ("courses", "turning"),
    "harm": ("harm",),
    "differences": ("differences",),
    "trust": ("trust", "trust_summary"),
    "premise": ("premise", "premise_summary"),
    "sweep": ("differences",),
}

# What each figure shows, for the report; workflow/report/*.rst says the same to `--report`.
CAPTIONS = {
    "training_reward": "Training reward against iteration. Left: on the training rollouts,"
    " {rollouts} (thick: running mean; thin: each iteration, of"
    " the reference arm and BPGO). Right: the same reward on fixed held-out prompts and noise."
    " Mean over seeds, band: interval. Grey: arms of other families.",
    "curves": "Scores that train nothing, against iteration, on fixed held-out prompts: paired gain"
    " over the base policy, mean over seeds, bar: interval. Grey: arms of other families.",
    "overoptimization": "Proxy gain (the training reward) against true gain (the oracle) and"
    " held-out gain (rewards that did not train). Line: the course of training, by its snapshots;"
    " large marker: the final scores; small markers: its seeds. Below zero, training has made the"
    " policy worse than the base by that judge; on the dotted diagonal, both gains are equal.",
    "path": "Gains along the path from the base policy: training reward (left) and main metric"
    " (right) of the snapshots on fixed prompts and noise, against the root of the KL divergence of"
    " the policy's path from the base policy's. Mean over seeds, bar: interval. Red ring: the"
    " turning point of an arm whose main metric falls from there while its training reward rises."
    " Grey: arms of other families.",
    "harm": "What training changed for the worse: divergence, the tenth of the prompts that lost"
    " most, agreement of judges, spread within a prompt, distance to the base policy's samples, as"
    " far as measured. Mean with its interval; filled: the difference to the reference arm excludes"
    " zero for all arms of a panel at once.",
    "differences": "Paired differences to the reference arm at the end of training, by reward, in"
    " standard deviations of the base policy's scores within a prompt. Thick: the interval of one"
    " difference; thin: of all arms of a panel at once. Filled: the thin one excludes zero and is"
    " not all within the grey band, where a difference does not matter. An arrow: it goes on beyond"
    " the axis, whose range is set by the arms that share a variance.",
    "trust": "Does RAS trust the right groups? By how much the update of a group on the training"
    " reward raises the oracle (without one: the mean of the other logged rewards), by the weight"
    " that the group was given; of runs of earlier versions their rank correlation. Mean over"
    " seeds, bar: interval; in brackets: rank correlation over all groups.",
    "premise": "Does the premise hold? By how much the update of a group of base-policy samples on"
    " each reward raises the oracle (without one: the mean of the other rewards), by the prompt's"
    " ambiguity (left) and by the group's mean reward (right). Bars: intervals over groups.",
    "sweep": "Settings over their values (α: scaling magnitude): paired difference to the reference"
    " arm at the end of training, by reward. Bars: intervals that hold for all arms at once; grey:"
    " the arm's own value.",
}


# The base of curves on rollouts: where the calibration knows every training prompt, and where not.
ROLLOUTS = {
    True: "relative to the base policy on the same prompts",
    False: "relative to the base policy's mean over the prompts that the calibration knows; these"
    " are not all, so the curves hold the chance of which prompts an iteration drew",
}


def caption_of(name: str, frames: dict[str, pd.DataFrame]) -> str:
    """What a figure of these statistics shows."""
    training = frames["training"]
    adjusted = bool(len(training) and training["adjusted"].all())
    return CAPTIONS[name].format(rollouts=ROLLOUTS[adjusted])


def make_figures(
    settings: Settings, statistics: Path, collected: Path | None, output: Path
) -> None:
    """Write every figure of `bpgo.analysis.FIGURES` as PDF and PNG.

    A figure without data says so instead of failing. All that is drawn stands in the statistics;
    `collected` is there for figures of single samples and not read yet.
    """
    del collected
    frames, _ = load_statistics(Path(statistics))
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    with style.look():
        for name in FIGURES:
            style.save_figure(DRAW[name](settings, frames), output, name)
