"""Intervals by a hierarchical bootstrap over seeds and prompts.

Scores form a table [S seeds, P prompts]: every seed is judged on the same prompts, so seeds and
prompts are crossed and each is resampled as a whole. A resampled mean is

    mean + c * sum_s (u_s / S - 1 / S) * seed_effect_s
         + d * sum_p (v_p / P - 1 / P) * prompt_effect_p

with u and v multinomial counts. The mean of a prompt over S seeds holds 1 / S of the interaction of
seeds and prompts, and so does the mean of a seed; counted in both it makes intervals too wide, so
the factor d = sqrt(max(0, 1 - interaction / prompts)), of mean squares, takes it out of the
prompts' part (Owen 2007). With few seeds a plain bootstrap is far too sure of itself: at three
seeds its 95 % interval covers about 72 %. The factor

    c = sqrt(S / (S - 1)) * t(S - 1) / z

(quantiles of Student's t and of the normal distribution) gives the seeds' part the width of a
t interval; coverage is then 93 to 98 % from two seeds on. With one seed there is no interval. Where
one seed in ten collapses, ten seeds seldom show how far, and intervals cover less than they say
(`python -m bpgo simulate`).

Sources: Efron and Tibshirani 1993 (bootstrap), Owen 2007 (crossed resampling), Hesterberg 2015
(the narrowness of the bootstrap for small samples and its correction by t quantiles).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bpgo.errors import UserError
from bpgo.seeding import numpy_generator

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """Estimate and interval limits, each of the leading shape of the values."""

    mean: Floats
    low: Floats
    high: Floats

    def within(self, least: float, most: float) -> Interval:
        """The same for a number that cannot lie outside these bounds; nor can the limits then."""
        return Interval(self.mean, *(np.clip(end, least, most) for end in self[1:]))


def check_finite(values: Floats, what: str) -> None:
    """Raise `UserError` naming `what` if any value is NaN or infinite."""
    bad = int(np.size(values) - np.isfinite(values).sum())
    if bad:
        raise UserError(f"{what}: {bad} of {np.size(values)} values are NaN or infinite")


@dataclass(frozen=True)
class Bootstrap:
    """A seeded resampler: equal settings give equal intervals, whatever was asked before."""

    samples: int = 2000
    confidence: float = 0.95
    seed: int = 0
    _weights: dict[tuple[str, int], Floats] = field(default_factory=dict, repr=False, compare=False)

    def mean(self, values: ArrayLike, what: str = "scores") -> Interval:
        """Mean over seeds and prompts.

        Args:
            values: [..., S, P] scores or paired differences; P = 1 for one number per seed.
            what: named in the error message.

        Returns:
            Each [...]. The limits are NaN with one seed. The order of seeds and of prompts does
            not matter.

        Raises:
            UserError: a value is not finite, or there are none.
        """
        table = np.asarray(values, dtype=np.float64)
        if table.ndim < 2 or 0 in table.shape[-2:]:
            raise UserError(f"{what}: need at least one seed and one prompt, got {table.shape}")
        check_finite(table, what)
        centre = table.mean(axis=(-2, -1))
        seeds = table.shape[-2]
        if seeds < 2:
            return Interval(centre, np.full_like(centre, np.nan), np.full_like(centre, np.nan))
        own = prompt_share(table)[..., None]
        deviation = self._resampled("prompts", own * (table.mean(axis=-2) - centre[..., None]))
        deviation += _seed_factor(seeds, self.confidence) * self._resampled(
            "seeds", table.mean(axis=-1) - centre[..., None]
        )
        return self._limits(centre, deviation)

    def means(self, tables: Sequence[Floats], what: str = "scores") -> list[Interval]:
        """`mean` of many [S, P] tables, those of one shape resampled together."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, table in enumerate(tables):
            places.setdefault(table.shape, []).append(place)
        result: dict[int, Interval] = {}
        for chosen in places.values():
            stacked = self.mean(np.stack([tables[place] for place in chosen]), what)
            for k, place in enumerate(chosen):
                result[place] = Interval(*(part[k] for part in stacked))
        return [result[place] for place in range(len(tables))]

    def resampled_means(self, values: Floats) -> Floats:
        """[B, I] means over seeds of [S, I] values, S > 1, in resamples widened for few seeds."""
        centre = values.mean(axis=0)
        deviation = self._counts("seeds", len(values)) @ (values - centre)
        return np.asarray(centre + _seed_factor(len(values), self.confidence) * deviation)

    def units(self, values: ArrayLike, what: str = "values") -> Interval:
        """Mean over independent units (such as groups of one fixed policy).

        Args:
            values: [..., N]; with N = 1 the limits are NaN.
            what: named in the error message.
        """
        table = np.asarray(values, dtype=np.float64)
        if table.ndim < 1 or table.shape[-1] == 0:
            raise UserError(f"{what}: need at least one value")
        check_finite(table, what)
        centre = table.mean(axis=-1)
        if table.shape[-1] < 2:
            return Interval(centre, np.full_like(centre, np.nan), np.full_like(centre, np.nan))
        return self._limits(centre, self._resampled("units", table - centre[..., None]))

    def rank_correlation(
        self, first: ArrayLike, second: ArrayLike, fixed: ArrayLike | None = None
    ) -> Interval:
        """Spearman's correlation of two [N] columns, resampling their rows.

        With `fixed` [N] the partial one, the ranks of that column held fixed. Ranks are taken once.
        NaN where a column is constant, or follows from the fixed one, or N < 3.
        """
        given = [first, second, *([] if fixed is None else [fixed])]
        columns = [stats.rankdata(np.asarray(column, dtype=np.float64)) for column in given]
        n = len(columns[0])
        order = np.lexsort(columns[::-1])
        centred = [column[order] - column.mean() for column in columns]
        weights = self._counts("units", n)
        means = [weights @ column for column in centred]
        places = [(a, b) for b in range(len(given)) for a in range(b + 1)]

        def of(a: int, b: int, resampled: bool) -> Floats:
            product = centred[a] * centred[b]
            if not resampled:
                return np.asarray(product.mean())
            return np.asarray(weights @ product - means[a] * means[b])

        value = partial_correlation({pair: of(*pair, False) for pair in places})
        if n < 3 or not np.isfinite(value):
            return Interval(*(np.asarray(np.float64(np.nan)) for _ in range(3)))
        resampled = partial_correlation({pair: of(*pair, True) for pair in places})
        tail = (1 - self.confidence) / 2
        low, high = np.nanquantile(resampled, [tail, 1 - tail])
        return Interval(value, np.asarray(low), np.asarray(high))

    def _resampled(self, unit: str, effects: Floats) -> Floats:
        """[..., n] effects (mean 0) to [..., B] resampled means; sorted, so order is irrelevant."""
        n = effects.shape[-1]
        if n == 1:
            return np.zeros((*effects.shape[:-1], self.samples))
        return np.asarray(np.sort(effects, axis=-1) @ self._counts(unit, n).T)

    def _counts(self, unit: str, n: int) -> Floats:
        """[B, n] shares of each unit in each resample; rows sum to 1."""
        key = (unit, n)
        if key not in self._weights:
            random = numpy_generator(self.seed, "bootstrap", unit, n)
            counts = random.multinomial(n, np.full(n, 1 / n), size=self.samples)
            self._weights[key] = counts / n
        return self._weights[key]

    def _limits(self, centre: Floats, deviation: Floats) -> Interval:
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(deviation, [tail, 1 - tail], axis=-1)
        return Interval(centre, centre + low, centre + high)


def prompt_share(table: Floats) -> Floats:
    """The factor d of the module's description for [..., S, P] tables, S > 1."""
    seeds, prompts = table.shape[-2:]
    if prompts < 2:
        return np.zeros(table.shape[:-2])
    centre = table.mean(axis=(-2, -1), keepdims=True)
    by_seed = table.mean(axis=-1, keepdims=True) - centre
    by_prompt = table.mean(axis=-2, keepdims=True) - centre
    rest = table - centre - by_seed - by_prompt
    interaction = (rest**2).sum(axis=(-2, -1)) / ((seeds - 1) * (prompts - 1))
    between = seeds * (by_prompt**2).sum(axis=(-2, -1)) / (prompts - 1)
    left = np.maximum(0.0, between - interaction)
    return np.sqrt(np.divide(left, between, out=np.zeros_like(left), where=between > 0))


@cache
def _seed_factor(seeds: int, confidence: float) -> float:
    """The factor c of the module's description."""
    upper = (1 + confidence) / 2
    ratio = stats.t.ppf(upper, seeds - 1) / stats.norm.ppf(upper)
    return float(np.sqrt(seeds / (seeds - 1)) * ratio)


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all values, such as one for each run.

    The values at the edges of the middle half count by the share that lies inside, so that three
    runs weigh 1/6, 2/3 and 1/6 (Agarwal et al. 2021 use it for its robustness).
    """
    ordered = np.sort(np.ravel(np.asarray(values, dtype=np.float64)))
    edges = np.clip(np.arange(len(ordered) + 1), 0.25 * len(ordered), 0.75 * len(ordered))
    return float(np.average(ordered, weights=np.diff(edges)))


def partial_correlation(covariances: Mapping[tuple[int, int], Floats]) -> Floats:
    """Correlation of columns 0 and 1 from covariances by (a, b), a <= b; given column 2, if any.

    r_01.2 = (c_01 - c_02 c_12 / c_22) / sqrt((c_00 - c_02^2 / c_22) (c_11 - c_12^2 / c_22)). A
    constant column 2 fixes nothing. NaN where column 0 or 1 is constant, or follows from column 2.
    """
    x, y, both = (np.asarray(covariances[pair]) for pair in ((0, 0), (1, 1), (0, 1)))
    left, right = x, y
    if (2, 2) in covariances:
        fixed, first, second = (np.asarray(covariances[pair]) for pair in ((2, 2), (0, 2), (1, 2)))
        known = np.where(fixed > 0, fixed, 1.0)
        left, right = x - first**2 / known, y - second**2 / known
        both = both - first * second / known
    sound = (left > 1e-9 * x) & (right > 1e-9 * y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(sound, both / np.sqrt(left * right), np.nan))


def standardized(values: ArrayLike) -> Floats:
    """Mean 0, standard deviation 1 over all values; zeros where they are all equal."""
    array = np.asarray(values, dtype=np.float64)
    spread = array.std()
    return np.asarray((array - array.mean()) / (spread if spread > 0 else 1))
