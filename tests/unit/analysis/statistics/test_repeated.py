"""Repeated measures against designs worked out by hand, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bpgo.analysis.statistics.repeated import (
    RepeatedMeasures,
    prompt_variance,
    residual_variance,
)
from bpgo.errors import UserError


def runs_of(table, names=None, seeds=None):
    """[A, S, P] scores as arms of runs."""
    names = names or [f"arm{k}" for k in range(len(table))]
    seeds = seeds or range(1, table.shape[1] + 1)
    return {
        name: dict(zip(seeds, rows, strict=True)) for name, rows in zip(names, table, strict=True)
    }


def drawn(random, arms=4, seeds=3, prompts=20, seed_sd=0.2, run_sd=0.1, prompt_sd=0.0):
    """Scores with a seed effect that all arms share, runs, a prompt effect of each arm, noise."""
    return (
        random.normal(0, seed_sd, (1, seeds, 1))
        + random.normal(0, run_sd, (arms, seeds, 1))
        + random.normal(0, 1, (1, 1, prompts))
        + random.normal(0, prompt_sd, (arms, 1, prompts))
        + random.normal(0, 0.3, (arms, seeds, prompts))
    )


def test_two_arms_are_a_paired_t_test():
    table = np.random.default_rng(0).normal(size=(2, 6, 1))
    found = RepeatedMeasures(runs_of(table)).contrast("arm1", "arm0")
    expected = stats.ttest_rel(table[1, :, 0], table[0, :, 0])
    assert found.df == 5
    assert found.p_value() == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (found.interval(0.95).low, found.interval(0.95).high) == pytest.approx((low, high))


def test_three_arms_worked_by_hand():
    """Arms 0, 1, 2 and seeds 0, 10; residuals +-1/2 of arms 0 and 2: sum of squares 1, df 2."""
    table = np.array([[0.0, 11.0], [1.0, 11.0], [3.0, 12.0]])[:, :, None]
    measures = RepeatedMeasures(runs_of(table))
    residual = table[..., 0] - table[..., 0].mean(0) - table[..., 0].mean(1, keepdims=True)
    squares = ((residual + table.mean()) ** 2).sum()
    assert measures.residual.df == 2
    assert squares == pytest.approx(1.0)
    assert measures.residual.value == pytest.approx(0.5)
    found = measures.contrast("arm2", "arm0")
    assert found.difference == 2
    assert found.se == pytest.approx(np.sqrt(2 * 0.5 / 2))


def test_a_missing_run_is_left_out_by_least_squares():
    """Rows 1 and 2 of seed 3 know the residual; the lost run of arm 0 changes nothing of theirs."""
    table = drawn(np.random.default_rng(1), arms=3, seeds=4)
    runs = runs_of(table)
    del runs["arm0"][4]
    measures = RepeatedMeasures(runs)
    assert measures.residual.df == 2 * 3 - 1
    assert measures.shared("arm0", "arm1") == [1, 2, 3]
    gap = table[1, :3].mean() - table[0, :3].mean()
    assert measures.contrast("arm1", "arm0").difference == pytest.approx(gap)
    assert measures.contrast("arm2", "arm1").se < measures.contrast("arm1", "arm0").se


def test_arms_of_other_seeds_are_refused():
    runs = runs_of(np.zeros((2, 2, 5)))
    runs["arm1"] = {7: np.zeros(5), 8: np.zeros(5)}
    with pytest.raises(UserError, match="arm1 and arm0 have no seed in common"):
        RepeatedMeasures(runs).contrast("arm1", "arm0")


@pytest.mark.parametrize(
    ("spoil", "words"), [(np.nan, "oracle: 1 values are NaN"), (None, r"unequal.*\[4, 5\]")]
)
def test_bad_runs_are_refused(spoil, words):
    runs = runs_of(np.zeros((2, 2, 5)))
    runs["arm1"][1] = np.zeros(4) if spoil is None else np.array([0, 0, spoil, 0, 0])
    with pytest.raises(UserError, match=words):
        RepeatedMeasures(runs, what="oracle")


def test_one_seed_has_a_difference_and_no_interval():
    found = RepeatedMeasures(runs_of(np.array([[[0.0, 1.0]], [[2.0, 1.0]]]))).contrast(
        "arm1", "arm0"
    )
    assert found.difference == 1
    assert np.isnan(found.interval(0.95).low)
    assert np.isnan(found.p_value())
    assert np.isnan(found.visible(0.95))


def test_equal_scores_have_an_interval_of_no_width():
    found = RepeatedMeasures(runs_of(np.full((3, 3, 4), 0.25))).contrast("arm1", "arm0")
    assert found.interval(0.95) == (0, 0, 0)
    assert found.p_value() == 1


def test_an_arm_kept_apart_does_not_widen_the_others():
    table = drawn(np.random.default_rng(2), arms=4, seeds=5)
    table[3] += np.random.default_rng(3).normal(0, 5, (5, 1))
    pooled = RepeatedMeasures(runs_of(table))
    apart = RepeatedMeasures(runs_of(table), apart=["arm3"])
    assert apart.contrast("arm1", "arm0").se < 0.2 * pooled.contrast("arm1", "arm0").se
    assert apart.contrast("arm3", "arm0").df == pytest.approx(4, rel=0.01)
    alone = RepeatedMeasures(runs_of(table[[0, 3]], ["arm0", "arm3"]))
    assert apart.contrast("arm3", "arm0").se == alone.contrast("arm3", "arm0").se


def test_the_interaction_counts_once():
    """d[s, p] = seed + prompt + interaction with variances .04, .09, .25 over 4 x 50."""
    random, found = np.random.default_rng(4), []
    for _ in range(400):
        change = random.normal(0, 0.5, (4, 50))
        change += random.normal(0, 0.2, (4, 1)) + random.normal(0, 0.3, (1, 50))
        within_seed = change.mean(axis=1).var(ddof=1) / 4
        found.append(within_seed + prompt_variance(change))
    assert np.mean(found) == pytest.approx(0.04 / 4 + 0.09 / 50 + 0.25 / 200, rel=0.1)


def test_a_table_without_freedom_has_no_variance():
    assert residual_variance(np.zeros((1, 5))).df == 0
    assert residual_variance(np.array([[1.0, np.nan], [np.nan, 2.0]])).df == 0
    assert residual_variance(np.empty((0, 0))).df == 0


@pytest.mark.parametrize(
    "options",
    [
        {"arms": 7, "seeds": 3},
        {"arms": 4, "seeds": 5, "prompt_sd": 0.5},
        {"arms": 3, "seeds": 2, "seed_sd": 0.0},
    ],
)
def test_coverage_of_the_difference_of_two_arms(options):
    """Nominal 95 %; 1000 draws have a standard error of .7 %."""
    random, covered = np.random.default_rng(5), []
    for _ in range(1000):
        measures = RepeatedMeasures(runs_of(drawn(random, **options)))
        limits = measures.contrast("arm2", "arm1").interval(0.95)
        covered.append(limits.low <= 0 <= limits.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)


def test_coverage_of_the_change_from_the_base():
    """Arms share the base policy's noise of each seed, half of a change's variance."""
    random, covered = np.random.default_rng(6), []
    for _ in range(1000):
        table = np.zeros((6, 3, 1))
        table[0] = random.normal(0, 0.1, (3, 1))
        table[1:] = random.normal(0, 0.1, (5, 3, 1))
        found = RepeatedMeasures(runs_of(table), base="arm0").contrast("arm1", "arm0")
        assert 2 < found.df <= 10
        limits = found.interval(0.95)
        covered.append(limits.low <= 0 <= limits.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)
