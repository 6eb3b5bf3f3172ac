"""DanceGRPO: the best and the worst of a group alone can be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from from_files import GROUP, PROMPTS, arm_of, sizes, trainer_of
from pydantic import ValidationError

from bpgo.core.advantage import best_and_worst, group_advantage
from bpgo.records import GroupRewards, Passes

REWARDS = torch.tensor([[3.0, 9.0, 1.0, 2.0, 5.0, 4.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])


def test_half_are_the_highest_and_half_the_lowest() -> None:
    found = best_and_worst(REWARDS - 4, 4)
    assert found[0].tolist() == [0.0, 7.5, -4.5, -3.0, 1.5, 0.0]
    assert best_and_worst(REWARDS, 6).tolist() == REWARDS.tolist()
    assert best_and_worst(torch.zeros(2, 4), 2).tolist() == [[0.0] * 4] * 2


def test_statistics_are_the_whole_groups() -> None:
    arm = arm_of("dance_grpo", best_and_worst=2)
    found = arm.advantage(GroupRewards(REWARDS, ["p", "q"])).advantage
    plain = group_advantage(REWARDS, arm.settings.advantage)
    expected = torch.zeros(2, 6)
    expected[0, 1:3] = 3 * plain[0, 1:3]
    assert torch.equal(found, expected)


def test_samples_between_cost_no_pass(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"best_and_worst": 2, "shared_initial_noise": False}
    made = {}
    for name, given in (("all", {"shared_initial_noise": False}), ("two", changes)):
        trainer = trainer_of(monkeypatch, tiny_folder, tmp_path / name, "dance_grpo", changes=given)
        made[name] = trainer.iterate(1)
        assert made[name]["ratio_deviation"] == 0.0
        assert made[name]["gradient_norm"] > 0
    steps = arm_of("dance_grpo").passes(sizes()).trained
    assert made["all"]["trained_passes"] == PROMPTS * GROUP * steps
    assert made["two"]["trained_passes"] == PROMPTS * 2 * steps
    assert made["two"]["groups_dropped"] == 0
    assert arm_of("dance_grpo", best_and_worst=2).passes(sizes()) == Passes(6, (steps + 1) // 2)
    held = arm_of("dance_grpo", best_and_worst=2, kl_weight=0.1).passes(sizes())
    assert held == Passes(6, steps, steps)


@pytest.mark.parametrize("count", [0, 3])
def test_an_odd_or_no_number_is_refused(count: int) -> None:
    with pytest.raises(ValidationError, match="best_and_worst"):
        arm_of("dance_grpo", best_and_worst=count)
