"""RAS weights, paper and released."""

from __future__ import annotations

import math

import pytest
import torch

from bpgo.trust.ras import bayes_reliability, released_scale, sigmoid_weight

PRIOR = torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64)


def test_sigmoid_weight_at_known_points() -> None:
    mean = torch.tensor([0.5, 100.0, -100.0], dtype=torch.float64)
    assert sigmoid_weight(mean, PRIOR, 0.4, 2.0).tolist() == pytest.approx([1.0, 1.4, 0.6])


def test_no_prior_weighs_one() -> None:
    prior = torch.tensor([math.nan], dtype=torch.float64)
    rewards = torch.randn(1, 8).double()
    assert sigmoid_weight(rewards.mean(1), prior, 0.5, 2.0).item() == 1
    assert bayes_reliability(rewards, prior, 1.0, (0.5, 1.5)).item() == 1


def test_bayes_is_the_posterior_probability() -> None:
    rewards = torch.randn(1, 8, generator=torch.Generator().manual_seed(0)).double() * 0.3 + 0.55
    variance = rewards.var().item() + 1e-8
    posterior_variance = 1 / (8 / variance + 1 / 2.0)
    posterior_mean = posterior_variance * (8 * rewards.mean().item() / variance + 0.5 / 2.0)
    better = 0.5 * (1 + math.erf((posterior_mean - 0.5) / math.sqrt(2 * posterior_variance)))
    found = bayes_reliability(rewards, PRIOR[:1], 2.0, (0.2, 1.2)).item()
    assert found == pytest.approx(0.2 + better)


def test_bayes_of_one_sample_uses_unit_variance() -> None:
    found = bayes_reliability(torch.tensor([[0.5]]).double(), PRIOR[:1], 1.0, (0.5, 1.5))
    assert found.item() == pytest.approx(1.0)


def test_released_scale_is_kept_in_its_range() -> None:
    reliability = torch.tensor([0.5, 1.0, 1.5])
    assert released_scale(reliability, 1.0).tolist() == [0.5, 1.0, 1.5]
    assert released_scale(reliability, 0.0).tolist() == [1.0, 1.0, 1.0]
    assert released_scale(reliability, 100.0).tolist() == pytest.approx([0.01, 1.0, 10.0])
