"""Seeds that a difference needs, against power by the noncentral t and known variances."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bpgo.analysis.statistics.power import Variance, _merit, power
from bpgo.analysis.statistics.repeated import RepeatedMeasures
from bpgo.errors import UserError


@pytest.mark.parametrize(
    ("variance", "effect", "seeds"),
    [(0.0318, 0.1, 27), (0.0318, 0.05, 102), (0.0039, 0.1, 6), (0.0726, 0.1, 59)],
)
def test_seeds_of_one_pair(variance, effect, seeds):
    """A paired t test at 5 % with 80 % power; the normal formula asks for two seeds fewer."""
    assert Variance(variance, 0.0, 1.0).seeds(effect, 0.95) == seeds
    normal = (1.95996 + 0.84162) ** 2 * variance / effect**2
    assert 0 < seeds - normal < 4


def test_more_arms_need_fewer_seeds_and_a_whole_table_more():
    alone, pooled = Variance(0.03, 0.0, 1.0), Variance(0.03, 0.0, 6.0)
    seeds = pooled.seeds(0.15, 0.95)
    assert seeds < alone.seeds(0.15, 0.95)
    assert seeds < pooled.seeds(0.15, 0.95, 6)
    assert pooled.visible(int(seeds), 0.95) <= 0.15 < pooled.visible(int(seeds) - 1, 0.95)


def test_no_number_of_seeds_replaces_prompts():
    assert Variance(0.03, 0.01, 6.0).seeds(0.15, 0.95) == math.inf


def test_the_power_is_what_was_promised():
    """Five arms at the number of seeds asked for: 80 % of effects are found."""
    random, effect = np.random.default_rng(0), 0.15
    seeds = int(Variance(2 * 0.01, 0.0, 4.0).seeds(effect, 0.95))
    smallest = Variance(2 * 0.01, 0.0, 4.0).visible(seeds, 0.95)
    found = []
    for _ in range(1500):
        table = random.normal(0, 0.1, (5, seeds, 1))
        table[1] += smallest
        runs = {f"arm{k}": dict(enumerate(rows)) for k, rows in enumerate(table)}
        found.append(RepeatedMeasures(runs).contrast("arm1", "arm0").interval(0.95).low > 0)
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_the_pilots_variances_come_back(frames):
    """The training reward's runs vary by .03 a seed around their arm, so differences by .0018."""
    rows = frames["power"].set_index(["experiment", "reward", "contrast"])
    row = rows.loc["ambiguous", "scenes_ambiguous_a", "arms"]
    assert row["n_seeds"] == 3
    assert row["df"] > 8
    raw = (
        row["variance"]
        * frames["final"].set_index(["experiment", "arm", "reward"])["base_sd"][
            "ambiguous", "grpo", "scenes_ambiguous_a"
        ]
        ** 2
    )
    expected = 2 * (0.03**2 + 0.3**2 / 128)
    assert raw == pytest.approx(expected, rel=0.6)
    assert row["seeds"] <= row["seeds_table"]
    assert row["seeds"] <= row["seeds_cautious"]


@pytest.mark.parametrize("effect", [0.0, -1.0, math.nan])
def test_an_effect_that_is_none_is_refused(settings, effect):
    with pytest.raises(UserError, match="must be a positive number"):
        power(settings, None, effect)


def test_the_figure_of_merit_is_the_oracles_gain_over_what_seeds_do():
    random = np.random.default_rng(0)
    arms = {"base": 0.0, "oracle_reward": 0.3, "grpo": 0.1, "bpgo": 0.1}
    runs = {
        arm: {seed: np.full(4, gain + random.normal(0, 0.01)) for seed in range(200)}
        for arm, gain in arms.items()
    }
    measures = RepeatedMeasures(runs, "base")
    variance = measures.seed_variance("grpo", "bpgo").value
    assert _merit(measures, variance) == pytest.approx(0.3 / (0.01 * math.sqrt(2)), rel=0.1)
    del runs["oracle_reward"]
    assert math.isnan(_merit(RepeatedMeasures(runs, "base"), variance))
