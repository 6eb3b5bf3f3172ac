"""Group advantages: formulas, presets, edge cases."""

from __future__ import annotations

import pytest
import torch
from advantages import PRESETS, advantage_settings

from bpgo.core.advantage import (
    PromptTracker,
    group_advantage,
    indexed_advantage,
    selection_advantage,
    several_rewards_advantage,
)


def _rewards(groups: int = 3, size: int = 6) -> torch.Tensor:
    return torch.randn(groups, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ddof", [0, 1])
def test_z_score(ddof: int) -> None:
    rewards = _rewards()
    settings = advantage_settings(ddof=ddof, epsilon=1e-4)
    std = rewards.std(dim=1, keepdim=True, correction=ddof)
    expected = (rewards - rewards.mean(dim=1, keepdim=True)) / (std + 1e-4)
    torch.testing.assert_close(group_advantage(rewards, settings), expected)


def test_batch_scope_divides_by_the_std_of_all_rewards() -> None:
    rewards = _rewards()
    expected = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(correction=0) + 1e-4)
    found = group_advantage(rewards, PRESETS["flow_grpo_global_std"])
    torch.testing.assert_close(found, expected)


def test_no_scope_only_subtracts_the_mean() -> None:
    rewards = _rewards()
    found = group_advantage(rewards, advantage_settings(scope="none"))
    torch.testing.assert_close(found, rewards - rewards.mean(dim=1, keepdim=True))


def test_floor_does_not_touch_a_large_std() -> None:
    rewards = _rewards()
    std = rewards.std(dim=1, keepdim=True, correction=0)
    expected = (rewards - rewards.mean(dim=1, keepdim=True)) / std
    torch.testing.assert_close(group_advantage(rewards, PRESETS["flow_factory"]), expected)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("value", [0.1, 0.2398, -3.7, 1e4])
def test_a_constant_group_has_advantages_of_exactly_zero(preset: str, value: float) -> None:
    rewards = torch.full((2, 12), value)
    assert not group_advantage(rewards, PRESETS[preset]).any()


def test_clip() -> None:
    rewards = torch.zeros(1, 200)
    rewards[0, 0] = 1.0
    assert group_advantage(rewards, advantage_settings(clip=None)).max() > 5
    assert group_advantage(rewards, advantage_settings(clip=5.0)).max() == 5


def test_groups_below_the_smallest_std_get_zero() -> None:
    rewards = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1e-3, 2e-3]])
    found = group_advantage(rewards, advantage_settings(min_group_std=0.01))
    assert found[0].any()
    assert not found[1].any()


def test_trimming_leaves_the_lowest_out_of_the_statistics() -> None:
    rewards = torch.tensor([[-100.0, 1.0, 2.0, 3.0]])
    settings = advantage_settings(trimmed_ratio=0.25, clip=None, epsilon=1e-8)
    found = group_advantage(rewards, settings)
    torch.testing.assert_close(found, torch.tensor([[-102.0, -1.0, 0.0, 1.0]]))


@pytest.mark.parametrize("scope", ["group", "batch", "none"])
def test_indexed_equals_grouped(scope: str) -> None:
    rewards = _rewards()
    settings = advantage_settings(scope=scope)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1))
    index = torch.arange(3).repeat_interleave(6)[order].tolist()
    found = indexed_advantage(rewards.flatten()[order], index, settings)
    torch.testing.assert_close(found, group_advantage(rewards, settings).flatten()[order])


def test_a_group_of_one_has_no_advantage() -> None:
    assert not group_advantage(torch.tensor([[3.0]]), advantage_settings(ddof=1)).any()
    found = indexed_advantage(torch.tensor([3.0, 1.0, 2.0]), [7, 8, 8], advantage_settings())
    assert found[0] == 0
    assert found[1] < 0 < found[2]


def test_several_rewards() -> None:
    first, second = _rewards(), 10 * _rewards().flip(1)
    rewards, weights = {"a": first, "b": second}, {"a": 1.0, "b": 0.5}
    settings = advantage_settings(clip=None)
    separate = group_advantage(first, settings) + 0.5 * group_advantage(second, settings)
    found = several_rewards_advantage(rewards, weights, settings, "advantages")
    torch.testing.assert_close(found.float(), separate)
    summed = several_rewards_advantage(rewards, weights, settings, "rewards")
    torch.testing.assert_close(summed.float(), group_advantage(first + 0.5 * second, settings))
    gdpo = several_rewards_advantage(rewards, weights, settings, "gdpo")
    assert gdpo.mean().abs() < 1e-12
    assert gdpo.std() == pytest.approx(1.0, abs=1e-3)


def test_selection() -> None:
    rewards = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]])
    best_and_worst = torch.tensor([[-1.0, 1.0, 0.0], [-1.0, 1.0, 0.0]])
    assert torch.equal(selection_advantage(rewards, "best_and_worst"), best_and_worst)
    best = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    assert torch.equal(selection_advantage(rewards, "best"), best)
    assert torch.equal(selection_advantage(rewards, "reward"), rewards)


def test_tracker_uses_the_batch_until_it_knows_a_prompt() -> None:
    tracker = PromptTracker(buffer_size=4, min_count=3, settings=PRESETS["ddpo"])
    rewards = torch.tensor([0.0, 1.0, 5.0])
    first = tracker.advantage(rewards, ["x", "x", "y"])
    expected = (rewards - 2.0) / (rewards.std(correction=0) + 1e-6)
    torch.testing.assert_close(first, expected)
    second = tracker.advantage(torch.tensor([2.0, 3.0]), ["x", "x"])
    seen = torch.tensor([0.0, 1.0, 2.0, 3.0])
    torch.testing.assert_close(second, (seen[2:] - 1.5) / (seen.std(correction=0) + 1e-6))
