"""Efficiency and AUROC of trust rules, against answers known without the code."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from bpgo.analysis.statistics.efficiency import AreaUnderCurve, efficiency, track_statistics
from bpgo.config.declared import AnalysisSettings
from bpgo.errors import UserError

OPTIONS = AnalysisSettings(main_metric="oracle", bootstrap_samples=400)
NOTE = {"experiment": "world", "source": "base", "rule": "mine", "lacks": "", "note": ""}


def rows(weight, gain, gamma=None, prompts=None) -> pd.DataFrame:
    """Groups whose advantages have length 1, and a rule that gives them weights."""
    weight, gain = np.asarray(weight, float), np.asarray(gain, float)
    count = len(weight)
    names = np.arange(count) if prompts is None else np.asarray(prompts)
    return pd.DataFrame(
        {
            "experiment": "world",
            "source": "base",
            "rule": "mine",
            "prompt_id": [f"p{name}" for name in names],
            "weight": weight,
            "gain": weight * gain,
            "square": weight**2,
            "plain_gain": gain,
            "plain_square": 1.0,
            "gamma": np.sign(gain) if gamma is None else gamma,
        }
    )


def figures(table: pd.DataFrame) -> pd.Series:
    return track_statistics(table, [NOTE], OPTIONS).iloc[0]


def test_efficiency_by_hand() -> None:
    # u = 3, 1; w = 1, 0: E[wu] = 1.5, sqrt(E[ww]) = .7071, E[u] = 2.
    assert figures(rows([1, 0], [3, 1])).efficiency == pytest.approx(1.5 / np.sqrt(0.5) / 2)


def test_weights_proportional_to_the_gain_are_best() -> None:
    """Cauchy and Schwarz: no weights beat w = u, whose efficiency is sqrt(E[uu]) / E[u]."""
    random = np.random.default_rng(0)
    gain = random.normal(0.3, 1, 300)
    best = figures(rows(gain, gain)).efficiency
    assert best == pytest.approx(np.sqrt((gain**2).mean()) / gain.mean())
    for _ in range(20):
        assert figures(rows(random.random(300), gain)).efficiency < best


def test_the_scale_of_weights_does_not_count() -> None:
    random = np.random.default_rng(1)
    weight, gain = random.random(50), random.normal(0.5, 1, 50)
    first, second = (figures(rows(scale * weight, gain)) for scale in (1, 7))
    names = [name for name in first.index if name.startswith(("efficiency", "auroc"))]
    assert len(names) == 6
    for name in names:
        assert first[name] == pytest.approx(second[name])


def test_equal_weights_are_one_and_tell_nothing() -> None:
    found = figures(rows(np.full(40, 0.7), np.random.default_rng(2).normal(0.5, 1, 40)))
    assert found.efficiency == pytest.approx(1)
    assert found.efficiency_low == pytest.approx(found.efficiency_high) == pytest.approx(1)
    assert np.isnan(found.auroc)


def test_auroc_is_that_of_mann_and_whitney() -> None:
    random = np.random.default_rng(3)
    weight = random.integers(0, 6, 80).astype(float)  # with ties
    right = random.random(80) < 0.3 + 0.08 * weight
    statistic = mannwhitneyu(weight[right], weight[~right]).statistic
    found = figures(rows(weight, np.ones(80), np.where(right, 0.5, -0.5)))
    assert found.auroc == pytest.approx(statistic / right.sum() / (~right).sum())
    assert found.n_right == right.sum()
    assert found.n_wrong == 80 - right.sum()
    assert found.auroc_low < found.auroc < found.auroc_high


def test_counted_groups_are_repeated_groups() -> None:
    random = np.random.default_rng(4)
    weight, right = random.random(12), random.random(12) < 0.5
    counts = random.integers(0, 4, (5, 12)).astype(float)
    found = AreaUnderCurve(weight, right)(counts)
    for row, count in zip(found, counts.astype(int), strict=True):
        repeated, kinds = np.repeat(weight, count), np.repeat(right, count)
        pairs = [np.sign(a - b) for a in repeated[kinds] for b in repeated[~kinds]]
        assert row == pytest.approx((np.mean(pairs) + 1) / 2)


def test_groups_without_an_order_tell_nothing() -> None:
    found = figures(rows([1, 2, 9, 3], [1, 1, 1, 1], [-1, 1, np.nan, 0]))
    assert (found.n_right, found.n_wrong, found.n_groups) == (1, 2, 4)
    assert found.auroc == 0.5, "above -1's weight, below 0's"


def test_prompts_are_the_units() -> None:
    """The same groups again under their prompts' names add nothing."""
    random = np.random.default_rng(5)
    weight, gain = random.random(60), random.normal(0.3, 1, 60)
    once = figures(rows(weight, gain))
    prompts = np.tile(np.arange(60), 3)
    again = figures(rows(np.tile(weight, 3), np.tile(gain, 3), prompts=prompts))
    own = figures(rows(np.tile(weight, 3), np.tile(gain, 3)))
    for name in ("efficiency", "auroc"):
        width = {
            key: found[f"{name}_high"] - found[f"{name}_low"]
            for key, found in {"once": once, "again": again, "own": own}.items()
        }
        assert width["again"] == pytest.approx(width["once"])
        assert width["own"] < 0.75 * width["once"]


def test_the_interval_covers() -> None:
    """Groups of a known distribution: w uniform on [0, 2], u = w - .6 + noise."""
    truth = (4 / 3 - 0.6) / np.sqrt(4 / 3) / 0.4
    random, covered = np.random.default_rng(6), 0
    for _ in range(150):
        weight = random.uniform(0, 2, 250)
        found = figures(rows(weight, weight - 0.6 + random.normal(0, 1, 250)))
        covered += found.efficiency_low <= truth <= found.efficiency_high
    assert covered >= 0.9 * 150


def test_a_rule_without_rows_is_listed_with_its_reason() -> None:
    notes = [NOTE, {**NOTE, "rule": "other", "lacks": "needs the reward 'gold'"}]
    found = track_statistics(rows([1, 2], [1, 1]), notes, OPTIONS)
    assert list(found.rule) == ["mine", "other"]
    assert np.isnan(found.efficiency[1])
    assert found.lacks[1] == "needs the reward 'gold'"


def test_one_prompt_has_no_interval() -> None:
    with pytest.raises(UserError, match="groups of one prompt say nothing about others"):
        figures(rows([1, 2], [1, 1], prompts=[0, 0]))


def test_an_update_of_no_length_has_no_efficiency() -> None:
    assert np.isnan(efficiency(np.array([[0.0, 0.0, 1.0, 1.0]]))).all()
