"""DiffusionNFT: the two sides by hand, the lagging policy, the noise levels, and a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from advantages import PLAIN
from pydantic import ValidationError
from torch import Tensor

from baselines.diffusion_nft import OLD, sides
from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import BASE
from bpgo.errors import UserError
from bpgo.records import Passes
from bpgo.seeding import generator

SIZES = RolloutSettings(prompts_per_iteration=2, group_size=3, steps=10)


def _seen(velocity: Tensor, old: Tensor, base: Tensor | None = None) -> Any:
    """One latent number a row: sample 1 and noise 3 at level 0.5, so x_t = 2, and 2 is right."""
    ones = torch.ones(len(velocity), 1, dtype=velocity.dtype)
    return SimpleNamespace(
        velocity=velocity,
        others={OLD: old, BASE: old if base is None else base},
        sample=ones,
        latents=2 * ones,
        sigma=torch.full((len(velocity),), 0.5),
    )


def test_sides_by_hand() -> None:
    """v+ = 1 misses the sample by 0.5 and v- = 2.5 by -0.25; each is divided by its own size."""
    seen = _seen(torch.tensor([[1.0]]), torch.tensor([[1.75]]))
    towards, away = sides(seen, beta=1.0)
    assert (towards.item(), away.item()) == (0.5, 0.25)
    near, far = sides(seen, beta=0.5)  # v+ = 1.375, v- = 2.125
    assert (near.item(), far.item()) == (0.3125, 0.0625)


def test_loss_by_hand(arm_of) -> None:
    seen = _seen(torch.full((4, 1), 1.0), torch.full((4, 1), 1.75))
    advantage = torch.tensor([5.0, 1.0, 0.0, -5.0])  # r = 1, 0.6, 0.5, 0
    found = arm_of("diffusion_nft", beta=1.0).loss(seen, advantage)
    assert found.rows.tolist() == pytest.approx([2.5, 5 * (0.3 + 0.1), 5 * 0.375, 1.25])
    assert found.ratio is None
    half = arm_of("diffusion_nft", beta=0.5).loss(seen, advantage)
    assert half.rows[0].item() == pytest.approx(5 * 0.3125 / 0.5)
    regulariser = arm_of("diffusion_nft").regulariser(
        _seen(torch.tensor([[1.0]]), torch.tensor([[9.0]]), torch.tensor([[3.0]]))
    )
    assert regulariser.item() == 4.0


def test_advantages_beyond_the_largest_count_as_it(arm_of) -> None:
    found = arm_of("diffusion_nft").settings.wanted(torch.tensor([-9.0, -5.0, 0.0, 2.5, 5.0, 9.0]))
    assert found.tolist() == [0.0, 0.0, 0.5, 0.75, 1.0, 1.0]


def test_gradient_at_the_lagging_policy(arm_of) -> None:
    """None at A = 0; towards the sample above it, away below, as far apart from 0."""
    velocity = torch.full((3, 1), 1.0, dtype=torch.float64, requires_grad=True)
    seen = _seen(velocity, velocity.detach())
    arm_of("diffusion_nft").loss(
        seen, torch.tensor([0.0, 2.0, -2.0], dtype=torch.float64)
    ).rows.sum().backward()
    assert velocity.grad is not None
    still, up, down = velocity.grad.flatten().tolist()
    assert still == 0.0
    assert up < 0 < down  # the right velocity, 2, lies above 1
    assert up == pytest.approx(-down)


@pytest.mark.parametrize(
    ("decay_type", "expected"),
    [
        (0, {0: 0.0, 1: 0.0, 1000: 0.0}),
        (1, {0: 0.0, 1: 0.001, 200: 0.2, 500: 0.5, 5000: 0.5}),
        (2, {0: 0.0, 75: 0.0, 76: 0.0075, 175: 0.75, 208: 0.9975, 209: 0.999, 5000: 0.999}),
    ],
)
def test_decay(arm_of, decay_type: int, expected: dict[int, float]) -> None:
    average = arm_of("diffusion_nft", decay_type=decay_type).averages()[OLD]
    assert {n: average.decay(n) for n in expected} == pytest.approx(expected)


def test_each_sample_has_its_own_noise_levels(arm_of) -> None:
    plan = arm_of("diffusion_nft").plan(SIZES, 1, generator(3))
    assert plan.trained.shape == (6, 9)  # int(10 * 0.99)
    assert all(len(set(row)) == 9 for row in plan.trained.tolist())
    assert len({tuple(row) for row in plan.trained.tolist()}) == 6
    assert set(plan.trained.flatten().tolist()) == set(range(10))
    assert not plan.stochastic.any()
    assert plan.noise_of[:, 0].tolist() == [0, 1, 2, 0, 1, 2]


def test_passes(arm_of) -> None:
    assert arm_of("diffusion_nft").passes(SIZES) == Passes(10, 9, 18)
    assert arm_of("diffusion_nft", kl_weight=0.0).passes(SIZES) == Passes(10, 9, 9)
    assert arm_of("diffusion_nft", kl_weight=0.0).others() == [OLD]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shared_initial_noise": True}, "one sample G times"),
        ({"advantage": {**PLAIN, "clip": None}}, "r = 1"),
        ({"beta": 0}, "beta"),
        ({"decay_type": 3}, "decay_type"),
        ({"trained_fraction": 1.5}, "trained_fraction"),
        ({"kernel": "dance"}, "kernel"),
        ({"clip_range": 1e-3}, "clip_range"),
        ({"step_selection": "all"}, "step_selection"),
    ],
)
def test_what_the_settings_refuse(arm_of, changes: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        arm_of("diffusion_nft", **changes)


def test_a_fraction_that_leaves_nothing_is_refused(arm_of) -> None:
    arm = arm_of("diffusion_nft", trained_fraction=0.05)
    with pytest.raises(UserError, match=r"0\.05 of the 10 noise levels that"):
        arm.check(SIZES)


def _first_reward(trainer) -> float:
    return float(trainer.iterate(1)["reward_mean"])


def _disturb(trainer) -> None:
    with torch.no_grad():
        for number, value in enumerate(trainer.parameters.values()):
            value += 0.1 * torch.randn(value.shape, generator=generator(1, number))


def test_the_lagging_policy_draws(make, tmp_path: Path) -> None:
    """Other weights of the trained policy change nothing in the samples; the lagging one's do."""
    plain = _first_reward(make("diffusion_nft", tmp_path / "plain"))
    ahead = make("diffusion_nft", tmp_path / "ahead")
    _disturb(ahead)
    assert _first_reward(ahead) == plain
    behind = make("diffusion_nft", tmp_path / "behind")
    _disturb(behind)
    for name, value in behind.parameters.items():
        behind.averages[OLD].average[name].copy_(value.detach())
    assert _first_reward(behind) != plain


def test_the_lagging_policy_follows_by_optimizer_steps(make, tmp_path: Path) -> None:
    """Two optimizer steps an iteration: it keeps 0.002 of itself, then 0.004."""
    trainer = make("diffusion_nft", tmp_path, arm_changes={"decay_type": 1})
    assert trainer.settings.training.optimizer_steps == 2
    expected = {name: value.detach().clone() for name, value in trainer.parameters.items()}
    for iteration, kept in ((1, 0.002), (2, 0.004)):
        trainer.iterate(iteration)
        for name, value in trainer.parameters.items():
            expected[name] = kept * expected[name] + (1 - kept) * value.detach()
    assert trainer.averages[OLD].steps == 4
    for name, value in trainer.averages[OLD].average.items():
        torch.testing.assert_close(value, expected[name])


def test_without_lag_it_is_the_policy_after_each_iteration(make, tmp_path: Path) -> None:
    trainer = make("diffusion_nft", tmp_path, arm_changes={"decay_type": 0})
    trainer.iterate(1)
    for name, value in trainer.averages[OLD].average.items():
        assert torch.equal(value, trainer.parameters[name])


def test_a_run_is_resumed_to_the_bit(assert_resumes) -> None:
    assert_resumes("diffusion_nft")


def test_an_adapter_is_resumed_to_the_bit(assert_resumes) -> None:
    lora: dict[str, Any] = {
        "model": {"lora": {"rank": 2}},
        "training": {"parameters": "lora", "ema_decay": 0.5, "ema_every": 2},
    }
    assert_resumes("diffusion_nft", **lora)
