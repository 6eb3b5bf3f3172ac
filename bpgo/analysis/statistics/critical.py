"""Critical values, p-values, power and verdicts of intervals: estimate +- critical value x se.

Alone, a difference divided by its standard error follows Student's t. The k differences of a
table's column share their reference arm, and so does the variance: together they follow a
multivariate t with correlation 1/2 (Dunnett 1955). Its critical value holds for all of them at
once. With correlation 0 the same integral gives the value for differences that share no arm, which
is a little larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.polynomial import hermite_e, legendre
from scipy import optimize, special, stats

SHARED_REFERENCE = 0.5  # correlation of two arms' differences to the same arm
POWER = 0.8

BETTER, WORSE, EQUIVALENT, UNRESOLVED = "better", "worse", "equivalent", "not resolved"


def critical_value(
    confidence: float, df: float, comparisons: int = 1, correlation: float = SHARED_REFERENCE
) -> float:
    """The c of `estimate +- c * se` that holds for all comparisons at once.

    Args:
        confidence: such as 0.95.
        df: degrees of freedom of the common variance; at least 1, infinity allowed.
        comparisons: how many estimates the interval must hold for at once; 1: Student's t.
        correlation: of any two of them, at least 0 and below 1.
    """
    if comparisons == 1:
        return float(stats.t.ppf((1 + confidence) / 2, df))
    return _simultaneous(confidence, _grid(df), comparisons, correlation)


def simultaneous_p(
    statistic: float, df: float, comparisons: int = 1, correlation: float = SHARED_REFERENCE
) -> float:
    """Two-sided p-value of one of several t statistics, corrected for all of them."""
    if not math.isfinite(statistic):
        return math.nan if math.isnan(statistic) else 0.0
    if comparisons == 1:
        return float(2 * stats.t.sf(abs(statistic), df))
    return 1 - _all_within(abs(statistic), _grid(df), comparisons, correlation)


def detectable(critical: float, df: float, power: float = POWER) -> float:
    """The true difference, in standard errors, that a test finds with the given power.

    Found means that the estimate divided by its standard error lies beyond `critical` on either
    side; it follows the noncentral t distribution.
    """
    if not (math.isfinite(critical) and df > 0):
        return math.nan
    return _detectable(round(critical, 6), _grid(df), power)


def verdict(low: float, high: float, margin: float = 0.0) -> str:
    """What an interval of a difference says.

    `equivalent` where all of it lies within +-`margin`, even if it leaves out zero: a difference
    that small does not matter. Else `better` or `worse` where it leaves out zero. Else, or
    without an interval, `not resolved`.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return UNRESOLVED
    if -margin < low and high < margin:
        return EQUIVALENT
    return BETTER if low > 0 else WORSE if high < 0 else UNRESOLVED


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number by Holm (1979), in the given order; NaN counts as 1."""
    known = [1.0 if math.isnan(p) else p for p in p_values]
    adjusted, least = [1.0] * len(known), 0.0
    for rank, place in enumerate(np.argsort(known, kind="stable")):
        least = max(least, min(1.0, (len(known) - rank) * known[place]))
        adjusted[place] = least
    return adjusted


def _grid(df: float) -> float:
    """Degrees of freedom rounded down to a tenth, so that few values need an integral."""
    return math.floor(df * 10) / 10 if 1 <= df < 1000 else (1.0 if df < 1 else math.inf)


@cache
def _simultaneous(confidence: float, df: float, comparisons: int, correlation: float) -> float:
    low = float(stats.t.ppf((1 + confidence) / 2, df))
    high = float(stats.t.ppf(1 - (1 - confidence) / 2 / comparisons, df)) * 1.01

    def excess(limit: float) -> float:
        return _all_within(limit, df, comparisons, correlation) - confidence

    return float(optimize.brentq(excess, low, high, xtol=1e-6))


def _all_within(limit: float, df: float, comparisons: int, correlation: float) -> float:
    """P(|T_i| <= limit for all i): over the shared normal part z and the common scale u."""
    z, weight, u = _nodes(df)
    own, shared = math.sqrt(1 - correlation), math.sqrt(correlation) * z
    reach = limit * u[:, None]
    inside = special.ndtr((reach - shared) / own) - special.ndtr((-reach - shared) / own)
    return float((inside**comparisons @ weight[0]) @ weight[1])


@cache
def _nodes(df: float) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Quadrature over a normal variable and over sqrt(chi^2 / df), by the latter's quantiles."""
    z, weight_z = hermite_e.hermegauss(40)
    weight_z = weight_z / weight_z.sum()
    if math.isinf(df):
        return z, (weight_z, np.ones(1)), np.ones(1)
    x, weight_u = legendre.leggauss(120)
    u = np.sqrt(stats.chi2.ppf((x + 1) / 2, df) / df)
    return z, (weight_z, weight_u / 2), u


@cache
def _detectable(critical: float, df: float, power: float) -> float:
    _, (_, weight), u = _nodes(df)

    def found(shift: float) -> float:
        inside = special.ndtr(critical * u - shift) - special.ndtr(-critical * u - shift)
        return 1 - float(inside @ weight)

    high = critical + 2.0
    while found(high) < power:
        high *= 1.5
    return float(optimize.brentq(lambda shift: found(shift) - power, 0.0, high, xtol=1e-6))
