"""Final scores of every arm, and paired differences between arms.

Arms pair by (seed, prompt, sample): equal initial noise. Differences are also given in `base sd`:
divided by the standard deviation of the base policy's scores over all its samples, so that rewards
of different scales compare.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from bpgo.analysis.roles import main_metric, reward_role
from bpgo.analysis.statistics.bootstrap import Bootstrap, Floats, Interval, interquartile_mean
from bpgo.analysis.statistics.data import Scores
from bpgo.config.settings import BASE_ARM, Settings

Row = dict[str, Any]


@lru_cache(maxsize=256)
def base_sd(scores: Scores, reward: str) -> float:
    """Standard deviation of the base policy's scores (of all arms' without a base); never 0."""
    arms = [BASE_ARM] if scores.has(BASE_ARM, reward) else scores.arms
    tables = [scores.values(arm, reward, scores.seeds_of(arm, reward)) for arm in arms]
    spread = float(np.std(np.concatenate([table.ravel() for table in tables])))
    return spread if spread > 0 else 1.0


def final_scores(settings: Settings, scores: Scores, bootstrap: Bootstrap) -> pd.DataFrame:
    """One row per (arm, reward): mean with interval, interquartile mean, seed deviation, n."""
    rows, tables = [], []
    for arm in scores.arms:
        for reward in scores.rewards:
            seeds = scores.seeds_of(arm, reward)
            if not seeds:
                continue
            table = scores.values(arm, reward, seeds)
            tables.append(table.mean(axis=2))
            seed_means = table.mean(axis=(1, 2))
            rows.append(
                {
                    **_labels(settings, scores, arm, reward),
                    **_counts(table),
                    "iqm": interquartile_mean(table),
                    "seed_sd": float(seed_means.std(ddof=1)) if len(seeds) > 1 else np.nan,
                    "base_sd": base_sd(scores, reward),
                }
            )
    for row, interval in zip(rows, bootstrap.means(tables), strict=True):
        row |= _named("", "mean", interval)
    return pd.DataFrame(rows)


def differences(settings: Settings, scores: Scores, bootstrap: Bootstrap) -> pd.DataFrame:
    """One row per (arm, reference, reward) for every ordered pair of arms.

    `improvement` is the probability that a sample of the arm scores higher than the reference's
    sample of the same seed, prompt and noise (a tie counts half). `significant` says that the
    interval of the paired difference excludes zero.
    """
    rows: list[Row] = []
    for reward in scores.rewards:
        present = [arm for arm in scores.arms if scores.has(arm, reward)]
        pairs: list[tuple[str, str, Floats]] = []
        for i, first in enumerate(present):
            for second in present[i + 1 :]:
                other = scores.seeds_of(second, reward)
                shared = [seed for seed in scores.seeds_of(first, reward) if seed in other]
                if shared:
                    minuend = scores.values(first, reward, shared)
                    change = minuend - scores.values(second, reward, shared)
                    pairs.append((first, second, change))
        sizes = bootstrap.means([change.mean(axis=2) for _, _, change in pairs])
        better = [((change > 0) + 0.5 * (change == 0)).mean(axis=2) for _, _, change in pairs]
        odds = bootstrap.means(better)
        for pair, size, share in zip(pairs, sizes, odds, strict=True):
            rows += _both_directions(settings, scores, reward, pair, size, share)
    return pd.DataFrame(rows)


def _both_directions(
    settings: Settings,
    scores: Scores,
    reward: str,
    pair: tuple[str, str, Floats],
    size: Interval,
    share: Interval,
) -> list[Row]:
    """The rows of arm against reference and of the reverse, its mirror image."""
    first, second, change = pair
    spread = base_sd(scores, reward)
    seed_means = change.mean(axis=(1, 2))
    mirrored = Interval(-size.mean, -size.high, -size.low)
    mirrored_share = Interval(1 - share.mean, 1 - share.high, 1 - share.low)
    rows = []
    for arm, other, gap, odds, sign in (
        (first, second, size, share, 1),
        (second, first, mirrored, mirrored_share, -1),
    ):
        rows.append(
            {
                **_labels(settings, scores, arm, reward),
                "reference": other,
                **_counts(change),
                **_named("", "difference", gap),
                "difference_sd": float(gap.mean) / spread,
                "low_sd": float(gap.low) / spread,
                "high_sd": float(gap.high) / spread,
                **_named("improvement_", "improvement", odds),
                "seeds_better": int((sign * seed_means > 0).sum()),
                "significant": bool(gap.low > 0 or gap.high < 0),
            }
        )
    return rows


def curves(settings: Settings, scores: Scores, bootstrap: Bootstrap) -> pd.DataFrame:
    """Scores at every snapshot on the same prompts: mean, and paired gain over the base policy."""
    rows, levels, changes, spreads = [], [], [], []
    for arm in scores.arms:
        if arm == BASE_ARM:
            continue
        for reward in scores.rewards:
            for iteration in scores.iterations:
                pair = paired_with_base(scores, arm, reward, iteration)
                if pair is None:
                    continue
                _, after, before = pair
                levels.append(after.mean(axis=2))
                changes.append((after - before).mean(axis=2))
                spreads.append(base_sd(scores, reward))
                labels = _labels(settings, scores, arm, reward)
                rows.append({**labels, "iteration": iteration, **_counts(after)})
    intervals = zip(bootstrap.means(levels), bootstrap.means(changes), spreads, strict=True)
    for row, (level, gain, spread) in zip(rows, intervals, strict=True):
        row |= _named("", "mean", level) | _named("gain_", "gain", gain)
        row |= _named("gain_sd_", "gain_sd", Interval(*(part / spread for part in gain)))
    return pd.DataFrame(rows)


def gains(settings: Settings, scores: Scores) -> pd.DataFrame:
    """Gain over the base policy per seed.

    On the curve's prompts at each snapshot (`prompts` is `curve`), and on all evaluation prompts at
    the end (`all`).
    """
    rows = []
    for arm in scores.arms:
        if arm == BASE_ARM:
            continue
        for reward in scores.rewards:
            spread = base_sd(scores, reward)
            points = [(iteration, "curve") for iteration in scores.iterations]
            for iteration, prompts in [*points, (scores.final, "all")]:
                pair = paired_with_base(scores, arm, reward, iteration, prompts == "all")
                if pair is None:
                    continue
                change = (pair[1] - pair[2]).mean(axis=(1, 2))
                rows += [
                    {
                        **_labels(settings, scores, arm, reward),
                        "seed": seed,
                        "iteration": iteration,
                        "prompts": prompts,
                        "gain": float(value),
                        "gain_sd": float(value) / spread,
                    }
                    for seed, value in zip(pair[0], change, strict=True)
                ]
    return pd.DataFrame(rows)


def paired_with_base(
    scores: Scores, arm: str, reward: str, iteration: int, all_prompts: bool = False
) -> tuple[list[int], Floats, Floats] | None:
    """Shared seeds, the arm's scores and the base's, both [S, P, K]; None if nothing pairs.

    P are the curve's prompts unless `all_prompts`.
    """
    before_seeds = scores.seeds_of(BASE_ARM, reward)
    own = scores.seeds_of(arm, reward)  # iteration 0 belongs to arms that were trained
    there = scores.seeds_of(arm, reward, iteration)
    seeds = [seed for seed in own if seed in before_seeds and seed in there]
    if not seeds:
        return None
    after = scores.values(arm, reward, seeds, iteration)
    before = scores.values(BASE_ARM, reward, seeds)
    if not all_prompts:
        chosen = scores.curve_prompts
        before = before[:, chosen]
        after = after if iteration not in (0, scores.final) else after[:, chosen]
    return seeds, after, before


def _labels(settings: Settings, scores: Scores, arm: str, reward: str) -> Row:
    return {
        "experiment": scores.experiment,
        "arm": arm,
        "reward": reward,
        "role": reward_role(settings, scores.experiment, reward),
        "main": reward == main_metric(settings, scores.experiment),
    }


def _counts(table: Floats) -> Row:
    """The sizes of a [S, P, K] table."""
    seeds, prompts, samples = table.shape
    return {"n_seeds": seeds, "n_prompts": prompts, "n_samples": samples}


def _named(prefix: str, mean: str, interval: Interval) -> Row:
    return {
        mean: float(interval.mean),
        f"{prefix}low": float(interval.low),
        f"{prefix}high": float(interval.high),
    }
