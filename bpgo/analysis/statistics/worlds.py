"""What a world is like: who is alike, who is right, and what gives it away.

Measured on groups of the base policy, [N, G] scores a reward. Within a group, the reliability of a
reward is Goodman and Kruskal's gamma of reward and oracle (ties do not count). Correlations over
groups are Spearman's, on ranks taken once; one "at fixed ambiguity" is partial. Judges are compared
by what the oracle leaves over: scores less their group's mean, pooled over the groups of specified
captions, and the partial correlation of two rewards given the oracle.

Intervals are of a bootstrap over prompts: all groups of a prompt are drawn together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from bpgo.analysis.statistics.bootstrap import Floats
from bpgo.seeding import numpy_generator

SPECIFIED = 1e-9  # largest ambiguity of a specified caption
OPEN = 0.7  # smallest of an open one
CONSTANT = 1e-9  # a group whose oracle varies by no more is constant
SAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Groups:
    """N groups of G samples of one world.

    Attributes:
        prompts: whose groups they are, N ids.
        ambiguity: of each caption, [N].
        pools: scores by pool a, b and c, each [N, G].
        oracle: the truth, [N, G].
        counted: the same in few levels, each statement met or not, [N, G].
        gamma: reliability of pool a in each group, [N]; NaN where it is not defined.
        counted_gamma: the same by `counted`, [N].
        anchors: BPGO's prior of each group by form, in units of pool a, each [N].
    """

    prompts: list[str]
    ambiguity: Floats
    pools: dict[str, Floats]
    oracle: Floats
    counted: Floats
    gamma: Floats
    counted_gamma: Floats
    anchors: dict[str, Floats]


def world_statistics(groups: Groups, samples: int = SAMPLES) -> pd.DataFrame:
    """Rows (measure, estimate, low, high, n_groups); NaN where a measure is not defined."""
    units, unit = np.unique(np.array(groups.prompts), return_inverse=True)
    random = numpy_generator(0, "worlds", len(units))
    shape = np.full(len(units), 1 / len(units))
    drawn = random.multinomial(len(units), shape, size=samples).astype(np.float64)
    weights = np.concatenate([np.ones((1, len(units))), drawn])[:, unit]  # the first row: as it is
    rows = []
    for measure, used, figure in _measures(groups):
        values = figure(weights[:, used]) if used.any() else np.full(samples + 1, np.nan)
        tail = (1 - CONFIDENCE) / 2
        known = values[1:][np.isfinite(values[1:])]
        low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (np.nan, np.nan)
        estimate = float(values[0])
        rows.append((measure, estimate, float(low), float(high), int(used.sum())))
    return pd.DataFrame(rows, columns=["measure", "estimate", "low", "high", "n_groups"])


Figure = tuple[str, NDArray[np.bool_], Callable[[Floats], Floats]]


def _measures(groups: Groups) -> list[Figure]:
    """Each measure's name, the groups that it uses, and its value for weights of these [B, n]."""
    ambiguity, mean = groups.ambiguity, groups.pools["a"].mean(axis=1)
    everywhere = np.ones(len(ambiguity), dtype=bool)
    places = {"specified": ambiguity <= SPECIFIED, "open": ambiguity >= OPEN}
    found: list[Figure] = []
    for other in ("b", "c"):
        used = places["specified"]
        found.append((f"judges_a_{other}", used, _alike(groups, other, used)))
    found.append(("mean_ambiguity", everywhere, _correlation(mean, ambiguity)))
    for where, used in places.items():
        found.append((f"oracle_{where}", used, _average(groups.oracle.mean(axis=1)[used])))
    return [
        *found,
        *_reliability("", groups, groups.gamma, groups.oracle, places),
        *_reliability("counted_", groups, groups.counted_gamma, groups.counted, places),
    ]


def _reliability(
    prefix: str,
    groups: Groups,
    gamma: Floats,
    truth: Floats,
    places: dict[str, NDArray[np.bool_]],
) -> list[Figure]:
    """How right pool a is by one oracle, where, and what goes along with it."""
    known, mean = np.isfinite(gamma), groups.pools["a"].mean(axis=1)
    signals = {"mean": mean, **{k: mean - prior for k, prior in groups.anchors.items()}}
    found: list[Figure] = []
    for name, signal in signals.items():
        used = known & np.isfinite(signal)
        columns = (signal[used], gamma[used], groups.ambiguity[used])
        found.append((f"{prefix}by_{name}", used, _correlation(*columns[:2])))
        found.append((f"{prefix}by_{name}_fixed", used, _correlation(*columns)))
    for where, inside in places.items():
        used = inside & known
        found.append((f"{prefix}reliability_{where}", used, _average(gamma[used])))
    constant = (np.ptp(truth, axis=1) <= CONSTANT).astype(np.float64)
    found.append((f"{prefix}constant", np.ones(len(gamma), dtype=bool), _average(constant)))
    return found


def _average(values: Floats) -> Callable[[Floats], Floats]:
    def figure(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(weights @ values / weights.sum(axis=1))

    return figure


def _correlation(
    first: Floats, second: Floats, fixed: Floats | None = None
) -> Callable[[Floats], Floats]:
    """Spearman's correlation of two columns [n], partial if a third one is given."""
    columns = [first, second] if fixed is None else [first, second, fixed]
    ranks = [stats.rankdata(column) for column in columns]

    def figure(weights: Floats) -> Floats:
        total = weights.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = [weights @ rank / total for rank in ranks]
            moments = [
                [weights @ (x * y) / total - means[i] * means[j] for j, y in enumerate(ranks)]
                for i, x in enumerate(ranks)
            ]
        return partial_correlation(moments)

    return figure


def _alike(groups: Groups, other: str, used: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """Partial correlation of pool a and another given the oracle, within groups."""
    tables = [groups.pools["a"], groups.pools[other], groups.oracle]
    parts = [table[used] - table[used].mean(axis=1, keepdims=True) for table in tables]
    sums = [[(x * y).sum(axis=1) for y in parts] for x in parts]

    def figure(weights: Floats) -> Floats:
        return partial_correlation([[weights @ each for each in row] for row in sums])

    return figure


def partial_correlation(moments: list[list[Floats]]) -> Floats:
    """Correlation of two columns from their second moments, [B] each; given a third if there is.

    NaN where a column is constant, or all that is left of one once the third is known.
    """

    def correlation(i: int, j: int) -> Floats:
        scale = moments[i][i] * moments[j][j]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(scale > 1e-18, moments[i][j] / np.sqrt(scale), np.nan))

    plain = correlation(0, 1)
    if len(moments) == 2:
        return plain
    first, second = correlation(0, 2), correlation(1, 2)
    left = (1 - first**2) * (1 - second**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(left > 1e-18, (plain - first * second) / np.sqrt(left), np.nan))
