"""Final scores of every arm, curves, and gains over the base policy.

Final scores are means over a run's last `analysis.final_stages` policies, sample by sample.

Gains are also given in `base sd`: divided by the standard deviation of the base policy's scores
within a prompt, so that rewards of different scales compare. Between prompts the scores of some
rewards vary far more, and that says nothing of what training can change.
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
COLLAPSE = 4.0


@lru_cache(maxsize=256)
def base_sd(scores: Scores, reward: str) -> float:
    """Standard deviation of the base policy's scores within a prompt; never 0.

    Over seeds and samples, pooled over prompts; without a base policy that of all arms, each by
    itself. With one sample of a prompt there is no such thing: then over all samples.
    """
    arms = [BASE_ARM] if scores.has(BASE_ARM, reward) else scores.arms
    tables = [scores.values(arm, reward, scores.seeds_of(arm, reward)) for arm in arms]
    samples = [np.swapaxes(table, 0, 1).reshape(table.shape[1], -1) for table in tables]
    within = [own.var(axis=1, ddof=1) for own in samples if own.shape[1] > 1]
    if within:
        spread = float(np.sqrt(np.concatenate(within).mean()))
    else:
        spread = float(np.std(np.concatenate(samples)))
    return spread if spread > 0 else 1.0


def final_scores(settings: Settings, scores: Scores, bootstrap: Bootstrap) -> pd.DataFrame:
    """One row per (arm, reward): mean with interval, n, and over runs interquartile mean and sd."""
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
                    **labels(settings, scores, arm, reward),
                    **counts(table),
                    "iqm": interquartile_mean(seed_means),
                    "seed_sd": float(seed_means.std(ddof=1)) if len(seeds) > 1 else np.nan,
                    "base_sd": base_sd(scores, reward),
                }
            )
    for row, interval in zip(rows, bootstrap.means(tables), strict=True):
        row |= named("", "mean", interval)
    return pd.DataFrame(rows)


def curves(settings: Settings, scores: Scores, bootstrap: Bootstrap) -> pd.DataFrame:
    """Scores at every snapshot on the same prompts: mean, and paired gain over the base policy."""
    rows, levels, changes, spreads = [], [], [], []
    for arm in scores.trained:
        for reward in scores.rewards:
            for iteration in scores.iterations:
                pair = paired_with_base(scores, arm, reward, iteration)
                if pair is None:
                    continue
                _, after, before = pair
                levels.append(after.mean(axis=2))
                changes.append((after - before).mean(axis=2))
                spreads.append(base_sd(scores, reward))
                own = labels(settings, scores, arm, reward)
                rows.append({**own, "iteration": iteration, **counts(after)})
    intervals = zip(bootstrap.means(levels), bootstrap.means(changes), spreads, strict=True)
    for row, (level, gain, spread) in zip(rows, intervals, strict=True):
        row |= named("", "mean", level) | named("gain_", "gain", gain)
        row |= named("gain_sd_", "gain_sd", Interval(*(part / spread for part in gain)))
    return pd.DataFrame(rows)


def gains(settings: Settings, scores: Scores) -> pd.DataFrame:
    """Gain over the base policy per seed.

    On the curve's prompts at each snapshot (`prompts` is `curve`), and of final scores on all
    evaluation prompts (`all`); there `collapsed` marks a run far below its arm's other runs.
    """
    rows = []
    for reward in scores.rewards:
        spread = base_sd(scores, reward)
        ends: dict[str, Floats] = {}
        for arm in scores.trained:
            points = [(iteration, "curve") for iteration in scores.iterations]
            for iteration, prompts in [*points, (scores.final, "all")]:
                pair = paired_with_base(scores, arm, reward, iteration, prompts == "all")
                if pair is None:
                    continue
                change = (pair[1] - pair[2]).mean(axis=(1, 2))
                if prompts == "all":
                    ends[arm] = change
                rows += [
                    {
                        **labels(settings, scores, arm, reward),
                        "seed": seed,
                        "iteration": iteration,
                        "prompts": prompts,
                        "gain": float(value),
                        "gain_sd": float(value) / spread,
                        "collapsed": False,
                    }
                    for seed, value in zip(pair[0], change, strict=True)
                ]
        far = collapsed(ends)
        for row in rows:
            if row["reward"] == reward and row["prompts"] == "all":
                row["collapsed"] = row["gain"] < far[row["arm"]]
    return pd.DataFrame(rows)


def collapsed(ends: dict[str, Floats]) -> dict[str, float]:
    """Of each arm the value below which a run counts as collapsed.

    That is 4 robust standard deviations (1.48 times the median distance of a run from its arm's
    median, over all arms; our choice) below the arm's median. The median runs themselves tell
    nothing of the spread and are left out.
    """
    centres = {arm: float(np.median(values)) for arm, values in ends.items()}
    rest = np.array([abs(value - centres[arm]) for arm in ends for value in ends[arm]])
    spread = 1.4826 * float(np.median(rest[rest > 0])) if (rest > 0).any() else 0.0
    return {arm: centre - COLLAPSE * spread for arm, centre in centres.items()}


def paired_with_base(
    scores: Scores, arm: str, reward: str, iteration: int, all_prompts: bool = False
) -> tuple[list[int], Floats, Floats] | None:
    """Shared seeds, the arm's scores and the base's, both [S, P, K]; None if nothing pairs.

    P are the curve's prompts; with `all_prompts` these are the final scores, on all.
    """
    before_seeds = scores.seeds_of(BASE_ARM, reward)
    own = scores.seeds_of(arm, reward)  # iteration 0 belongs to arms that were trained
    there = scores.seeds_of(arm, reward, iteration)
    seeds = [seed for seed in own if seed in before_seeds and seed in there]
    if not seeds:
        return None
    before = scores.values(BASE_ARM, reward, seeds)
    if all_prompts:
        after = scores.values(arm, reward, seeds)
    else:
        after = scores.values(arm, reward, seeds, iteration)
        chosen = scores.curve_prompts
        before = before[:, chosen]
        after = after if iteration not in (0, scores.final) else after[:, chosen]
    return seeds, after, before


def labels(settings: Settings, scores: Scores, arm: str, reward: str) -> Row:
    """What every row says of an arm and a reward."""
    return {
        "experiment": scores.experiment,
        "arm": arm,
        "reward": reward,
        "role": reward_role(settings, scores.experiment, reward),
        "main": reward == main_metric(settings, scores.experiment),
    }


def counts(table: Floats) -> Row:
    """The sizes of a [S, P, K] table."""
    seeds, prompts, samples = table.shape
    return {"n_seeds": seeds, "n_prompts": prompts, "n_samples": samples}


def named(prefix: str, mean: str, interval: Interval) -> Row:
    """An interval as columns: the estimate's is called `mean`, the limits' start with `prefix`."""
    return {
        mean: float(interval.mean),
        f"{prefix}low": float(interval.low),
        f"{prefix}high": float(interval.high),
    }
