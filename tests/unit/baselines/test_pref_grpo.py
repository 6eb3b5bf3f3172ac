"""Pref-GRPO: a sample's reward is the share of its duels that it wins."""

from __future__ import annotations

import math

import pytest
import torch
from from_files import arm_of, sizes

from bpgo.core.advantage import group_advantage
from bpgo.core.duels import blended, duels, mean_rates, win_rates
from bpgo.records import GroupRewards
from bpgo.seeding import generator

REWARDS = torch.tensor([[0.1, 0.4, 0.4, 90.0], [1.0, 2.0, 3.0, 4.0]])
LUCK = torch.rand(2, 4, 4, generator=generator(3))


def test_win_rates_by_hand() -> None:
    """Three duels each; a tie is half a win, and by how much one wins does not matter."""
    found = win_rates(duels(REWARDS, 0.0, LUCK))
    assert found.tolist() == [[0.0, 0.5, 0.5, 1.0], [0.0, 0.333, 0.667, 1.0]]


def test_every_pair_is_fought_once() -> None:
    for noise in (0.0, 0.5):
        won = duels(REWARDS, noise, LUCK)
        off = ~torch.eye(4, dtype=torch.bool)
        assert torch.equal((won + won.transpose(1, 2))[:, off], torch.ones(2, 12).double())


def test_a_noisy_judge_errs_as_bradley_and_terry_say() -> None:
    rewards = torch.tensor([[0.0, 1.0]]).expand(20_000, 2)
    luck = torch.rand(20_000, 2, 2, generator=generator(1))
    for noise in (0.5, 2.0):
        share = duels(rewards, noise, luck)[:, 1, 0].mean().item()
        assert share == pytest.approx(1 / (1 + math.exp(-1 / noise)), abs=0.01)


def test_criteria_without_a_verdict_do_not_count() -> None:
    nan = math.nan
    rates = torch.tensor([[[0.5, nan, nan]], [[1.0, 0.25, nan]]]).double()
    mean = mean_rates(rates, torch.tensor([1.0, 3.0]))
    assert mean[0, :2].tolist() == [0.875, 0.25]
    overall = torch.tensor([[0.0, 0.5, 0.75]]).double()
    assert blended(overall, mean, 1.0)[0].tolist() == [0.4375, 0.375, 0.75]


def groups() -> GroupRewards:
    parts = {"a": REWARDS, "b": -REWARDS}
    return GroupRewards(REWARDS, ["p", "q"], parts=parts, part_weights={"a": 1.0, "b": 0.5})


def test_advantages_are_those_of_the_win_rates() -> None:
    arm = arm_of("pref_grpo")
    (term,) = arm.advantages(groups(), generator(1)).terms
    rates = torch.tensor([[0.0, 0.5, 0.5, 1.0], [0.0, 0.333, 0.667, 1.0]])
    expected = group_advantage(rates, arm.settings.advantage)
    torch.testing.assert_close(term.advantage, expected)
    # The parts are opposed: with weights 1 and 1/2 a rate r becomes (r + (1 - r) / 2) / 1.5.
    flex = arm_of("pref_grpo", dimension_weight=1.0).advantages(groups(), generator(1))
    blend = (rates + (rates + (1 - rates) / 2) / 1.5) / 2
    expected = group_advantage(blend, arm.settings.advantage)
    torch.testing.assert_close(flex.terms[0].advantage, expected, atol=5e-3, rtol=0)


def test_the_judges_luck_is_the_generators() -> None:
    arm = arm_of("pref_grpo", duel_noise=1.0)
    first, second, other = (arm.advantages(groups(), generator(n)).terms[0] for n in (1, 1, 2))
    assert torch.equal(first.advantage, second.advantage)
    assert not torch.equal(first.advantage, other.advantage)


def test_what_does_not_fit_is_refused() -> None:
    assert arm_of("pref_grpo").refuses_reward(0) is None
    flex = arm_of("pref_grpo", dimension_weight=0.5)
    assert "weighted_sum of two or more" in (flex.refuses_reward(1) or "")
    assert flex.refuses_reward(2) is None
    assert flex.refuses("rewards", 2) is not None
    with pytest.raises(ValueError, match="group_size"):
        sizes(group=1)  # a sample without an opponent
