"""Critical values against published tables and scipy; power against the noncentral t."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bpgo.analysis.statistics.critical import (
    BETTER,
    EQUIVALENT,
    UNRESOLVED,
    WORSE,
    critical_value,
    detectable,
    holm,
    simultaneous_p,
    verdict,
)


@pytest.mark.parametrize(  # Dunnett 1964, two-sided, 5 %: comparisons, df, value
    ("comparisons", "df", "published"),
    [(2, 10, 2.57), (3, 20, 2.54), (4, 10, 2.89), (6, 12, 2.98), (9, 60, 2.77)],
)
def test_dunnetts_table(comparisons, df, published):
    assert critical_value(0.95, df, comparisons) == pytest.approx(published, abs=0.011)


@pytest.mark.parametrize(("comparisons", "df"), [(2, 2), (6, 12)])
def test_multivariate_t_of_scipy(comparisons, df):
    limit = critical_value(0.95, df, comparisons)
    shape = 0.5 * (np.eye(comparisons) + 1)
    spread = stats.multivariate_t(shape=shape, df=df, seed=1)
    bounds = np.full(comparisons, limit)
    assert spread.cdf(bounds, lower_limit=-bounds) == pytest.approx(0.95, abs=1e-3)
    assert simultaneous_p(limit, df, comparisons) == pytest.approx(0.05, abs=1e-4)


def test_one_comparison_is_students_t():
    assert critical_value(0.95, 2) == pytest.approx(4.3027, abs=1e-4)
    assert simultaneous_p(-4.3027, 2) == pytest.approx(0.05, abs=1e-4)


def test_independent_comparisons_need_more_than_sidaks_normal_value():
    normal = stats.norm.ppf((1 + 0.95 ** (1 / 6)) / 2)
    assert critical_value(0.95, math.inf, 6, correlation=0.0) == pytest.approx(normal, abs=1e-4)
    assert critical_value(0.95, 12, 6, correlation=0.0) > critical_value(0.95, 12, 6)


@pytest.mark.parametrize(("seeds", "visible"), [(3, 0.58), (5, 0.30), (10, 0.18), (20, 0.12)])
def test_smallest_visible_difference_of_one_pair(seeds, visible):
    """A paired t test with variance .0318 a seed, power by the noncentral t."""
    factor = detectable(critical_value(0.95, seeds - 1), seeds - 1)
    assert factor * math.sqrt(0.0318 / seeds) == pytest.approx(visible, abs=0.005)


def test_visible_difference_is_found_as_often_as_promised():
    random, df, n = np.random.default_rng(0), 12, 200_000
    limit = critical_value(0.95, df, 6)
    statistic = random.normal(detectable(limit, df), 1, n)
    statistic /= np.sqrt(random.chisquare(df, n) / df)
    assert np.mean(np.abs(statistic) > limit) == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.2, 0.4, BETTER),
        (-0.4, -0.2, WORSE),
        (-0.05, 0.3, UNRESOLVED),
        (-0.05, 0.09, EQUIVALENT),
        (0.02, 0.08, EQUIVALENT),
        (0.02, 0.12, BETTER),
        (math.nan, math.nan, UNRESOLVED),
        (0.0, 0.2, UNRESOLVED),
    ],
)
def test_verdicts(low, high, expected):
    assert verdict(low, high, margin=0.1) == expected


def test_without_a_margin_nothing_is_equivalent():
    assert verdict(0.0, 0.0) == UNRESOLVED
    assert verdict(0.01, 0.02) == BETTER


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, math.nan]) == [1.0, 1.0]
    assert holm([]) == []
