"""Two results folders of the same seeds: each arm of one against the same arm of the other, paired.

A run of one folder pairs with that of the same seed in the other: same evaluation prompts and
noise, so what differs is what the two configurations (or codes, or machines) differ in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from bpgo.analysis.statistics.critical import verdict
from bpgo.analysis.statistics.data import Collected, Scores
from bpgo.analysis.statistics.final import Row, base_sd, labels
from bpgo.analysis.statistics.repeated import Contrast, RepeatedMeasures
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.errors import UserError

FIRST, SECOND = "first", "second"


def paired(
    settings: Settings, first: Collected, second: Collected, names: tuple[str, str]
) -> pd.DataFrame:
    """One row per experiment, arm and reward that both have: `difference`, second minus first.

    With `_sd` in within-prompt standard deviations of the first's base policy. `low` and `high` are
    by repeated measures, whose variance all arms of both folders share; `simultaneous_low` and
    `_high` hold for all arms of a reward at once, and `verdict` follows them. `improvement` is the
    share of samples that score higher in the second (a tie counts half). The untrained policy has
    no intervals: it is no run, and differs only where the base policies or the rewards do.

    Args:
        settings: of the first folder; its analysis judges both.
        first: the first folder's collected scores; `second` the other's.
        second: see `first`.
        names: of the folders, for messages.

    Raises:
        UserError: no run in common, or samples of other prompts.
    """
    rows: list[Row] = []
    for experiment in first.scores:
        if experiment in second.scores:
            stages = settings.analysis.final_stages
            pair = [
                replace(each.scores[experiment], final_stages=stages) for each in (first, second)
            ]
            rows += _experiment(settings, pair[0], pair[1], names)
    if not any(row["arm"] != BASE_ARM for row in rows):
        raise UserError(
            f"{names[0]} and {names[1]} have no run in common: no arm with the same seed, judged by"
            " the same reward. Runs of other seeds are compared by `agree`"
        )
    return pd.DataFrame(rows)


def _experiment(
    settings: Settings, first: Scores, second: Scores, names: tuple[str, str]
) -> list[Row]:
    sizes = [f"{len(each.prompts)} x {each.cube.shape[-1]}" for each in (first, second)]
    if first.prompts != second.prompts or sizes[0] != sizes[1]:
        raise UserError(
            f"{names[0]} and {names[1]}: experiments.{first.experiment} was judged on other"
            f" prompts, or on other numbers of samples ({' and '.join(sizes)}), so its runs do not"
            " pair"
        )
    rows: list[Row] = []
    for reward in first.rewards:
        shared = {
            arm: [
                seed for seed in first.seeds_of(arm, reward) if seed in second.seeds_of(arm, reward)
            ]
            for arm in first.arms
        }
        shared = {arm: seeds for arm, seeds in shared.items() if seeds}
        if shared:
            rows += _reward(settings, first, second, reward, shared)
    return rows


def _reward(
    settings: Settings, first: Scores, second: Scores, reward: str, shared: dict[str, list[int]]
) -> list[Row]:
    trained = [arm for arm in shared if arm != BASE_ARM]
    runs = {
        f"{folder} {arm}": dict(
            zip(shared[arm], scores.values(arm, reward, shared[arm]).mean(axis=2), strict=True)
        )
        for folder, scores in ((FIRST, first), (SECOND, second))
        for arm in trained
    }
    apart = [
        f"{folder} {arm}" for folder in (FIRST, SECOND) for arm in settings.analysis.own_variance
    ]
    measures = RepeatedMeasures(runs, None, apart, f"{first.experiment} by {reward}")
    rows = []
    for arm, seeds in shared.items():
        one, two = (scores.values(arm, reward, seeds) for scores in (first, second))
        change = two - one
        contrast = Contrast(float(change.mean()), float("nan"), float("nan"))
        if arm != BASE_ARM:  # the differences of a reward share no arm
            contrast = measures.contrast(f"{SECOND} {arm}", f"{FIRST} {arm}")
            contrast = replace(contrast, correlation=0.0)
        row: Row = {
            **labels(settings, first, arm, reward),
            "n_seeds": len(seeds),
            "n_prompts": change.shape[1],
            "mean_first": float(one.mean()),
            "mean_second": float(two.mean()),
            "improvement": float(((change > 0) + 0.5 * (change == 0)).mean()),
        }
        rows.append(row | _judged(settings, contrast, base_sd(first, reward), len(trained)))
    return rows


def _judged(settings: Settings, contrast: Contrast, spread: float, number: int) -> dict[str, Any]:
    confidence = settings.analysis.confidence
    alone, together = (contrast.interval(confidence, k) for k in (1, number))
    limits = {
        "difference": contrast.difference,
        "low": float(alone.low),
        "high": float(alone.high),
        "simultaneous_low": float(together.low),
        "simultaneous_high": float(together.high),
        "detectable": contrast.visible(confidence, number),
    }
    found: dict[str, Any] = {
        **limits,
        **{f"{key}_sd": each / spread for key, each in limits.items()},
    }
    low, high = found["simultaneous_low_sd"], found["simultaneous_high_sd"]
    return found | {
        "df": contrast.df,
        "comparisons": number,
        "p_value": contrast.p_value(),
        "p_simultaneous": contrast.p_value(number),
        "verdict": verdict(low, high, settings.analysis.equivalence_margin),
    }
