"""Each rule on groups whose answer is known by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from bpgo import registry, seeding
from bpgo.config.fields import Strict
from bpgo.core.trust import AnyTrustSettings, Trust, Trusted, TrustSettings, make_trust
from bpgo.errors import UserError
from bpgo.records import Calibration, GroupRewards

FIXED = {"rule": "bpgo", "prior": "fixed", "fixed_prior": 0.0, "crt": "off"}
GARDO = {"rule": "gardo", "share": 0.1, "step": 0.1, "lowest": 0.02, "highest": 0.2, "window": 20}


def rule(rule: str, **settings: Any) -> Trust:
    values = {"rule": rule, **settings}
    return make_trust(registry.load_trust_class(rule).Settings.model_validate(values))


def judged(chosen: Trust, groups: GroupRewards, seed: int = 0) -> Trusted:
    return chosen.judge(groups, seeding.generator(seed))


def rows(*values: list[float]) -> torch.Tensor:
    return torch.tensor(values)


def ensemble(*members: torch.Tensor, weights: list[float] | None = None) -> GroupRewards:
    """Groups by a sum of members, with equal weights that add up to 1 unless others are given."""
    names = [f"m{i}" for i in range(len(members))]
    chosen = weights or [1 / len(members)] * len(members)
    return GroupRewards(
        sum(weight * member for weight, member in zip(chosen, members, strict=True)),  # type: ignore[arg-type]
        [f"p{i}" for i in range(len(members[0]))],
        Calibration(0.0, 2.0, -1.0),
        parts=dict(zip(names, members, strict=True)),
        part_weights=dict(zip(names, chosen, strict=True)),
    )


def weights(answer: Trusted) -> list[float]:
    assert answer.weights is not None
    return answer.weights.tolist()


# Agreement


def test_agreement_by_hand() -> None:
    """One group in the same order, one half so (rank correlation .5), one reversed."""
    first = rows([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    second = rows([0.0, 5.0, 6.0], [1.0, 3.0, 2.0], [3.0, 2.0, 1.0])
    answer = judged(rule("agreement"), ensemble(first, second))
    assert answer.columns["agreement"].tolist() == pytest.approx([1.0, 0.5, -1.0])
    assert weights(answer) == pytest.approx([2.0, 1.0, 0.0])


def test_agreement_is_the_mean_over_pairs() -> None:
    one, other = rows([1.0, 2.0, 3.0]), rows([3.0, 2.0, 1.0])
    answer = judged(rule("agreement"), ensemble(one, one, other))
    assert answer.columns["agreement"].item() == pytest.approx((1 - 1 - 1) / 3)
    assert weights(answer) == [1.0]  # no group agrees: no group is preferred


# Signal to noise


def test_signal_to_noise_by_hand() -> None:
    """Members that agree but for their level; members at right angles; members opposed."""
    first = rows([0.0, 1.0, 2.0, 3.0], [1.0, -1.0, 0.0, 0.0], [1.0, -1.0, 1.0, -1.0])
    second = rows([5.0, 6.0, 7.0, 8.0], [0.0, 0.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0])
    answer = judged(rule("signal_to_noise"), ensemble(first, second))
    # At right angles: the mean has variance 4 * .25 / 3; each sample's members differ by 1: .5.
    middle = (1 / 3) / (1 / 3 + 1 / 2)
    assert answer.columns["signal_share"].tolist() == pytest.approx([1.0, middle, 0.0])
    mean = (1 + middle) / 3
    assert weights(answer) == pytest.approx([1 / mean, middle / mean, 0.0])


def test_constant_groups_have_no_signal() -> None:
    flat = torch.ones(2, 3)
    assert weights(judged(rule("signal_to_noise"), ensemble(flat, flat))) == [1.0, 1.0]
    one = torch.ones(2, 1)
    assert weights(judged(rule("signal_to_noise"), ensemble(one, one))) == [1.0, 1.0]


# Pessimistic


def test_pessimistic_by_hand() -> None:
    """Members 0 and 2, beta of one base deviation (2): -2 ln((1 + 1/e) / 2)."""
    groups = ensemble(rows([0.0, 1.0]), rows([2.0, 1.0]))
    answer = judged(rule("pessimistic", beta=1.0), groups)
    assert answer.weights is None
    assert answer.rewards is not None
    assert answer.rewards[0].tolist() == pytest.approx([-2 * math.log((1 + math.exp(-1)) / 2), 1.0])
    assert answer.columns["disagreement"].tolist() == [0.5]


def test_the_three_ends_of_pessimism() -> None:
    groups = ensemble(rows([0.0, 3.0]), rows([2.0, -1.0]), rows([7.0, 1.0]))
    mean, worst = rows([3.0, 1.0]).double(), rows([0.0, -1.0]).double()
    variance = rows([26 / 3, 8 / 3]).double()

    def rewards(beta: float) -> torch.Tensor:
        found = judged(rule("pessimistic", beta=beta), groups).rewards
        assert found is not None
        return found

    torch.testing.assert_close(rewards(1e6), mean, rtol=0, atol=1e-5)
    second_order = mean - variance / (2 * 2.0 * 100)  # the base policy's deviation is 2
    torch.testing.assert_close(rewards(100.0), second_order, rtol=0, atol=1e-3)
    assert torch.equal(rewards(0.0), worst)
    torch.testing.assert_close(rewards(1e-6), worst, rtol=0, atol=1e-4)


def test_pessimism_follows_the_weights_of_the_sum() -> None:
    """Without doubt the sum itself remains, whatever its weights; weight 0 takes no part."""
    parts = rows([0.0, 1.0]), rows([3.0, -1.0]), rows([-9.0, -9.0])
    groups = ensemble(*parts, weights=[2.0, 1.0, 0.0])
    certain = judged(rule("pessimistic", beta=1e6), groups).rewards
    torch.testing.assert_close(certain, groups.rewards.double(), rtol=0, atol=1e-4)
    worst = judged(rule("pessimistic", beta=0.0), groups).rewards
    assert worst is not None
    assert worst[0].tolist() == [0.0, -3.0]


def test_what_pessimism_cannot_use() -> None:
    parts = rows([0.0, 1.0]), rows([3.0, -1.0])
    with pytest.raises(UserError, match="weights of at least 0"):
        judged(rule("pessimistic", beta=1.0), ensemble(*parts, weights=[1.0, -1.0]))
    uncalibrated = GroupRewards(parts[0], ["a"], parts=dict(zip("ab", parts, strict=True)))
    with pytest.raises(UserError, match="needs a calibration"):
        judged(rule("pessimistic", beta=1.0), uncalibrated)
    assert judged(rule("pessimistic", beta=0.0), uncalibrated).rewards is not None


# GARDO


def test_gate_takes_the_samples_that_the_training_reward_over_rates() -> None:
    """Places by the training reward are 1 to 6, by the members 4, 3, 1, 2, 5, 6.

    Over-rated by 3, 1, -2, -2, 0, 0. Of 0, 0, 1, 3 the 90th percentile is 2.4: one is above.
    """
    part = rows([3.0, 4.0, 6.0], [5.0, 2.0, 1.0])
    groups = replace(ensemble(part, part), rewards=rows([9.0, 5.0, 4.0], [3.0, 2.0, 1.0]))
    answer = judged(rule(**GARDO), groups)
    assert answer.gate is not None
    assert answer.gate.tolist() == [[True, False, False], [False] * 3]
    assert answer.columns["uncertainty"].tolist() == pytest.approx([2 / 3, -2 / 3])
    assert answer.scalars == pytest.approx({"gate_share": 0.1, "gated": 1 / 6, "uncertainty": 1.0})
    released = judged(rule(**GARDO, sign="as_released"), groups)
    assert released.columns["uncertainty"].tolist() == pytest.approx([-2 / 3, 2 / 3])


def test_named_auxiliaries_alone_are_asked() -> None:
    main, other = rows([3.0, 2.0, 1.0]), rows([1.0, 2.0, 3.0])
    groups = replace(ensemble(main, other), rewards=main)
    found = [
        judged(rule(**GARDO, auxiliary=chosen), groups).scalars["uncertainty"]
        for chosen in (["m0"], ["m1"], [])
    ]
    assert found == pytest.approx([0.0, 1.0, 0.5])  # of 2 and 0; of 1 and 0


def test_share_follows_the_trend_and_stays_in_its_range() -> None:
    from bpgo.trust.gardo import GardoSettings, ShareController

    controller = ShareController(GardoSettings.model_validate(GARDO | {"window": 2}))
    assert controller.update(1.0) == 0.1  # the first only stores its mean
    assert controller.update(2.0) == pytest.approx(0.11)
    assert controller.update(1.5) == pytest.approx(0.11)  # between the last two
    assert controller.update(1.0) == pytest.approx(0.099)  # below 2 and 1.5; the 1 is forgotten
    for step in range(60):
        controller.update(10.0 + step)
    assert controller.share == 0.2
    for step in range(60):
        controller.update(-float(step))
    assert controller.share == 0.02


def test_an_unknown_auxiliary_is_named() -> None:
    part = rows([0.0, 1.0])
    with pytest.raises(UserError, match=r"trust\.auxiliary: 'm2' .*Known: m0, m1"):
        judged(rule(**GARDO, auxiliary=["m2"]), ensemble(part, part))


# Deviation, prompts, truth


def test_deviation_by_hand() -> None:
    groups = GroupRewards(rows([0.0, 2.0], [1.0, 1.0], [4.0, 8.0]), ["a", "b", "c"])
    assert weights(judged(rule("deviation"), groups)) == pytest.approx([1.0, 0.0, 2.0])
    assert weights(judged(rule("deviation"), GroupRewards(rows([1.0], [2.0]), ["a", "b"]))) == [
        1.0,
        1.0,
    ]


def test_specified_by_hand() -> None:
    openness = torch.tensor([0.0, 0.5, 1.0, math.nan])
    groups = GroupRewards(torch.zeros(4, 2), list("abcd"), ambiguity=openness)
    assert weights(judged(rule("specified", alpha=0.5), groups)) == [1.5, 1.0, 0.5, 1.0]
    with pytest.raises(UserError, match="how ambiguous"):
        judged(rule("specified", alpha=0.5), GroupRewards(torch.zeros(1, 2), ["a"]))


def test_true_reliability_and_its_mirror_by_hand() -> None:
    rewards = rows([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    truth = rows([0.0, 0.0, 1.0], [9.0, 5.0, 1.0], [4.0, 4.0, 4.0])
    groups = GroupRewards(rewards, ["a", "b", "c"], reference={"oracle": truth})
    inner = {"rule": "true_reliability", "reward": "oracle", "alpha": 0.5}
    rho = 3**0.5 / 2  # ties share their ranks
    assert weights(judged(rule(**inner), groups)) == pytest.approx([1 + rho / 2, 0.5, 1.0])
    assert weights(judged(rule("anti", of=inner), groups)) == pytest.approx([1 - rho / 2, 1.5, 1.0])
    with pytest.raises(UserError, match="'oracle' is not among"):
        judged(rule(**inner), GroupRewards(rewards, ["a", "b", "c"]))


def test_rewards_that_are_the_truth() -> None:
    truth = rows([0.0, 0.5, 1.0])
    groups = GroupRewards(rows([3.0, 2.0, 1.0]), ["a"], reference={"oracle": truth})
    found = judged(rule("true_reward", reward="oracle"), groups)
    assert found.rewards is not None
    assert torch.equal(found.rewards, truth.double())
    assert found.weights is None
    with pytest.raises(UserError, match="'oracle' is not among"):
        judged(rule("true_reward", reward="oracle"), GroupRewards(truth, ["a"]))


def test_rewards_that_say_nothing() -> None:
    """They follow the generator, and nothing of the groups but their number."""
    many = GroupRewards(torch.arange(40_000.0).view(40, 1000), ["p"] * 40)
    first, again, other = (
        judged(rule("random_reward"), replace(many, rewards=scale * many.rewards), seed).rewards
        for scale, seed in ((1, 3), (-5, 3), (1, 4))
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).all(1).any()
    assert abs(float(first.mean())) < 0.02
    assert float(first.std()) == pytest.approx(1, abs=0.02)


def test_no_weight_falls_below_0_in_the_mirror() -> None:
    groups = GroupRewards(rows([0.0, 9.0], [1.0, 1.0], [1.0, 1.0]), ["a", "b", "c"])
    found = judged(rule("anti", of={"rule": "deviation"}), groups)
    assert weights(found) == [0.0, 2.0, 2.0]  # of 3, 0, 0


# Controls


def test_controls_by_hand() -> None:
    groups = GroupRewards(rows([0.0, 2.0], [1.0, 1.0], [4.0, 8.0]), ["a", "b", "c"])
    constant = judged(rule("constant", of={"rule": "deviation"}), groups)
    assert weights(constant) == pytest.approx([1.0] * 3)
    drawn = {
        tuple(weights(judged(rule("shuffled", of={"rule": "deviation"}), groups, seed)))
        for seed in range(30)
    }
    assert len(drawn) == 6
    assert {tuple(sorted(order)) for order in drawn} == {(0.0, 1.0, 2.0)}
    again = [judged(rule("shuffled", of={"rule": "deviation"}), groups, 7) for _ in range(2)]
    assert weights(again[0]) == weights(again[1])


def test_a_control_shows_its_own_weights_beside_the_other_rules_columns() -> None:
    groups = GroupRewards(rows([1.0, 2.0], [5.0, 6.0]), ["a", "b"], Calibration(0.0, 1.0, -3.0))
    answer = judged(rule("constant", of=FIXED), groups)
    assert answer.columns["prior"].tolist() == [0.0, 0.0]
    assert answer.columns["weight"].tolist() == weights(answer)


def test_a_control_remembers_for_the_other_rule() -> None:
    inner = {**FIXED, "prior": "moving_average", "fixed_prior": None}
    groups = GroupRewards(rows([1.0, 2.0], [5.0, 6.0]), ["a", "b"], Calibration(0.0, 1.0, -3.0))
    first, second = rule("shuffled", of=inner), rule("shuffled", of=inner)
    judged(first, groups)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    left, right = judged(first, groups, 3), judged(second, groups, 3)
    assert weights(left) == weights(right)
    assert left.columns["prior"].tolist() == right.columns["prior"].tolist() != [0.0, 0.0]


@pytest.mark.parametrize("name", ["shuffled", "constant", "anti"])
def test_controls_say_what_the_other_rule_says(name: str) -> None:
    inner = {"rule": "true_reliability", "reward": "oracle", "alpha": 1.0}
    settings = rule(name, of={"rule": "shuffled", "of": inner}).settings
    assert settings.effects() == {"weights"}
    assert settings.reads() == {"reference"}
    assert settings.reference_rewards() == ["oracle"]


@pytest.mark.parametrize("inner", [{**FIXED, "crt": "paper_exp"}, GARDO])
def test_controls_take_rules_that_give_weights_alone(inner: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="for rules that give weights alone"):
        rule("shuffled", of=inner)


# Settings


@pytest.mark.parametrize(
    "changes",
    [
        {"share": 0.3},
        {"step": 1.0},
        {"lowest": 0.0},
        {"window": 0},
        {"sign": "both"},
    ],
)
def test_gardo_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        rule(**(GARDO | changes))


@pytest.mark.parametrize("value", [{"rule": "bgpo"}, {"rule": ["bpgo"]}, {}, "bpgo", 3])
def test_a_field_of_rules_takes_registered_ones_only(value: Any) -> None:
    class Holder(Strict):
        trust: AnyTrustSettings | None = None

    with pytest.raises(ValidationError):
        Holder.model_validate({"trust": value})
    held = Holder.model_validate({"trust": FIXED}).trust
    assert isinstance(held, TrustSettings)
    assert held.rule == "bpgo"
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"trust": {**FIXED, "alhpa": 1.0}})
    assert caught.value.errors()[0]["loc"] == ("trust", "alhpa")


def test_a_rule_without_state_takes_none() -> None:
    with pytest.raises(ValueError, match="Deviation keeps no state"):
        rule("deviation").load_state_dict({"share": 0.1})
