"""A run's final scores are means over its last policies, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from bpgo.analysis.statistics.convergence import first_reach, oscillation
from bpgo.analysis.statistics.data import Scores
from bpgo.analysis.statistics.final import gains, paired_with_base
from bpgo.errors import UserError


def scores(stages: int, curve: int = 2) -> Scores:
    """Two arms and the base, one seed, stages 5 to 20, two prompts; prompt 1 scores 10 more."""
    cube = np.full((3, 1, 5, 1, 2, 1), np.nan)
    cube[0, 0, 0, 0, :, 0] = [1, 11]
    for arm, course in enumerate(([2, 3, 4, 8], [1, 1, 1, 1]), start=1):
        for place, value in enumerate(course, start=1):
            prompts = 2 if place == 4 else curve
            cube[arm, 0, place, 0, :prompts, 0] = np.array([value, value + 10])[:prompts]
    names = ["base", "grpo", "bpgo"]
    return Scores("ambiguous", names, [1], [0, 5, 10, 15, 20], ["oracle"], ["a", "b"], cube, stages)


@pytest.mark.parametrize(("stages", "expected"), [(1, 8), (2, 6), (3, 5)])
def test_the_mean_over_the_last_policies(stages, expected):
    values = scores(stages).values("grpo", "oracle", [1])
    np.testing.assert_allclose(values[0, :, 0], [expected, expected + 10])
    assert scores(stages).values("grpo", "oracle", [1], 20)[0, 0, 0] == 8, "one policy's own"
    assert scores(stages).values("base", "oracle", [1])[0, 0, 0] == 1


def test_gains_at_the_end_are_those_of_final_scores():
    settings = synthetic.make_settings(**synthetic.SMALL)
    table = gains(settings, scores(3)).set_index(["arm", "prompts", "iteration"])["gain"]
    assert table["grpo", "all", 20] == pytest.approx(4)
    assert table["grpo", "curve", 20] == pytest.approx(7)
    pair = paired_with_base(scores(2), "grpo", "oracle", 20, all_prompts=True)
    assert pair is not None
    assert (pair[1] - pair[2]).mean() == pytest.approx(5)


def test_snapshots_that_are_scored_on_some_prompts_alone_are_refused():
    assert scores(1, curve=1).values("grpo", "oracle", [1])[0, 0, 0] == 8
    with pytest.raises(UserError, match="at iteration 15, 20 by oracle: 1 of 2 samples"):
        scores(2, curve=1).values("grpo", "oracle", [1])


def test_first_reach_lies_between_snapshots():
    steps, course = np.array([0.0, 10, 20, 30]), np.array([0.0, 1, 3, 2])
    assert first_reach(steps, course, 2) == 15
    assert first_reach(steps, course, 1) == 10
    assert first_reach(steps, course, 0) == 0
    assert np.isnan(first_reach(steps, course, 3.5))


def test_oscillation_is_the_swing_and_not_the_bend():
    steps = np.arange(40.0)
    assert oscillation(3 * steps - 0.05 * steps**2) == pytest.approx(0, abs=1e-9)
    swing = np.random.default_rng(1).normal(0, 0.3, 4000)
    assert oscillation(swing) == pytest.approx(0.3, rel=0.05)
    assert np.isnan(oscillation(np.zeros(3)))
