"""Flow-DPPO: its mask by hand, its steps with noise, and a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import idle_settings
from bpgo.core.sde import Transition
from bpgo.errors import UserError
from bpgo.records import Passes
from bpgo.seeding import generator

SIZES = RolloutSettings(prompts_per_iteration=2, group_size=3, steps=10)


@pytest.mark.parametrize(
    ("advantage", "ratio", "shift", "masked"),
    [
        (1.0, 1.1, 0.2, True),  # 0.2^2 / (2 * 0.5^2) = 0.08 is the threshold itself
        (1.0, 1.1, 0.1999, False),
        (1.0, 0.9, 9.0, False),  # back towards the policy that drew
        (-1.0, 0.9, 9.0, True),
        (-1.0, 1.1, 9.0, False),
        (0.0, 1.1, 9.0, False),
    ],
)
def test_mask_by_hand(arm_of, advantage: float, ratio: float, shift: float, masked: bool) -> None:
    half = torch.full((1, 1), 0.5, dtype=torch.float64)
    new = torch.tensor([ratio], dtype=torch.float64, requires_grad=True)
    seen: Any = SimpleNamespace(
        step=Transition(half + shift, half, half, half), old_mean=half, ratio=new
    )
    exact = float((half + shift - half).square() / (2 * 0.25)) if shift == 0.2 else 0.08
    arm = arm_of("flow_dppo", mask_threshold=exact)
    found = arm.loss(seen, torch.tensor([advantage], dtype=torch.float64))
    assert found.rows.item() == pytest.approx(0.0 if masked else -advantage * ratio)
    assert found.clipped.item() == masked
    (gradient,) = torch.autograd.grad(found.rows.sum(), new)
    assert gradient.item() == (0.0 if masked else -advantage)


def test_steps_are_drawn_anew_from_the_first_half(arm_of) -> None:
    arm, seen = arm_of("flow_dppo"), set()
    for iteration in range(1, 40):
        plan = arm.plan(SIZES, iteration, generator(iteration))
        steps = plan.trained[0].tolist()
        assert steps == sorted(set(steps))
        assert len(steps) == 3
        assert (plan.trained == plan.trained[0]).all()
        assert plan.stochastic[0].nonzero().flatten().tolist() == steps
        assert (plan.stochastic == plan.stochastic[0]).all()
        seen.add(tuple(steps))
    assert set(sum(seen, ())) == set(range(5))
    assert len(seen) > 5


def test_passes(arm_of) -> None:
    assert arm_of("flow_dppo").passes(SIZES) == Passes(10, 3)
    assert arm_of("flow_dppo", kl_weight=0.1).passes(SIZES) == Passes(10, 3, 3)


def test_more_steps_than_there_are_is_refused(arm_of) -> None:
    with pytest.raises(UserError, match=r"noisy_steps: 6 is more than the 5 steps"):
        arm_of("flow_dppo", noisy_steps=6).check(SIZES)
    late = arm_of("flow_dppo", noisy_steps=10, noisy_fraction=1.0)
    with pytest.raises(UserError, match=r"10 is more than the 9 steps .* without the last 1"):
        late.check(SIZES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip_range": 1e-3}, "clip_range"),
        ({"trained_fraction": 0.6}, "trained_fraction"),
        ({"mask_threshold": 0}, "mask_threshold"),
        ({"noisy_fraction": 1.5}, "noisy_fraction"),
    ],
)
def test_what_the_settings_refuse(arm_of, changes: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        arm_of("flow_dppo", **changes)


def test_nothing_is_masked_before_the_first_optimizer_step(make, tmp_path: Path) -> None:
    """And with one an iteration the run says that the mask cannot act."""
    steps = {"optimizer_steps": 1}
    rollout = {"steps": 8}
    trainer = make("flow_dppo", tmp_path / "one", training=steps, rollout=rollout)
    assert trainer.iterate(1)["clip_fraction"] == 0.0
    assert any("mask_threshold 1e-05 cannot act" in line for line in idle_settings(trainer.arm, 1))
    assert idle_settings(trainer.arm, 2) == []


def test_a_run_is_resumed_to_the_bit(assert_resumes) -> None:
    assert_resumes("flow_dppo", rollout={"steps": 8})
