"""CRT: values, and every rule outside the comfortable range."""

from __future__ import annotations

import math

import pytest
import torch

from bpgo.trust.crt import paper_exp, released_sigmoid

PRIOR = torch.tensor([0.5], dtype=torch.float64)


def _row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_paper_values_and_the_strict_inequality() -> None:
    found = paper_exp(_row(0.5, 0.7, 0.2), PRIOR, lambda_=2.0)
    expected = [0.0, 1.4 * math.exp(0.7), -0.6 * math.exp(0.2)]
    assert found.rewards[0].tolist() == pytest.approx(expected)
    assert found[1:] == (0, 0, 0)


def test_far_below_the_prior_the_paper_turns_round_and_says_so() -> None:
    rewards = _row(-0.5, -1.5, -4.0)  # the turning point is prior - 1 = -0.5
    found = paper_exp(rewards, PRIOR, lambda_=1.0)
    assert found.rewards[0, 0] < found.rewards[0, 1] < found.rewards[0, 2] < 0
    assert found.non_monotone == 2
    floored = paper_exp(rewards, PRIOR, lambda_=1.0, below_prior="floor")
    assert floored.rewards[0].tolist() == pytest.approx([-math.exp(-0.5)] * 3)
    assert (floored.non_monotone, floored.floored) == (0, 2)


def test_without_contrast_nothing_turns() -> None:
    found = paper_exp(_row(-4.0, 0.6), PRIOR, lambda_=0.0, below_prior="floor")
    assert found.rewards[0].tolist() == pytest.approx([0.0, math.exp(0.6)])
    assert (found.non_monotone, found.floored) == (0, 0)


def test_the_exponent_is_held_and_counted() -> None:
    found = paper_exp(_row(29.0, 31.0, 2000.0), PRIOR, lambda_=1.0)
    assert found.rewards.isfinite().all()
    assert found.clamped == 2
    assert found.rewards[0, 0] < found.rewards[0, 1] < found.rewards[0, 2]


def test_released_values() -> None:
    found = released_sigmoid(_row(0.7, 0.5), PRIOR, a=50.0, tau=5.0)
    expected = (50 * 0.2 + 1) / (1 + math.exp(-0.14)) * 0.7
    assert found.rewards[0].tolist() == pytest.approx([expected, 0.0])


def test_released_form_turns_negative_rewards_round_and_says_so() -> None:
    found = released_sigmoid(_row(-2.0, -1.0), PRIOR, a=50.0, tau=5.0)
    assert found.rewards[0, 0] > found.rewards[0, 1] > 0
    assert found.non_monotone == 2


def test_released_form_falls_below_half_the_prior() -> None:
    prior = torch.tensor([3.0], dtype=torch.float64)
    rewards = _row(0.2, 0.8, 2.5, 2.9)
    found = released_sigmoid(rewards, prior, a=50.0, tau=5.0)
    assert found.rewards[0, 0] > found.rewards[0, 1]
    assert found.rewards[0, 2] < found.rewards[0, 3]
    assert found.non_monotone == 2


@pytest.mark.parametrize("value", [-3.0, 0.1, 1.4, 2.6, 3.5])
def test_released_count_agrees_with_the_slope(value: float) -> None:
    prior = torch.tensor([3.0], dtype=torch.float64)
    pair = released_sigmoid(_row(value, value + 1e-6), prior, 50.0, 5.0).rewards[0]
    falls = bool(pair[1] < pair[0])
    assert released_sigmoid(_row(value), prior, 50.0, 5.0).non_monotone == int(falls)


def test_released_exponent_is_held() -> None:
    found = released_sigmoid(_row(-1000.0, 1000.0), PRIOR, a=1.0, tau=0.1)
    assert found.rewards.isfinite().all()
    assert found.clamped == 2
