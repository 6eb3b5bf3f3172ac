"""How well a reward ranks a group's samples: two measures, over tables of groups.

- `gain`: mean over the samples of advantage times truth, with the advantage A = (r - mean) / std of
  GRPO. By so much the group's update raises the truth to first order. It is defined for every
  group: 0 where all rewards, or all truths, are equal. Unit: standard deviation of the truth within
  a group (`within_spread`).
- `gamma`: Goodman and Kruskal's (C - D) / (C + D) over the pairs that neither side ties (1954); an
  oracle of few levels ties many. NaN where there is no such pair.

Groups that earlier versions collected have `rank_correlation` alone, Spearman's with mean ranks of
ties, which ties pull towards 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bpgo.analysis.statistics.bootstrap import Floats, partial_correlation

# measure: what tables and figures call it
MEASURES = {"gain": "gain", "gamma": "γ", "rank_correlation": "ρ"}
CHUNK = 4096  # groups whose pairs are compared at a time


def measures_in(groups: pd.DataFrame) -> list[str]:
    """The measures that collected groups have, the one that is defined for every group first."""
    return [name for name in MEASURES if name in groups]


def rows_gain(reward: ArrayLike, truth: ArrayLike) -> Floats:
    """The gain of each row of two [N, G] tables, in the truth's unit: [N]."""
    table, true = (np.asarray(values, dtype=np.float64) for values in (reward, truth))
    centred, right = (each - each.mean(axis=1, keepdims=True) for each in (table, true))
    spread = centred.std(axis=1)
    # Equal numbers may differ by the rounding of their mean.
    level = spread > 1e-12 * np.abs(table).max(axis=1, initial=0)
    product = (centred * right).mean(axis=1)
    return np.asarray(np.divide(product, spread, out=np.zeros_like(spread), where=level))


def rows_gamma(reward: ArrayLike, truth: ArrayLike) -> Floats:
    """Goodman and Kruskal's gamma within each row of two [N, G] tables: [N]."""
    tables = [np.asarray(values, dtype=np.float64) for values in (reward, truth)]
    found = []
    for start in range(0, len(tables[0]), CHUNK):
        left, right = (_order(table[start : start + CHUNK]) for table in tables)
        product = left * right
        pairs = np.abs(product).sum(axis=(1, 2))
        with np.errstate(invalid="ignore"):
            found.append(np.where(pairs > 0, product.sum(axis=(1, 2)) / pairs, np.nan))
    return np.concatenate(found) if found else np.empty(0)


def _order(table: Floats) -> NDArray[np.int8]:
    """Of each pair of a row of [N, G] which is larger: 1, 0 or -1, [N, G, G]."""
    above = (table[:, :, None] > table[:, None, :]).astype(np.int8)
    return above - above.swapaxes(1, 2)


def within_spread(truth: Floats) -> float:
    """Standard deviation of [N, G] truths within a group, pooled over groups; never 0."""
    if truth.size == 0 or truth.shape[1] < 2:
        return 1.0
    return float(np.sqrt(truth.var(axis=1, ddof=1).mean())) or 1.0


def rank_correlation(first: ArrayLike, second: ArrayLike, fixed: ArrayLike | None = None) -> float:
    """Spearman's correlation of two [N] columns; with `fixed` the partial one, given its ranks.

    NaN where a column is constant, or follows from the fixed one.
    """
    columns = [first, second, *([] if fixed is None else [fixed])]
    ranks = [stats.rankdata(np.asarray(column, dtype=np.float64)) for column in columns]
    table = np.cov(ranks, ddof=0)
    places = [(a, b) for b in range(len(columns)) for a in range(b + 1)]
    return float(partial_correlation({(a, b): table[a, b] for a, b in places}))
