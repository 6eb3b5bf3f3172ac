from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bpgo.analysis.statistics.bootstrap import Bootstrap, interquartile_mean
from bpgo.analysis.statistics.reliability import (
    rank_correlation,
    rows_gain,
    rows_gamma,
    within_spread,
)
from bpgo.errors import UserError


@pytest.mark.parametrize(
    ("seeds", "seed_sd", "prompt_sd"), [(3, 0.2, 0.1), (3, 0.02, 0.3), (5, 0.2, 0.1), (2, 0.1, 0.3)]
)
def test_interval_covers_as_often_as_it_says(seeds, seed_sd, prompt_sd):
    random, prompts, repeats = np.random.default_rng(3), 100, 300
    table = (
        random.normal(0, seed_sd, (repeats, seeds, 1))
        + random.normal(0, prompt_sd, (repeats, 1, prompts))
        + random.normal(0, 0.3, (repeats, seeds, prompts))
    )
    interval = Bootstrap(samples=800).mean(table)
    covered = np.mean((interval.low <= 0) & (interval.high >= 0))
    assert covered >= 0.90


def test_seed_part_is_as_wide_as_a_t_interval():
    values = np.random.default_rng(0).normal(size=12)
    interval = Bootstrap(samples=20000).mean(values[:, None])
    half = stats.t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)
    assert float(interval.high - interval.low) == pytest.approx(2 * half, rel=0.1)


def test_prompts_matter_even_if_seeds_agree():
    table = np.tile(np.random.default_rng(0).normal(size=400), (3, 1))
    interval = Bootstrap().mean(table)
    expected = 2 * 1.96 * table[0].std() / np.sqrt(400)
    assert float(interval.high - interval.low) == pytest.approx(expected, rel=0.1)


def test_pairing_removes_what_both_arms_share():
    random = np.random.default_rng(1)
    shared = random.normal(0, 1, (3, 500))
    first, second = (shared + random.normal(0, 0.05, (3, 500)) for _ in range(2))
    bootstrap = Bootstrap()
    paired = bootstrap.mean(first + 0.05 - second)
    alone = bootstrap.mean(first + 0.05)
    assert paired.low > 0
    assert alone.low < 0
    assert (paired.high - paired.low) < 0.2 * (alone.high - alone.low)


def test_many_tables_at_once_equal_one_by_one():
    random = np.random.default_rng(2)
    tables = [random.normal(size=shape) for shape in ((3, 20), (2, 20), (3, 20), (3, 7))]
    bootstrap = Bootstrap(samples=300)
    for table, together in zip(tables, bootstrap.means(tables), strict=True):
        np.testing.assert_allclose(together, bootstrap.mean(table))


def test_one_seed_has_a_mean_but_no_interval():
    interval = Bootstrap().mean([[1.0, 2.0, 3.0]])
    assert interval.mean == 2
    assert np.isnan(interval.low)
    assert np.isnan(interval.high)


def test_constant_scores_have_an_interval_of_no_width():
    interval = Bootstrap().mean(np.full((3, 50), 0.25))
    assert interval == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(bad):
    table = np.zeros((3, 4))
    table[1, 2] = bad
    with pytest.raises(UserError, match="ambiguous/grpo by oracle: 1 of 12 values"):
        Bootstrap().mean(table, "ambiguous/grpo by oracle")


def test_nothing_to_average_is_refused():
    with pytest.raises(UserError, match="at least one seed"):
        Bootstrap().mean(np.empty((0, 5)))


def test_rank_correlation_agrees_with_scipy():
    random = np.random.default_rng(4)
    first = random.normal(size=300)
    second = first + random.normal(size=300)
    interval = Bootstrap().rank_correlation(first, second)
    assert float(interval.mean) == pytest.approx(stats.spearmanr(first, second)[0])
    assert interval.low < interval.mean < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.75 / np.sqrt(300), rel=0.5)


def test_rank_correlation_of_a_constant_is_undefined():
    assert np.isnan(Bootstrap().rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]).mean)


def test_a_fixed_column_takes_away_what_goes_through_it():
    random = np.random.default_rng(5)
    fixed = random.normal(size=4000)
    first, second = fixed + random.normal(size=(2, 4000))
    found = Bootstrap().rank_correlation(first, second, fixed)
    assert found.low < 0 < found.high
    assert abs(found.mean) < 0.05
    assert Bootstrap().rank_correlation(first, second).low > 0.4
    # Residuals of ranks, the textbook's way.
    ranks = [stats.rankdata(column) for column in (first, second, fixed)]
    left, right = (rank - np.polyval(np.polyfit(ranks[2], rank, 1), ranks[2]) for rank in ranks[:2])
    assert float(found.mean) == pytest.approx(np.corrcoef(left, right)[0, 1])
    assert rank_correlation(first, second, fixed) == pytest.approx(float(found.mean))
    constant = Bootstrap().rank_correlation(first, second, np.ones(4000))
    assert float(constant.mean) == pytest.approx(stats.spearmanr(first, second)[0])
    assert np.isnan(rank_correlation(fixed, second, fixed)), "nothing is left of it"


def test_gain_is_defined_for_every_group():
    reward = [[1, 2, 3, 4], [1, 2, 3, 4], [5, 5, 5, 5], [0.1, 0.1, 0.1, 0.1]]
    truth = [[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1]]
    expected = [0.5 / np.sqrt(1.25), 0, 0, 0]
    np.testing.assert_allclose(rows_gain(reward, truth), expected)
    assert within_spread(np.array(truth, float)) == pytest.approx(0.5)


def test_gamma_counts_pairs_without_a_tie():
    # Of six pairs three are tied: first all others are in order, then one of three is not.
    reward = [[1, 2, 2, 3], [3, 2, 2, 3], [1, 1, 1, 1]]
    truth = [[0, 0, 1, 1], [0, 0, 1, 2], [0, 1, 2, 3]]
    found = rows_gamma(reward, truth)
    np.testing.assert_allclose(found[:2], [1, 1 / 3])
    assert np.isnan(found[2])


def test_interquartile_mean_leaves_the_tails_out():
    assert interquartile_mean([-1000, 1, 2, 3, 4, 5, 6, 1000]) == pytest.approx(3.5)


def test_interquartile_mean_of_three_runs_weighs_the_middle_one_most():
    assert interquartile_mean([0, 1, 8]) == pytest.approx((0 + 4 * 1 + 8) / 6)
    assert interquartile_mean([2.0]) == 2
    assert interquartile_mean([1, 4]) == 2.5


def test_seeds_and_prompts_share_their_interaction_once():
    """Interaction alone, variance 1: the mean of 5 x 40 has the variance 1 / 200."""
    random, widths = np.random.default_rng(6), []
    for _ in range(300):
        interval = Bootstrap(samples=400).mean(random.normal(0, 1, (5, 40)))
        widths.append(float(interval.high - interval.low) / 2)
    half = stats.t.ppf(0.975, 4) / np.sqrt(200)
    # The prompts' part cannot be negative, so that some of it stays by chance.
    assert np.mean(widths) == pytest.approx(half, rel=0.08)
