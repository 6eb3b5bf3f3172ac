"""Paired differences between arms at the end of training.

Arms pair by (seed, prompt, sample): equal initial noise. Three intervals of each difference:

- `low`, `high`: by repeated measures, for a difference declared beforehand;
- `simultaneous_low`, `simultaneous_high`: the same, widened so that with the given confidence all
  differences of a table's column hold at once. `significant`, `verdict` and tables follow these;
- `check_low`, `check_high`: by the hierarchical bootstrap of this one difference, which assumes
  nothing of other arms.

In raw units, and with `_sd` in within-prompt standard deviations of the base policy.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from bpgo.analysis.statistics.bootstrap import Bootstrap, Floats, Interval, interquartile_mean
from bpgo.analysis.statistics.critical import verdict
from bpgo.analysis.statistics.data import Scores
from bpgo.analysis.statistics.final import Row, base_sd, counts, labels, named
from bpgo.analysis.statistics.repeated import Contrast, RepeatedMeasures
from bpgo.config.settings import BASE_ARM, Settings


def differences(settings: Settings, scores: Scores, bootstrap: Bootstrap) -> pd.DataFrame:
    """One row per (arm, reference, reward) for every ordered pair of arms.

    `improvement` is the probability that a sample of the arm scores higher than the reference's
    sample of the same seed, prompt and noise (a tie counts half). `detectable` is the smallest
    true difference that the simultaneous interval would have found with 80 % power, and
    `detectable_alone` that of the interval by itself. `iqm` is the interquartile mean over runs.
    """
    rows: list[Row] = []
    for reward in scores.rewards:
        measures = repeated_measures(settings, scores, reward)
        present = list(measures.runs)
        pairs: list[tuple[str, str]] = []
        changes: list[Floats] = []
        for first, second in combinations(present, 2):
            shared = measures.shared(first, second)
            if shared:
                minuend = scores.values(first, reward, shared)
                changes.append(minuend - scores.values(second, reward, shared))
                pairs.append((first, second))
        checks = bootstrap.means([change.mean(axis=2) for change in changes])
        better = [((change > 0) + 0.5 * (change == 0)).mean(axis=2) for change in changes]
        odds = [share.within(0.0, 1.0) for share in bootstrap.means(better)]
        for pair, change, check, share in zip(pairs, changes, checks, odds, strict=True):
            contrast = measures.contrast(*pair)
            rows += _both_directions(settings, scores, reward, pair, contrast, change, check, share)
    return pd.DataFrame(rows)


def repeated_measures(settings: Settings, scores: Scores, reward: str) -> RepeatedMeasures:
    """All arms of an experiment by one reward, from their final scores."""
    runs = {}
    for arm in scores.arms:
        seeds = scores.seeds_of(arm, reward)
        if seeds:
            table = scores.values(arm, reward, seeds).mean(axis=2)
            runs[arm] = dict(zip(seeds, table, strict=True))
    what = f"{scores.experiment} by {reward}"
    return RepeatedMeasures(runs, BASE_ARM, settings.apart, what)


def comparisons(settings: Settings, experiment: str, first: str, second: str) -> int:
    """How many differences share a table's column with `first` minus `second`.

    An experiment's own arms and given policies stand in one table; those that sweeps add stand
    beside them.
    """
    listed = settings.compared(experiment)
    trained = [arm for arm in (first, second) if arm != BASE_ARM]
    whole = [*settings.arms_of(experiment), *settings.policies]
    among = listed if set(trained) <= set(listed) else whole
    return max(1, len(among) - 1 if len(trained) == 2 else len(among))


def _both_directions(
    settings: Settings,
    scores: Scores,
    reward: str,
    pair: tuple[str, str],
    contrast: Contrast,
    change: Floats,
    check: Interval,
    share: Interval,
) -> list[Row]:
    """The rows of arm against reference and of the reverse, its mirror image."""
    spread, confidence = base_sd(scores, reward), settings.analysis.confidence
    number = comparisons(settings, scores.experiment, *pair)
    alone, together = (contrast.interval(confidence, k) for k in (1, number))
    seed_means = change.mean(axis=(1, 2))
    rows = []
    for (arm, other), sign in ((pair, 1), (pair[::-1], -1)):
        limits = {
            **named("", "difference", _signed(alone, sign)),
            **named("simultaneous_", "difference", _signed(together, sign)),
            **named("check_", "difference", _signed(check, sign)),
            "detectable": contrast.visible(confidence, number),
            "detectable_alone": contrast.visible(confidence),
            "iqm": interquartile_mean(sign * seed_means),
        }
        in_sd = {f"{name}_sd": value / spread for name, value in limits.items()}
        odds = share if sign > 0 else Interval(1 - share.mean, 1 - share.high, 1 - share.low)
        low, high = limits["simultaneous_low"], limits["simultaneous_high"]
        margin = settings.analysis.equivalence_margin * spread
        rows.append(
            {
                **labels(settings, scores, arm, reward),
                "reference": other,
                **counts(change),
                **limits,
                **in_sd,
                "df": contrast.df,
                "comparisons": number,
                "p_value": contrast.p_value(),
                "p_simultaneous": contrast.p_value(number),
                **named("improvement_", "improvement", odds),
                "seeds_better": int((sign * seed_means > 0).sum()),
                "significant": bool(low > 0 or high < 0),
                "verdict": verdict(low, high, margin),
            }
        )
    return rows


def _signed(interval: Interval, sign: int) -> Interval:
    return interval if sign > 0 else Interval(-interval.mean, -interval.high, -interval.low)


def primary(settings: Settings, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `differences` that were declared as `primary`, judged by themselves.

    `verdict` and `significant` follow the interval that holds for one difference.
    """
    margin = settings.analysis.equivalence_margin
    rows: list[Row] = []
    for experiment, wanted in settings.primary_contrasts().items():
        keys = {"experiment": experiment, "arm": wanted.arm}
        keys |= {"reference": wanted.reference, "reward": wanted.metric}
        chosen = np.logical_and.reduce([frame[key] == value for key, value in keys.items()])
        for row in ({str(k): v for k, v in r.items()} for r in frame[chosen].to_dict("records")):
            low, high = row["low_sd"], row["high_sd"]
            judged: Row = {"significant": bool(low > 0 or high < 0), "comparisons": 1}
            rows.append(row | judged | {"verdict": verdict(low, high, margin)})
    return pd.DataFrame(rows, columns=frame.columns)
