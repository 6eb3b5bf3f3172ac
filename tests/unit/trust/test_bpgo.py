"""BPGO as a rule: units, scales, missing priors, guard rules."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from advantages import advantage_settings
from pydantic import ValidationError
from trusted import weighted_terms

from bpgo import seeding
from bpgo.config import resolve as config
from bpgo.core.advantage import group_advantage
from bpgo.core.loss import clipped_surrogate
from bpgo.core.trust import Trusted
from bpgo.errors import UserError
from bpgo.records import Calibration, GroupRewards
from bpgo.storage.files import repository_root
from bpgo.trust.bpgo import Bpgo, BpgoSettings

CONFIG = repository_root() / "config"
ADVANTAGE = advantage_settings()
STANDARDIZED = {"reward_scale": "standardized"}


def _rule(name: str = "bpgo", **changes: Any) -> Bpgo:
    values = config.load_trust(name, CONFIG).model_dump(mode="json")
    return Bpgo(BpgoSettings.model_validate({**values, **changes}))


def _groups(**changes: Any) -> GroupRewards:
    rewards = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    calibration = Calibration(1.0, 3.0, -9.0, {"a": 0.0, "b": 1.0, "c": 2.0})
    values = {"rewards": rewards, "prompt_ids": ["a", "b", "c", "d"], "calibration": calibration}
    return GroupRewards(**{**values, **changes})


def _judged(rule: Bpgo, groups: GroupRewards) -> Trusted:
    return rule.judge(groups, seeding.generator(0))


def test_paper_form_by_hand() -> None:
    groups = _groups()
    answer = _judged(_rule(**STANDARDIZED), groups)
    scaled = (groups.rewards.double() - 1) / 3
    weight = 1 + 0.5 * (2 * torch.sigmoid(2.0 * scaled.mean(1)) - 1)  # the prior is 0 here
    torch.testing.assert_close(answer.weights, weight)
    (term,) = answer.terms
    torch.testing.assert_close(term.rewards, (scaled + (scaled > 0)) * scaled.exp())
    assert term.weight == 0.5
    assert term.scale is None or term.scale.tolist() == [1.0] * 4  # w weighs the first term alone
    assert answer.rewards is None
    torch.testing.assert_close(answer.columns["weight"], weight)
    assert answer.columns["prior"].tolist() == [1.0] * 4  # in the reward's own units
    assert answer.scalars["crt_non_monotone"] == (scaled < -1).sum()


def test_published_scale_by_hand() -> None:
    """A reward 2 base deviations up is .25 + 2 * .02, and RAS reads it as 2 whatever the scale."""
    rewards = torch.tensor([[7.0, 7.0], [1.0, 1.0]])
    answer = _judged(_rule(), _groups(rewards=rewards, prompt_ids=["a", "b"]))
    weight = 1 + 0.5 * (2 / (1 + math.exp(-2.0 * 2)) - 1)
    assert answer.weights is not None
    assert answer.weights.tolist() == pytest.approx([weight, 1.0])
    (term,) = answer.terms
    assert term.rewards[0].tolist() == pytest.approx([1.04 * math.exp(0.29)] * 2)
    assert term.rewards[1].tolist() == [0.0, 0.0]  # exactly at the prior


def test_k_means_the_same_in_every_scale() -> None:
    standardized = _judged(_rule("bpgo_ras", **STANDARDIZED), _groups()).weights
    for changes in ({}, {"scale_mean": 2.66, "scale_std": 0.2}, {"reward_scale": "raw"}):
        torch.testing.assert_close(
            _judged(_rule("bpgo_ras", **changes), _groups()).weights, standardized
        )


def _contrast(offset: float, **changes: Any) -> tuple[float, torch.Tensor]:
    """Share of samples where CRT bends, and each group's correlation of its advantages with GRPO's.

    Groups lie `offset` base standard deviations from the prior, and spread by a third of one.
    """
    noise = torch.randn(64, 12, generator=torch.Generator().manual_seed(3))
    rewards = 1 + 3 * offset + noise
    groups = _groups(rewards=rewards, prompt_ids=[str(i) for i in range(64)])
    answer = _judged(_rule("bpgo_crt", **changes), groups)
    plain, contrasted = weighted_terms(answer, groups, ADVANTAGE)
    along = torch.nn.functional.cosine_similarity(plain[1], contrasted[1])
    return answer.scalars["crt_non_monotone"] / rewards.numel(), along


def test_contrast_beside_the_prior_is_grpo_on_the_papers_scale() -> None:
    for offset in (-2.0, 2.0):
        bent, along = _contrast(offset)
        assert bent == 0
        assert along.min() > 0.999


def test_contrast_across_the_prior_is_a_vote_on_the_papers_scale() -> None:
    """lambda (R - prior) is some hundredths there, beside a step of 1 at the prior."""
    rewards = torch.tensor([[-2.0, 0.5, 1.5, 4.0]])
    answer = _judged(_rule("bpgo_crt"), _groups(rewards=rewards, prompt_ids=["a"]))
    advantage = group_advantage(answer.terms[0].rewards, advantage_settings(ddof=0))
    torch.testing.assert_close(
        advantage, torch.tensor([[-1.0, -1.0, 1.0, 1.0]]).double(), atol=0.05, rtol=0
    )


def test_contrast_turns_groups_round_on_standardized_rewards() -> None:
    bent, along = _contrast(-2.0, **STANDARDIZED)
    assert bent > 0.9
    assert along.max() < -0.9


@pytest.mark.parametrize("name", ["bpgo", "bpgo_released", "bpgo_standardized"])
def test_results_ignore_the_units_of_the_reward(name: str) -> None:
    groups = _groups()
    calibration = Calibration(10 + 2 * 1.0, 2 * 3.0, 10 + 2 * -9.0)
    other = _groups(rewards=10 + 2 * groups.rewards, calibration=calibration)
    left = weighted_terms(_judged(_rule(name), groups), groups, ADVANTAGE)
    right = weighted_terms(_judged(_rule(name), other), other, ADVANTAGE)
    for (weight, a), (same, b) in zip(left, right, strict=True):
        assert weight == same
        torch.testing.assert_close(a, b, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("changes", [{"alpha": 0.0, "varsigma": 0.0}, {"ras": "off", "crt": "off"}])
@pytest.mark.parametrize("name", ["bpgo", "bpgo_released", "bpgo_standardized"])
def test_with_its_terms_off_nothing_changes_to_the_bit(name: str, changes: dict) -> None:
    groups = _groups()
    ((weight, found),) = weighted_terms(_judged(_rule(name, **changes), groups), groups, ADVANTAGE)
    assert weight == 1.0
    assert torch.equal(found, group_advantage(groups.rewards, ADVANTAGE))


def test_both_terms_weighed() -> None:
    first, both = (
        _judged(_rule(ras_applies_to=word), _groups()).terms[0] for word in ("first", "both")
    )
    torch.testing.assert_close(both.scale, _judged(_rule(), _groups()).weights)
    assert torch.equal(first.rewards, both.rewards)


def test_overwritten_rewards_leave_one_term() -> None:
    answer = _judged(_rule(combine="overwrite"), _groups())
    beside = _judged(_rule(), _groups())
    assert answer.terms == []
    torch.testing.assert_close(answer.rewards, beside.terms[0].rewards)
    torch.testing.assert_close(answer.weights, beside.weights)


def test_two_terms_are_not_one_with_summed_advantages() -> None:
    """Each is clipped by the sign of its own advantage, so they must not be added before."""
    ratio = torch.tensor([1.01])
    first, second = torch.tensor([1.0]), torch.tensor([-1.5])
    apart = clipped_surrogate(ratio, first, 1e-3) + clipped_surrogate(ratio, second, 1e-3)
    together = clipped_surrogate(ratio, first + second, 1e-3)
    assert not torch.isclose(apart, together)


@pytest.mark.parametrize("name", ["bpgo", "bpgo_released"])
def test_groups_without_prior_keep_their_rewards_and_warn_once(name: str, caplog: Any) -> None:
    groups = _groups()
    plain = group_advantage(groups.rewards, ADVANTAGE)
    rule = _rule(name, prior="sft_mean")
    with caplog.at_level(logging.WARNING):
        answer = _judged(rule, groups)
        _judged(rule, groups)
    (_, first), *others = weighted_terms(answer, groups, ADVANTAGE)
    assert torch.equal(first[3], plain[3])
    assert not any(term[3].any() for _, term in others)
    assert answer.columns["prior"][3].isnan()
    assert answer.columns["weight"][3] == 1
    assert answer.scalars["groups_without_prior"] == 1
    (record,) = caplog.records
    assert "1 of 4 prompts have no prior (first: 'd')" in record.message


def test_negative_rewards_of_the_released_form() -> None:
    groups, raw = _groups(), {"reward_scale": "raw"}
    negative = int((groups.rewards < 0).sum())
    published = _rule("bpgo_released", negative_rewards="published", **raw)
    assert _judged(published, groups).scalars["crt_negative"] == negative
    with pytest.raises(UserError, match=f"{negative} of 24 rewards are negative"):
        _judged(_rule("bpgo_released", negative_rewards="error", **raw), groups)
    lowest = groups.rewards.min().item()
    lifted = _groups(calibration=Calibration(1.0, 3.0, lowest + 0.1))
    offset = _rule("bpgo_released", negative_rewards="offset")
    assert _judged(offset, lifted).scalars["crt_floored"] == (groups.rewards < lowest + 0.1).sum()
    assert _judged(_rule("bpgo_released"), groups).scalars["crt_negative"] == 0  # published scale


def test_offset_lifts_rewards_and_prior_of_the_run_together() -> None:
    groups, raw = _groups(), {"reward_scale": "raw", "prior": "sft_mean"}
    lifted = _groups(
        rewards=groups.rewards + 9,
        calibration=Calibration(10.0, 3.0, 0.0, {"a": 9.0, "b": 10.0, "c": 11.0}),
    )
    left = _judged(_rule("bpgo_released", negative_rewards="offset", **raw), groups)
    right = _judged(_rule("bpgo_released", negative_rewards="published", **raw), lifted)
    for (_, a), (_, b) in zip(
        weighted_terms(left, groups, ADVANTAGE),
        weighted_terms(right, lifted, ADVANTAGE),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reward_scale": "raw"},  # k is per standard deviation
        {"reward_scale": "raw", "prior": "sft_mean", "ras": "off"},
        {"reward_scale": "raw", "crt": "released_sigmoid", "negative_rewards": "offset"},
    ],
)
def test_what_needs_a_calibration_says_so(changes: dict) -> None:
    assert _rule(**changes).settings.reads() == {"calibration"}
    with pytest.raises(UserError, match="needs a calibration"):
        _judged(_rule(**changes), _groups(calibration=None))


def test_what_needs_no_calibration_takes_none() -> None:
    rule = _rule(reward_scale="raw", ras="off")
    assert rule.settings.reads() == set()
    assert _judged(rule, _groups(calibration=None)).terms


def test_a_base_policy_without_spread_cannot_scale() -> None:
    for scale in ("published", "standardized", "raw"):
        with pytest.raises(UserError, match=r"calibration\.std is 0\.0"):
            _judged(_rule(reward_scale=scale), _groups(calibration=Calibration(0.0, 0.0, 0.0)))


def test_effects() -> None:
    assert _rule().settings.effects() == {"weights", "rewards"}
    assert _rule("bpgo_ras").settings.effects() == {"weights"}
    assert _rule(varsigma=0.0).settings.effects() == {"weights"}
    assert _rule("bpgo_crt").settings.effects() == {"rewards"}


def test_nothing_is_drawn() -> None:
    for name in ("bpgo", "bpgo_released"):
        generator = seeding.generator(5)
        before = generator.get_state().clone()
        _rule(name).judge(_groups(), generator)
        assert torch.equal(before, generator.get_state())


def test_prior_learns_after_the_batch() -> None:
    rule = _rule(momentum=0.5)
    groups = _groups()
    assert _judged(rule, groups).columns["prior"][0] == 1.0
    expected = 0.5 * 1.0 + 0.5 * groups.rewards.double().mean().item()
    assert _judged(rule, groups).columns["prior"][0].item() == pytest.approx(expected)


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
        {"scale_std": None},
        {"scale_std": 0.0},
    ],
)
def test_settings_out_of_range_are_refused(changes: dict) -> None:
    with pytest.raises(ValidationError):
        _rule(**changes)


def test_yaml_off_is_off() -> None:
    assert _rule(ras=False, crt=False).settings.ras == "off"
