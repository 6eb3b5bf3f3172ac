"""Laws of the bootstrap, whatever the scores."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bpgo.analysis.statistics.bootstrap import Bootstrap, interquartile_mean
from bpgo.analysis.statistics.reliability import rows_gain, rows_gamma

FINITE = st.floats(-1e3, 1e3, allow_nan=False, width=32)
TABLES = hnp.arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(1, 30)), elements=FINITE)
BOOTSTRAP = Bootstrap(samples=200)
QUICK = settings(max_examples=60, deadline=None)


def close(first, second):
    np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-9 * 1e3)


@QUICK
@given(TABLES, st.randoms(use_true_random=False))
def test_order_of_seeds_and_prompts_does_not_matter(table, random):
    rows, columns = list(range(table.shape[0])), list(range(table.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    close(BOOTSTRAP.mean(table), BOOTSTRAP.mean(table[np.ix_(rows, columns)]))


@QUICK
@given(TABLES)
def test_equal_settings_give_equal_intervals(table):
    fresh = Bootstrap(samples=200)
    fresh.mean(np.zeros((3, 5)))  # what was asked before does not matter
    np.testing.assert_array_equal(BOOTSTRAP.mean(table), fresh.mean(table))


@QUICK
@given(TABLES)
def test_mean_lies_in_its_interval(table):
    mean, low, high = BOOTSTRAP.mean(table)
    slack = 1e-9 * (1 + abs(table).max())
    assert low <= mean + slack
    assert high >= mean - slack
    np.testing.assert_allclose(mean, table.mean(), atol=slack)


@QUICK
@given(TABLES, FINITE, st.floats(0.125, 8))
def test_shift_and_scale_carry_over(table, shift, scale):
    plain = BOOTSTRAP.mean(table)
    moved = BOOTSTRAP.mean(scale * table + shift)
    np.testing.assert_allclose(moved, [scale * part + shift for part in plain], atol=1e-6)


@QUICK
@given(st.integers(2, 6), st.integers(1, 30), FINITE)
def test_constant_scores_have_no_width(seeds, prompts, value):
    interval = BOOTSTRAP.mean(np.full((seeds, prompts), value))
    np.testing.assert_allclose(interval, value, atol=1e-9)


@QUICK
@given(hnp.arrays(np.float64, st.tuples(st.just(1), st.integers(1, 30)), elements=FINITE))
def test_one_seed_never_has_an_interval(table):
    mean, low, high = BOOTSTRAP.mean(table)
    assert np.isfinite(mean)
    assert np.isnan(low)
    assert np.isnan(high)


@QUICK
@given(TABLES)
def test_more_confidence_is_wider(table):
    narrow, wide = (Bootstrap(samples=200, confidence=level).mean(table) for level in (0.8, 0.99))
    slack = 1e-9 * (1 + abs(table).max())
    assert wide.low <= narrow.low + slack
    assert wide.high >= narrow.high - slack


@QUICK
@given(hnp.arrays(np.float64, st.integers(4, 60), elements=FINITE))
def test_interquartile_mean_lies_between_the_extremes(values):
    assert values.min() - 1e-9 <= interquartile_mean(values) <= values.max() + 1e-9


@QUICK
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(3, 12)), elements=FINITE))
def test_reliability_knows_itself_and_its_opposite(table):
    varies = np.ptp(table, axis=1) > 0
    same, opposite = rows_gamma(table, table), rows_gamma(table, -table)
    np.testing.assert_array_equal(same[varies], 1)
    np.testing.assert_array_equal(opposite[varies], -1)
    assert np.isnan(same[~varies]).all()
    gain = rows_gain(table, table)
    np.testing.assert_allclose(gain, table.std(axis=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(rows_gain(-table, table), -gain)
