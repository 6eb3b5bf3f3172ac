"""Differences between arms by repeated measures: one variance between seeds for all arms.

Every seed runs every arm on the same prompts. The mean over prompts of arm a and seed s is

    y[a, s] = arm[a] + seed[s] + e[a, s],    Var e = v,

and v, the part of a run that neither its arm nor its seed explains, is alike for arms that train
alike. Least squares gives v from all arms together: with A arms and S seeds it has
(A - 1)(S - 1) degrees of freedom, where the differences of two arms alone have S - 1. The variance
of a mean difference d of two arms over n seeds and P prompts is

    2 v / n  +  max(0, prompt - interaction) / (n P),

with the mean squares of d over prompts and over (seed, prompt). The interaction of seeds and
prompts is part of v already, so it is taken out of the prompts' part: counting it in both makes
intervals too wide. Degrees of freedom of the sum by Satterthwaite 1946.

The base policy is not trained, so its runs vary less. Differences to it have the variance of an
arm's change, pooled over the arms' variances over seeds; arms share the base policy's samples, and
that correlation r leaves A (S - 1) / (1 + (A - 1) r^2) degrees of freedom. An arm whose runs vary
by a measure of their own, such as one with random rewards, can be kept apart: its differences have
their own variance and n - 1 degrees of freedom.

Sources: Montgomery 2017, chapters 4 and 13 (blocks, mixed models); Dunnett 1955.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from bpgo.analysis.statistics.bootstrap import Floats, Interval
from bpgo.analysis.statistics.critical import (
    SHARED_REFERENCE,
    critical_value,
    detectable,
    simultaneous_p,
)
from bpgo.errors import UserError

Runs = Mapping[int, Floats]  # seed -> [P] mean score of each prompt


@dataclass(frozen=True)
class Contrast:
    """A mean difference of two arms, in the scores' unit; `se` and `df` are NaN with one seed.

    `correlation` is that with other differences to the same reference.
    """

    difference: float
    se: float
    df: float
    correlation: float = 0.0

    def interval(self, confidence: float, comparisons: int = 1) -> Interval:
        """The t interval; of several comparisons one that holds for all of them at once."""
        reach = self.se * self._critical(confidence, comparisons)
        limits = (self.difference, self.difference - reach, self.difference + reach)
        return Interval(*(np.asarray(value) for value in limits))

    def p_value(self, comparisons: int = 1) -> float:
        """Two-sided p-value of no difference, corrected for the comparisons."""
        if not np.isfinite(self.se):
            return float("nan")
        if self.se == 0:
            return 1.0 if self.difference == 0 else 0.0
        return simultaneous_p(self.difference / self.se, self.df, comparisons, self.correlation)

    def visible(self, confidence: float, comparisons: int = 1) -> float:
        """The smallest true difference that `interval` finds with 80 % power."""
        if not np.isfinite(self.se):
            return float("nan")
        return self.se * detectable(self._critical(confidence, comparisons), self.df)

    def _critical(self, confidence: float, comparisons: int) -> float:
        if not np.isfinite(self.se):
            return float("nan")
        return critical_value(confidence, self.df, comparisons, self.correlation)


@dataclass(frozen=True)
class SeedVariance:
    """Variance for one seed, and its degrees of freedom (0: unknown, the variance is NaN)."""

    value: float
    df: float


class RepeatedMeasures:
    """All arms of an experiment by one reward.

    Args:
        runs: of each arm its runs. Arms may lack seeds: a difference is over those that both have.
        base: the arm that is not trained, if it is among them.
        apart: arms whose variance is not pooled.
        what: named in the error message.

    Raises:
        UserError: a score is not finite, or runs were scored on unequal numbers of prompts.
    """

    def __init__(
        self,
        runs: Mapping[str, Runs],
        base: str | None = None,
        apart: Collection[str] = (),
        what: str = "scores",
    ) -> None:
        self.runs = runs
        self.base = base
        self.pooled = [arm for arm in runs if arm != base and arm not in apart]
        rows = [row for arm in runs for row in runs[arm].values()]
        if len({row.shape for row in rows}) > 1:
            sizes = sorted({row.size for row in rows})
            raise UserError(f"{what}: runs have unequal numbers of prompts: {sizes}")
        bad = sum(int(row.size - np.isfinite(row).sum()) for row in rows)
        if bad:
            raise UserError(f"{what}: {bad} values are NaN or infinite")
        self._means = {arm: {s: float(row.mean()) for s, row in runs[arm].items()} for arm in runs}
        self.residual = residual_variance(self._table(self.pooled))
        self.change = self._change_variance()

    def shared(self, first: str, second: str) -> list[int]:
        """Seeds that both arms have."""
        return [seed for seed in self.runs[first] if seed in self.runs[second]]

    def contrast(self, first: str, second: str) -> Contrast:
        """`first` minus `second`.

        Raises:
            UserError: they share no seed.
        """
        seeds = self.shared(first, second)
        if not seeds:
            raise UserError(f"{first} and {second} have no seed in common")
        change = np.stack([self.runs[first][s] - self.runs[second][s] for s in seeds])
        seed = self.seed_variance(first, second)
        n, prompts = change.shape
        if n < 2 or seed.df == 0:
            return Contrast(float(change.mean()), float("nan"), float("nan"))
        prompt = prompt_variance(change)
        parts, dfs = np.array([seed.value / n, prompt]), np.array([seed.df, max(prompts - 1, 1)])
        total = float(parts.sum())
        df = total**2 / float((parts**2 / dfs).sum()) if total > 0 else seed.df
        alike = first in self.pooled and second in self.pooled
        return Contrast(
            float(change.mean()), total**0.5, float(df), SHARED_REFERENCE if alike else 0.0
        )

    def seed_variance(self, first: str, second: str) -> SeedVariance:
        """Variance of the difference of two arms at one seed."""
        if first in self.pooled and second in self.pooled:
            return SeedVariance(2 * self.residual.value, self.residual.df)
        if self.base in (first, second) and {first, second} - {self.base} <= set(self.pooled):
            return self.change
        own = residual_variance(self._table([first, second]))
        return SeedVariance(2 * own.value, own.df)

    def _table(self, arms: list[str]) -> Floats:
        """[A, S] means, NaN where a run is missing."""
        seeds = sorted({seed for arm in arms for seed in self._means[arm]})
        rows = [[self._means[arm].get(seed, np.nan) for seed in seeds] for arm in arms]
        return np.array(rows, dtype=np.float64).reshape(len(arms), len(seeds))

    def _change_variance(self) -> SeedVariance:
        """Variance over seeds of an arm's change from the base policy, pooled over arms."""
        if self.base is None or self.base not in self.runs or not self.pooled:
            return SeedVariance(float("nan"), 0)
        base = self._means[self.base]
        squares, freedom = 0.0, 0
        for arm in self.pooled:
            own = np.array([mean - base[s] for s, mean in self._means[arm].items() if s in base])
            if len(own) > 1:
                squares += float(((own - own.mean()) ** 2).sum())
                freedom += len(own) - 1
        if freedom == 0:
            return SeedVariance(float("nan"), 0)
        value, arms = squares / freedom, len(self.pooled)
        known = self.residual.df > 0 and value > 0
        shared = min(1.0, max(0.0, 1 - self.residual.value / value)) if known else 0.0
        return SeedVariance(value, freedom / (1 + (arms - 1) * shared**2))


def residual_variance(table: Floats) -> SeedVariance:
    """Variance of what arm and seed leave unexplained in a [A, S] table, NaN where runs miss."""
    known = np.isfinite(table)
    if known.all() and min(table.shape) > 1:
        rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
        df = (table.shape[0] - 1) * (table.shape[1] - 1)
        return SeedVariance(float((rest**2).sum()) / df, df)
    arm, seed = np.nonzero(known)
    design = np.hstack([np.eye(table.shape[0])[arm], np.eye(table.shape[1])[seed]])
    values = table[known] - table[known].mean() if known.any() else table[known]
    if not len(values):
        return SeedVariance(float("nan"), 0)
    fit, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    df = len(values) - int(rank)
    if df == 0:
        return SeedVariance(float("nan"), 0)
    return SeedVariance(float(((values - design @ fit) ** 2).sum()) / df, df)


def prompt_variance(change: Floats) -> float:
    """Share of the prompts in the variance of the mean of [S, P] differences, S > 1; at least 0."""
    seeds, prompts = change.shape
    if prompts < 2:
        return 0.0
    centred = change - change.mean()
    by_prompt, by_seed = centred.mean(axis=0), centred.mean(axis=1)
    between = seeds * float((by_prompt**2).sum()) / (prompts - 1)
    # Squares add up, so what seeds and prompts leave is the rest.
    rest = float((centred**2).sum()) - seeds * float((by_prompt**2).sum())
    rest -= prompts * float((by_seed**2).sum())
    interaction = max(0.0, rest) / ((seeds - 1) * (prompts - 1))
    return max(0.0, between - interaction) / (seeds * prompts)
