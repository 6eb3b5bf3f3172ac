"""How many seeds a difference needs, from the variances of runs that are at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from bpgo.analysis import STATISTICS
from bpgo.analysis.roles import reward_role
from bpgo.analysis.statistics.critical import SHARED_REFERENCE, critical_value, detectable
from bpgo.analysis.statistics.data import Scores
from bpgo.analysis.statistics.differences import repeated_measures
from bpgo.analysis.statistics.final import base_sd
from bpgo.analysis.statistics.repeated import RepeatedMeasures, prompt_variance
from bpgo.config.search import GOOD
from bpgo.config.settings import BASE_ARM, Settings
from bpgo.errors import UserError

EFFECT = 0.15  # within-prompt base standard deviations; our choice
MOST_SEEDS = 10_000
CAUTION = 0.8  # the variance is below its upper limit with this probability


@dataclass(frozen=True)
class Variance:
    """What a difference's standard error is made of, in squared units of the effect.

    Attributes:
        seed: variance of the difference at one seed; divided by the number of seeds.
        prompt: the prompts' part of a mean's variance, whatever the number of seeds.
        freedom: degrees of freedom of `seed` that each seed after the first adds.
    """

    seed: float
    prompt: float
    freedom: float

    def visible(
        self,
        seeds: int,
        confidence: float,
        comparisons: int = 1,
        correlation: float = SHARED_REFERENCE,
    ) -> float:
        """Smallest difference that so many seeds find with 80 % power."""
        df = max(1.0, self.freedom * (seeds - 1))
        critical = critical_value(confidence, df, comparisons, correlation)
        return math.sqrt(self.seed / seeds + self.prompt) * detectable(critical, df)

    def seeds(
        self,
        effect: float,
        confidence: float,
        comparisons: int = 1,
        correlation: float = SHARED_REFERENCE,
    ) -> float:
        """Fewest seeds, at least 2, that find `effect`; infinity where prompts are too few."""

        def enough(number: int) -> bool:
            return self.visible(number, confidence, comparisons, correlation) <= effect

        if not enough(MOST_SEEDS):
            return math.inf
        low, high = 1, 2
        while not enough(high):
            low, high = high, min(2 * high, MOST_SEEDS)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return float(high)


def power(settings: Settings, scores: Scores, effect: float = EFFECT) -> pd.DataFrame:
    """One row per reward and kind of difference: variances of the runs, and seeds needed.

    `contrast` is `arms` for two arms of pooled variance, `base` for an arm less the base policy,
    else the name of an arm with a variance of its own, less the reference arm. `seeds` are those
    that find `effect` with 80 % power by an interval of one difference and as many arms as here;
    `seeds_cautious` if the variance is as large as its upper 80 % limit; `seeds_table` by an
    interval for all arms of a table; `seeds_two_arms` without the other arms. `visible` is the
    smallest difference that the seeds at hand find. `merit`, of two arms where the experiment has
    the anchor oracle_reward: its mean gain over the standard deviation of their difference at one
    seed. Variances and effects in (squared) base sd.

    Raises:
        UserError: the effect is not a positive number.
    """
    if not (effect > 0 and math.isfinite(effect)):
        raise UserError(f"effect: {effect:g} is not allowed: it must be a positive number")
    rows = []
    for reward in scores.rewards:
        measures = repeated_measures(settings, scores, reward)
        for contrast, pairs in _kinds(settings, measures).items():
            labels = {
                "experiment": scores.experiment,
                "reward": reward,
                "role": reward_role(settings, scores.experiment, reward),
                "contrast": contrast,
            }
            row = _row(settings, measures, pairs, base_sd(scores, reward), effect)
            rows += [labels | row] if row else []
    return pd.DataFrame(rows, columns=STATISTICS["power"])


def _kinds(settings: Settings, measures: RepeatedMeasures) -> dict[str, list[tuple[str, str]]]:
    """Pairs of arms with seeds in common, by kind of difference."""
    pooled, reference = measures.pooled, settings.analysis.reference_arm
    kinds = {
        "arms": [(a, b) for i, a in enumerate(pooled) for b in pooled[:i]],
        "base": [(arm, BASE_ARM) for arm in pooled if BASE_ARM in measures.runs],
    }
    apart = [arm for arm in measures.runs if arm not in pooled and arm not in (BASE_ARM, reference)]
    kinds |= {arm: [(arm, reference)] for arm in apart if reference in measures.runs}
    found = {kind: [p for p in pairs if measures.shared(*p)] for kind, pairs in kinds.items()}
    return {kind: pairs for kind, pairs in found.items() if pairs}


def _row(
    settings: Settings,
    measures: RepeatedMeasures,
    pairs: list[tuple[str, str]],
    spread: float,
    effect: float,
) -> dict[str, float] | None:
    known = measures.seed_variance(*pairs[0])
    seeds = max(len(measures.shared(*pair)) for pair in pairs)
    if known.df == 0 or seeds < 2:
        return None
    prompts = []
    for pair in pairs:
        runs = [measures.runs[arm] for arm in pair]
        shared = measures.shared(*pair)
        if len(shared) > 1:
            prompts.append(prompt_variance(np.stack([runs[0][s] - runs[1][s] for s in shared])))
    confidence, arms = settings.analysis.confidence, len(measures.pooled)
    found = Variance(
        known.value / spread**2, float(np.mean(prompts)) / spread**2, known.df / (seeds - 1)
    )
    upper = known.df / float(stats.chi2.ppf(1 - CAUTION, known.df))
    cautious = Variance(upper * found.seed, found.prompt, found.freedom)
    alone = Variance(found.seed, found.prompt, 1.0)
    among_arms = all(arm in measures.pooled for arm in pairs[0])
    two_arms = among_arms and BASE_ARM not in pairs[0]
    correlation = SHARED_REFERENCE if among_arms else 0.0
    comparisons = max(1, arms - 1 if among_arms else arms)
    return {
        "n_seeds": seeds,
        "n_arms": arms,
        "variance": found.seed,
        "df": known.df,
        "prompt_variance": found.prompt,
        "effect": effect,
        "visible": found.visible(seeds, confidence),
        "seeds": found.seeds(effect, confidence),
        "seeds_cautious": cautious.seeds(effect, confidence),
        "seeds_table": found.seeds(effect, confidence, comparisons, correlation),
        "seeds_two_arms": alone.seeds(effect, confidence),
        "merit": _merit(measures, known.value) if two_arms else math.nan,
    }


def _merit(measures: RepeatedMeasures, variance: float) -> float:
    if not {GOOD, BASE_ARM} <= set(measures.runs) or variance == 0:
        return math.nan
    return measures.contrast(GOOD, BASE_ARM).difference / math.sqrt(variance)
