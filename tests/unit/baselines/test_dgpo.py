"""DGPO: groups by hand, the mask, the shared noise, and a run."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from baselines.dgpo import FAST
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import BASE
from bpgo.records import Passes
from bpgo.seeding import generator

SIZES = RolloutSettings(prompts_per_iteration=2, group_size=3, steps=10)
GROUP = 2


def _seen(velocity: Tensor, fast: Tensor, base: Tensor) -> Any:
    """One latent number a row: sample 1 and noise 3, so 2 is the right velocity."""
    ones = torch.ones(len(velocity), 1, dtype=velocity.dtype)
    return SimpleNamespace(
        velocity=velocity,
        others={FAST: fast, BASE: base},
        sample=ones,
        noise=3 * ones,
        by_group=lambda values: values.view(-1, GROUP),
    )


def _column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_loss_by_hand(arm_of) -> None:
    """d = 1, 4, 1, 4 and d_ref = 4: gains A (d - d_ref) of -3, 0 | 3, 0, weighed by their mean."""
    seen = _seen(_column(1, 0, 3, 4), _column(1, 0, 3, 4), _column(0, 4, 0, 4))
    arm = arm_of("dgpo", beta=2.0)
    found = arm.loss(seen, torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
    low, high = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))
    assert found.rows.tolist() == pytest.approx([low, -4 * low, -high, 4 * high])
    assert found.ratio is None
    assert not found.clipped.any()


def test_a_group_that_is_right_already_weighs_less(arm_of) -> None:
    """The weight has no gradient of its own."""
    velocity = _column(2, 0, 0, 2).requires_grad_()
    base = _column(1, 1, 1, 1)
    seen = _seen(velocity, velocity.detach(), base)
    wanted = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    found = arm_of("dgpo").loss(seen, wanted)
    right, wrong = found.rows.detach()[1] / -4, found.rows.detach()[2] / 4
    assert right < 0.5 < wrong
    (gradient,) = torch.autograd.grad(found.rows.sum(), velocity)
    assert gradient[1].item() == pytest.approx(float(-right) * 2 * (0 - 2))


@pytest.mark.parametrize(
    ("advantage", "velocity", "masked"),
    [
        (1.0, 2.0, True),  # wanted, and a better match than the fast average's
        (1.0, 0.0, False),  # wanted, and worse
        (-1.0, 0.0, True),
        (-1.0, 2.0, False),
        (0.0, 0.0, True),  # counts as unwanted, as released
    ],
)
def test_a_masked_sample_keeps_its_value_and_no_gradient(
    arm_of, advantage: float, velocity: float, masked: bool
) -> None:
    now = _column(velocity, velocity).requires_grad_()
    fast = _column(1, 1)  # d_fast = 1
    wanted = torch.full((2,), advantage, dtype=torch.float64)
    plain = arm_of("dgpo", mask_range=None).loss(_seen(now, fast, fast), wanted)
    found = arm_of("dgpo", mask_range=0.05).loss(_seen(now, fast, fast), wanted)
    assert torch.equal(found.rows, plain.rows)
    assert (found.clipped == masked).all()
    assert not plain.clipped.any()
    (gradient,) = torch.autograd.grad(found.rows.sum(), now)
    (expected,) = torch.autograd.grad(plain.rows.sum(), now)
    assert torch.equal(gradient, expected * (not masked))


def test_the_samples_of_a_group_are_noised_alike(make, tmp_path: Path) -> None:
    trainer = make("dgpo", tmp_path)
    seen_noise: list[Tensor] = []
    loss = trainer.arm.loss

    def watch(seen: Any, advantage: Tensor) -> Any:
        group = seen.points.group_size
        assert (
            seen.points.rows.view(-1, group) // group == seen.points.rows[::group, None] // group
        ).all()
        assert (seen.sigma.view(-1, group) == seen.sigma[::group, None]).all()
        noise = seen.noise.unflatten(0, (-1, group))
        assert (noise == noise[:, :1]).all()
        seen_noise.extend(noise[:, 0])
        return loss(seen, advantage)

    trainer.arm.loss = watch
    trainer.iterate(1)
    assert len({tuple(each.flatten().tolist()) for each in seen_noise}) == len(seen_noise)


def test_levels_are_of_the_noisy_part_and_shared(arm_of) -> None:
    seen = set()
    for iteration in range(30):
        trained = arm_of("dgpo").plan(SIZES, iteration, generator(iteration)).trained
        assert trained.shape == (6, 4)
        assert (trained == trained[0]).all()
        assert len(set(trained[0].tolist())) == 4
        seen |= set(trained[0].tolist())
    assert seen == set(range(7))


def test_passes(arm_of) -> None:
    assert arm_of("dgpo").passes(SIZES) == Passes(10, 4, 8)
    assert arm_of("dgpo", kl_weight=0.0).others() == [FAST, BASE]
    assert arm_of("dgpo", kl_weight=0.0, reference="fast").others() == [FAST]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shared_initial_noise": True}, "one sample G times"),
        ({"beta": 0}, "beta"),
        ({"reference": "old"}, "reference"),
        ({"mask_range": 0}, "mask_range"),
        ({"kernel": "flow"}, "kernel"),
        ({"clip_range": 0.01}, "clip_range"),
    ],
)
def test_what_the_settings_refuse(arm_of, changes: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        arm_of("dgpo", **changes)


def test_the_fast_average_draws_and_follows_each_optimizer_step(make, tmp_path: Path) -> None:
    """Its second optimizer step is the first at which it keeps 0.001 of itself."""
    trainer = make("dgpo", tmp_path)
    trainer.iterate(1)
    assert trainer.averages[FAST].steps == 2
    plain = {name: value.detach().clone() for name, value in trainer.parameters.items()}
    with trainer._drawing():
        drawn = {name: value.detach().clone() for name, value in trainer.parameters.items()}
    assert any(not torch.equal(drawn[name], plain[name]) for name in plain)
    for name in plain:
        torch.testing.assert_close(drawn[name], plain[name], rtol=0, atol=1e-4)


def test_a_run_is_resumed_to_the_bit(assert_resumes) -> None:
    assert_resumes("dgpo")
