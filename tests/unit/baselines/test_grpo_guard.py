"""GRPO-Guard: the ratio and the step's weight by hand, and the arm on the tiny world."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from bpgo.core.loss import normalised_ratio, step_weight
from bpgo.core.sde import Transition, log_prob, transition


def _seen(mean: Tensor, old_mean: Tensor, log_ratio: Tensor, steps: list[int]) -> Any:
    """Stored steps with std 0.5 and h = 0.25."""
    each = torch.full((len(mean), 1), 0.5)
    return SimpleNamespace(
        step=Transition(mean, each, each, torch.ones_like(each)),
        old_mean=old_mean,
        log_ratio=log_ratio,
        points=SimpleNamespace(steps=torch.tensor(steps)),
    )


def test_ratio_by_hand() -> None:
    found = normalised_ratio(torch.tensor([0.02]), torch.tensor([0.01]), torch.tensor([[0.5]]))
    assert found.item() == pytest.approx(math.exp(0.015))


def test_what_is_left_of_the_ratio_is_the_shift_along_the_noise() -> None:
    """log r + b = mean((mu - mu_old) z) / k, whatever the shift and the std."""
    draws = torch.Generator().manual_seed(0)
    old, noise = torch.randn(2, 6, 50, generator=draws, dtype=torch.float64)
    shift = 0.3 * torch.randn(6, 50, generator=draws, dtype=torch.float64) + 0.2
    std = torch.linspace(0.1, 2.0, 6, dtype=torch.float64)[:, None]
    sample = old + std * noise
    log_ratio = log_prob(sample, old + shift, std) - log_prob(sample, old, std)
    bias = shift.square().mean(1) / (2 * std.flatten().square())
    expected = (shift * noise).mean(1).exp()
    torch.testing.assert_close(normalised_ratio(log_ratio, bias, std), expected)


@pytest.mark.parametrize("sigma", [0.9, 0.5, 0.2])
def test_weights_of_a_step(sigma: float) -> None:
    zeros, eta = torch.zeros(1, 2), 0.7
    flow = transition("flow", zeros, zeros, sigma, sigma - 0.1, eta)
    dance = transition("dance", zeros, zeros, sigma, sigma - 0.1, eta)
    assert step_weight("none", flow).item() == 1
    assert step_weight("step", flow).item() == pytest.approx(10, rel=1e-5)
    assert step_weight("velocity", flow).item() == pytest.approx(10 * (1 + eta**2 / 2), rel=1e-5)
    expected = 10 * (1 + eta**2 * (1 - sigma) / (2 * sigma))
    assert step_weight("velocity", dance).item() == pytest.approx(expected, rel=1e-5)


def test_an_unknown_weight_is_named() -> None:
    zeros = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="'squared' is unknown; known: none, step, velocity"):
        step_weight("squared", transition("dance", zeros, zeros, 0.5, 0.4, 0.3))  # type: ignore[arg-type]


def test_loss_by_hand(arm_of) -> None:
    """b = 0.2^2 / (2 * 0.25) = 0.08, r = exp(0.5 * (0.02 + 0.08)), beyond a clip range of 0.01."""
    arm = arm_of("grpo_guard", clip_range=0.01)
    mean = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    seen = _seen(mean, mean - 0.2, torch.full((2,), 0.02), [0, 0])
    found = arm.loss(seen, torch.tensor([2.0, -2.0]))
    ratio = math.exp(0.05)
    assert found.ratio.tolist() == pytest.approx([ratio, ratio])
    assert found.rows.tolist() == pytest.approx([4 * -2 * 1.01, 4 * 2 * ratio])
    assert found.clipped.tolist() == [True, True]
    assert found.scalars["mean_shift"].item() == pytest.approx(0.08)
    plain = arm_of("grpo_guard", clip_range=0.01, step_weight="none")
    assert plain.loss(seen, torch.tensor([2.0, -2.0])).rows.tolist() == pytest.approx(
        [-2 * 1.01, 2 * ratio]
    )


def test_the_released_bias_is_that_of_all_samples_at_a_step(arm_of) -> None:
    mean = torch.zeros(3, 4)
    old_mean = torch.tensor([0.2, 0.4, 0.6])[:, None].expand(3, 4)
    seen = _seen(mean, old_mean, torch.zeros(3), [1, 5, 1])
    own = arm_of("grpo_guard").loss(seen, torch.ones(3)).ratio.log() / 0.5
    shared = arm_of("grpo_guard", mean_shift="batch").loss(seen, torch.ones(3)).ratio.log() / 0.5
    assert own.tolist() == pytest.approx([0.08, 0.32, 0.72], rel=1e-4)
    assert shared.tolist() == pytest.approx([0.4, 0.32, 0.4], rel=1e-4)


def test_the_first_gradient_is_that_of_grpo_scaled_by_the_step(arm_of) -> None:
    """At ratio 1 the bias has no gradient: k / h times GRPO's."""
    draws = torch.Generator().manual_seed(1)
    latents, noise, velocity = torch.randn(3, 4, 8, generator=draws, dtype=torch.float64)
    gradients = []
    for name in ("grpo_guard", "grpo"):
        arm = arm_of(name)
        leaf = velocity.clone().requires_grad_()
        moved = transition("flow", leaf, latents, 0.6, 0.4, 0.7)
        sample = moved.sample(noise).detach()
        new = log_prob(sample, moved.mean, moved.std)
        seen: Any = SimpleNamespace(
            step=moved,
            old_mean=moved.mean.detach(),
            log_ratio=new - new.detach(),
            ratio=(new - new.detach()).exp(),
            points=SimpleNamespace(steps=torch.zeros(4, dtype=torch.long)),
        )
        arm.loss(seen, torch.tensor([1.0, -2.0, 0.5, 3.0])).rows.sum().backward()
        gradients.append(leaf.grad)
    scale = 0.7 * math.sqrt(0.6 / 0.4) * math.sqrt(0.2) / 0.2
    torch.testing.assert_close(gradients[0], scale * gradients[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": "cps"},
        {"mean_shift": "group"},
        {"step_weight": "std"},
        {"clip_range": 0},
        {"decay_type": 1},
    ],
)
def test_values_out_of_range_are_refused(arm_of, changes: dict) -> None:
    with pytest.raises(ValidationError):
        arm_of("grpo_guard", **changes)


@pytest.mark.parametrize(
    "changes", [{}, {"mean_shift": "batch"}, {"kernel": "dance", "step_weight": "velocity"}]
)
def test_first_ratios_are_exactly_one_and_the_weights_move(
    make, tmp_path: Path, changes: dict
) -> None:
    trainer = make("grpo_guard", tmp_path, arm_changes=changes)
    before = {name: value.clone() for name, value in trainer.parameters.items()}
    entry = trainer.iterate(1)
    assert entry["ratio_deviation"] == 0.0
    assert entry["first_clip_fraction"] == 0.0
    assert entry["mean_shift"] > 0  # the second optimizer step sees another policy
    assert entry["gradient_norm"] > 0
    assert any(not torch.equal(before[name], value) for name, value in trainer.parameters.items())


def test_a_run_is_resumed_to_the_bit(assert_resumes) -> None:
    assert_resumes("grpo_guard")
