"""BPGO as an arm: units, missing priors, guard rules, the shuffled control."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError

from bpgo import seeding
from bpgo.core.advantage import group_advantage
from bpgo.errors import UserError
from bpgo.files import repository_root
from bpgo.method.arm import Bpgo
from bpgo.method.settings import BpgoSettings
from bpgo.records import Calibration, GroupRewards

ARMS = repository_root() / "config" / "arms"


def _arm(name: str = "bpgo", **changes) -> Bpgo:
    values = yaml.safe_load(Path(ARMS / f"{name}.yaml").read_text(encoding="utf-8"))
    return Bpgo(BpgoSettings.model_validate({**values, **changes}))


def _groups(**changes) -> GroupRewards:
    rewards = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    calibration = Calibration(1.0, 3.0, -9.0, {"a": 0.0, "b": 1.0, "c": 2.0})
    values = {"rewards": rewards, "prompt_ids": ["a", "b", "c", "d"], "calibration": calibration}
    return GroupRewards(**{**values, **changes})


def test_paper_form_by_hand() -> None:
    groups = _groups()
    result = _arm().advantages(groups, seeding.generator(0))
    scaled = (groups.rewards.double() - 1) / 3
    weight = 1 + 0.5 * (2 * torch.sigmoid(2.0 * scaled.mean(1)) - 1)  # the prior is 0 here
    transformed = (scaled + (scaled > 0)) * scaled.exp()
    first, second = result.terms
    advantage = _arm().settings.advantage
    plain = group_advantage(groups.rewards, advantage)
    torch.testing.assert_close(first.advantage, weight[:, None].float() * plain)
    torch.testing.assert_close(second.advantage, group_advantage(transformed, advantage).float())
    assert (first.weight, second.weight) == (1.0, 0.5)
    torch.testing.assert_close(result.group_columns["weight"], weight)
    assert result.group_columns["prior"].tolist() == [1.0] * 4  # in the reward's own units
    assert result.scalars["crt_non_monotone"] == (scaled < -1).sum()


def test_standardized_results_ignore_the_units_of_the_reward() -> None:
    groups = _groups()
    calibration = Calibration(10 + 2 * 1.0, 2 * 3.0, 10 + 2 * -9.0)
    other = _groups(rewards=10 + 2 * groups.rewards, calibration=calibration)
    for name in ("bpgo", "bpgo_released"):
        left = _arm(name).advantages(groups, seeding.generator(0))
        right = _arm(name).advantages(other, seeding.generator(0))
        for a, b in zip(left.terms, right.terms, strict=True):
            torch.testing.assert_close(a.advantage, b.advantage, rtol=2e-3, atol=2e-3)


def test_groups_without_prior_stay_plain_grpo_and_warn_once(caplog) -> None:
    groups = _groups()
    plain = group_advantage(groups.rewards, _arm().settings.advantage)
    for name in ("bpgo", "bpgo_released"):
        arm = _arm(name, prior="sft_mean")
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            result = arm.advantages(groups, seeding.generator(0))
            arm.advantages(groups, seeding.generator(0))
        assert torch.equal(result.terms[0].advantage[3], plain[3])
        assert not any(term.advantage[3].any() for term in result.terms[1:])
        assert result.group_columns["prior"][3].isnan()
        assert result.group_columns["weight"][3] == 1
        assert result.scalars["groups_without_prior"] == 1
        (record,) = caplog.records
        assert "1 of 4 prompts have no prior (first: 'd')" in record.message


def test_negative_rewards_of_the_released_form() -> None:
    groups, raw = _groups(), {"reward_scale": "raw"}
    negative = int((groups.rewards < 0).sum())
    published = _arm("bpgo_released", negative_rewards="published", **raw)
    assert published.advantages(groups, seeding.generator(0)).scalars["crt_negative"] == negative
    with pytest.raises(UserError, match=f"{negative} of 24 rewards are negative"):
        _arm("bpgo_released", negative_rewards="error", **raw).advantages(
            groups, seeding.generator(0)
        )
    lowest = groups.rewards.min().item()
    lifted = _groups(calibration=Calibration(1.0, 3.0, lowest + 0.1))
    scalars = _arm("bpgo_released").advantages(lifted, seeding.generator(0)).scalars
    assert scalars["crt_floored"] == (groups.rewards < lowest + 0.1).sum()


def test_offset_lifts_rewards_and_prior_of_the_run_together() -> None:
    groups = _groups()
    offset = _arm("bpgo_released", reward_scale="raw", prior="sft_mean")
    lifted = _groups(
        rewards=groups.rewards + 9,
        calibration=Calibration(10.0, 3.0, 0.0, {"a": 9.0, "b": 10.0, "c": 11.0}),
    )
    by_hand = _arm(
        "bpgo_released", reward_scale="raw", prior="sft_mean", negative_rewards="published"
    )
    left = offset.advantages(groups, seeding.generator(0)).terms[0].advantage
    right = by_hand.advantages(lifted, seeding.generator(0)).terms[0].advantage
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes", [{}, {"reward_scale": "raw", "prior": "sft_mean", "crt": "off"}]
)
def test_what_needs_a_calibration_says_so(changes: dict) -> None:
    with pytest.raises(UserError, match="needs a calibration"):
        _arm(**changes).advantages(_groups(calibration=None), seeding.generator(0))


def test_a_base_policy_without_spread_cannot_scale() -> None:
    with pytest.raises(UserError, match="cannot be standardized"):
        _arm().advantages(_groups(calibration=Calibration(0.0, 0.0, 0.0)), seeding.generator(0))


def test_shuffled_weights_are_the_same_weights_of_other_groups() -> None:
    groups = _groups()
    own = _arm("bpgo_ras").advantages(groups, seeding.generator(1)).group_columns["weight"]
    arm = _arm("bpgo_ras_shuffled")
    drawn = [
        arm.advantages(groups, seeding.generator(seed)).group_columns["weight"] for seed in range(8)
    ]
    assert any(not torch.equal(weight, drawn[0]) for weight in drawn)
    again = _arm("bpgo_ras_shuffled").advantages(groups, seeding.generator(0))
    assert torch.equal(again.group_columns["weight"], drawn[0])
    torch.testing.assert_close(drawn[0].sort().values, own.sort().values)


def test_only_the_shuffled_control_draws_from_the_generator() -> None:
    for name, draws in (("bpgo", False), ("bpgo_released", False), ("bpgo_ras_shuffled", True)):
        generator = seeding.generator(5)
        before = generator.get_state().clone()
        _arm(name).advantages(_groups(), generator)
        assert torch.equal(before, generator.get_state()) is not draws


def test_prior_learns_after_the_batch() -> None:
    arm = _arm(momentum=0.5)
    groups = _groups()
    assert arm.advantages(groups, seeding.generator(0)).group_columns["prior"][0] == 1.0
    expected = 0.5 * 1.0 + 0.5 * groups.rewards.double().mean().item()
    later = arm.advantages(groups, seeding.generator(0)).group_columns["prior"][0].item()
    assert later == pytest.approx(expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": 1.5},
        {"prior": "fixed"},
        {"fixed_prior": 0.3},
        {"weight_range": [1.5, 0.5]},
        {"momentum": 1.0},
        {"ras": "tanh"},
        {"lambda": -1.0},
        {"k": math.nan},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict) -> None:
    with pytest.raises(ValidationError):
        _arm(**changes)


def test_yaml_off_is_off() -> None:
    assert _arm(ras=False, crt=False).settings.ras == "off"
