"""Ratio, surrogate and KL forms."""

from __future__ import annotations

import pytest
import torch

from bpgo.core.loss import clipped_surrogate, kl, outside, ratio
from bpgo.core.sde import transition


def test_ratio_of_equal_log_probs_is_exactly_one() -> None:
    log_prob = torch.randn(8)
    assert torch.equal(ratio(log_prob, log_prob.clone()), torch.ones(8))


@pytest.mark.parametrize(
    ("ratio_now", "advantage", "loss", "moves"),
    [
        (1.0, 2.0, -2.0, True),
        (1.5, 2.0, -2.2, False),  # already better than the clip allows: no more gain
        (0.5, 2.0, -1.0, True),
        (0.5, -2.0, 1.8, False),
        (1.5, -2.0, 3.0, True),
    ],
)
def test_surrogate_is_pessimistic(
    ratio_now: float, advantage: float, loss: float, moves: bool
) -> None:
    value = torch.tensor([ratio_now], requires_grad=True)
    found = clipped_surrogate(value, torch.tensor([advantage]), 0.1)
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert bool(value.grad.item()) is moves


def test_a_nonnegative_weight_goes_through_the_surrogate() -> None:
    ratios = torch.rand(64) * 0.02 + 0.99
    advantages = torch.randn(64)
    weighted = clipped_surrogate(ratios, 0.7 * advantages, 1e-3)
    torch.testing.assert_close(weighted, 0.7 * clipped_surrogate(ratios, advantages, 1e-3))


def test_outside_the_clip_range() -> None:
    found = outside(torch.tensor([0.5, 1.0, 1.05, 1.5]), 0.1)
    assert found.tolist() == [True, False, False, True]


def test_kl_forms() -> None:
    generator = torch.Generator().manual_seed(0)
    velocity, reference, latents = torch.randn(3, 5, 2, 4, generator=generator)
    moved = transition("flow", velocity, latents, 0.8, 0.7, 0.7)
    mean = transition("flow", reference, latents, 0.8, 0.7, 0.7).mean
    normal = torch.distributions.Normal
    std = moved.std.expand_as(mean)
    exact = torch.distributions.kl_divergence(normal(moved.mean, std), normal(mean, std))
    gaussian = kl("gaussian", moved, mean)
    torch.testing.assert_close(gaussian, exact.flatten(1).mean(1))
    torch.testing.assert_close(kl("flow_grpo", moved, mean), gaussian * 0.1)
    expected = (velocity - reference).square().flatten(1).mean(1)
    torch.testing.assert_close(kl("velocity", moved, mean), expected, rtol=1e-4, atol=1e-6)
    squared = (moved.mean - mean).square().flatten(1).mean(1)
    assert torch.equal(kl("mean", moved, mean), squared)
    assert not kl("gaussian", moved, moved.mean).any()
    with pytest.raises(ValueError, match="kl form 'mse' is unknown"):
        kl("mse", moved, mean)  # type: ignore[arg-type]
