"""What BPGO's formulas and the trust rules promise for any rewards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from advantages import advantage_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from trusted import weighted_terms

from bpgo import registry, seeding
from bpgo.core.advantage import group_advantage
from bpgo.core.loss import clipped_surrogate
from bpgo.core.trust import Trusted
from bpgo.records import Calibration, GroupRewards
from bpgo.trust.bpgo import Bpgo, BpgoSettings
from bpgo.trust.crt import paper_exp, released_sigmoid
from bpgo.trust.gardo import GardoSettings, ShareController
from bpgo.trust.ras import bayes_reliability, released_scale, sigmoid_weight

settings.register_profile("bpgo", max_examples=40, deadline=None)
settings.load_profile("bpgo")

REWARD = st.floats(-20, 20)


def setting(least: float, most: float) -> st.SearchStrategy[float]:
    """Of what a settings class takes: 0, or no smaller than float32 holds."""
    return st.floats(least, most).filter(lambda x: x == 0 or abs(x) >= 1e-30)


ADVANTAGE = advantage_settings()
GROUP = arrays("float64", (3, 6), elements=REWARD)
PRIORS = arrays("float64", (3,), elements=REWARD)


def _tensors(*values):
    return [torch.from_numpy(value) for value in values]


@given(GROUP, PRIORS, st.floats(0, 1), st.floats(0, 50))
def test_sigmoid_weight_lies_in_its_range_and_rises(rewards, priors, alpha, k) -> None:
    mean, prior = _tensors(rewards.mean(axis=1), priors)
    weight = sigmoid_weight(mean, prior, alpha, k)
    assert (weight >= 1 - alpha - 1e-12).all()
    assert (weight <= 1 + alpha + 1e-12).all()
    assert (sigmoid_weight(mean + 0.5, prior, alpha, k) >= weight).all()
    assert (sigmoid_weight(mean, prior + 0.5, alpha, k) <= weight).all()
    assert torch.equal(sigmoid_weight(mean, prior, 0.0, k), torch.ones(3, dtype=torch.float64))


@given(GROUP, PRIORS, st.floats(0.01, 10))
def test_bayes_reliability_lies_in_its_range_and_rises(rewards, priors, variance) -> None:
    rewards, prior = _tensors(rewards, priors)
    weight = bayes_reliability(rewards, prior, variance, (0.5, 1.5))
    assert ((weight >= 0.5) & (weight <= 1.5)).all()
    assert (bayes_reliability(rewards + 0.5, prior, variance, (0.5, 1.5)) >= weight - 1e-9).all()
    assert torch.equal(released_scale(weight, 0.0), torch.ones(3, dtype=torch.float64))


@given(GROUP, PRIORS, st.floats(0, 10), st.sampled_from(["published", "floor"]))
def test_paper_crt_keeps_the_order_above_its_turning_point(rewards, priors, lambda_, rule) -> None:
    rewards, prior = _tensors(rewards, priors)
    found = paper_exp(rewards, prior, lambda_, below_prior=rule).rewards
    assert found.isfinite().all()
    for reward, value, anchor in zip(rewards, found, prior, strict=True):
        kept = reward >= anchor - 1 if rule == "published" else torch.ones_like(reward).bool()
        order = reward[kept].argsort(stable=True)
        steps = value[kept][order].diff()
        assert (steps >= -1e-9 * value.abs().max()).all()
        assert ((value[reward > anchor]) > 0).all()
        assert ((value[reward <= anchor]) <= 0).all()


@given(GROUP, PRIORS)
def test_released_crt_keeps_the_order_above_a_positive_prior(rewards, priors) -> None:
    rewards, prior = _tensors(abs(rewards), abs(priors))
    found = released_sigmoid(rewards, prior, 50.0, 5.0)
    assert found.rewards.isfinite().all()
    for reward, value, anchor in zip(rewards, found.rewards, prior, strict=True):
        above = reward > anchor
        order = reward[above].argsort(stable=True)
        assert (value[above][order].diff() >= -1e-9).all()


@given(GROUP, setting(-20, 20), setting(0, 1), setting(0, 2), st.floats(0.99, 1.01))
def test_a_rules_answer_is_the_papers_sum(rewards, prior, alpha, varsigma, ratio) -> None:
    """Weights and term give w L(A) + varsigma L(A~) of Eq. 5."""
    (rewards,) = _tensors(rewards)
    chosen = {"prior": "fixed", "fixed_prior": prior, "reward_scale": "raw", "exponent_clamp": 5.0}
    settings = BpgoSettings.model_validate({**chosen, "alpha": alpha, "varsigma": varsigma})
    groups = GroupRewards(rewards, ["a", "b", "c"], Calibration(0.0, 4.0, -20.0))
    answer = Bpgo(settings).judge(groups, torch.Generator())
    ratios = torch.full_like(rewards, ratio)
    terms = weighted_terms(answer, groups, ADVANTAGE)
    total = sum(weight * clipped_surrogate(ratios, found, 1e-3) for weight, found in terms)
    anchor = torch.full((3,), prior, dtype=torch.float64)
    weight = sigmoid_weight(rewards.mean(1), anchor, alpha, 2.0 / 4.0)
    plain = group_advantage(rewards, ADVANTAGE)
    other = group_advantage(paper_exp(rewards, anchor, 1.0, 5.0).rewards, ADVANTAGE)
    first = weight[:, None] * clipped_surrogate(ratios, plain, 1e-3)
    expected = first + varsigma * clipped_surrogate(ratios, other, 1e-3)
    torch.testing.assert_close(total, expected)


# Rules, on an ensemble of three members. The weights of each for groups in another order.
TRUTH = {"rule": "true_reliability", "reward": "oracle", "alpha": 1.0}
WEIGHING: list[dict[str, Any]] = [
    {"rule": "bpgo", "crt": "off"},
    {"rule": "bpgo", "crt": "off", "ras": "bayes", "alpha": 1.0},
    {"rule": "agreement"},
    {"rule": "signal_to_noise"},
    {"rule": "deviation"},
    {"rule": "specified", "alpha": 0.5},
    TRUTH,
    {"rule": "anti", "of": TRUTH},
    {"rule": "constant", "of": {"rule": "deviation"}},
]
MEMBERS = arrays("float64", (3, 4, 5), elements=st.floats(-20, 20).map(lambda x: round(x, 1)))


def _ensemble(members) -> GroupRewards:
    parts = dict(zip("xyz", _tensors(*members), strict=True))
    return GroupRewards(
        sum(parts.values()) / 3,  # type: ignore[arg-type]
        ["a", "b", "c", "d"],
        Calibration(0.5, 2.0, -9.0),
        parts=parts,
        part_weights=dict.fromkeys("xyz", 1 / 3),
        ambiguity=torch.tensor([0.0, 0.3, 1.0, float("nan")]),
        reference={"oracle": parts["x"]},
    )


def _reordered(groups: GroupRewards, order: list[int]) -> GroupRewards:
    return replace(
        groups,
        rewards=groups.rewards[order],
        prompt_ids=[groups.prompt_ids[i] for i in order],
        parts={name: part[order] for name, part in groups.parts.items()},
        ambiguity=groups.ambiguity[order],  # type: ignore[index]
        reference={name: found[order] for name, found in groups.reference.items()},
    )


def _judge(rule: dict[str, Any], groups: GroupRewards, seed: int = 0) -> Trusted:
    chosen = registry.load_trust_class(rule["rule"])
    made = chosen(chosen.Settings.model_validate(rule))
    answer: Trusted = made.judge(groups, seeding.generator(seed))
    return answer


@given(MEMBERS, st.permutations(range(4)), st.sampled_from(WEIGHING))
def test_weights_move_with_their_groups(members, order, rule) -> None:
    groups = _ensemble(members)
    found = _judge(rule, groups).weights
    assert found is not None
    assert (found >= 0).all()
    assert found.isfinite().all()
    moved = _judge(rule, _reordered(groups, order)).weights
    torch.testing.assert_close(moved, found[list(order)])


@given(MEMBERS, st.sampled_from(WEIGHING), st.integers(0, 9))
def test_controls_keep_what_they_promise(members, rule, seed) -> None:
    groups = _ensemble(members)
    own = _judge(rule, groups).weights
    shuffled = _judge({"rule": "shuffled", "of": rule}, groups, seed).weights
    constant = _judge({"rule": "constant", "of": rule}, groups).weights
    mirror = _judge({"rule": "anti", "of": rule}, groups).weights
    assert own is not None
    assert shuffled is not None
    assert constant is not None
    assert torch.equal(shuffled.sort().values, own.sort().values)
    torch.testing.assert_close(constant, own.mean().expand(4))
    torch.testing.assert_close(mirror, (2 - own).clamp(min=0))


@given(MEMBERS)
def test_rules_of_mean_one_have_it(members) -> None:
    for name in ("agreement", "signal_to_noise", "deviation"):
        found = _judge({"rule": name}, _ensemble(members)).weights
        assert found is not None
        torch.testing.assert_close(found.mean(), torch.ones((), dtype=torch.float64))


@given(MEMBERS, st.floats(1e-3, 1e3), st.floats(1.01, 100))
def test_pessimism_lies_between_the_worst_and_the_mean_and_falls_with_beta(
    members, beta, factor
) -> None:
    groups = _ensemble(members)
    found, braver = (
        _judge({"rule": "pessimistic", "beta": value}, groups).rewards
        for value in (beta, beta * factor)
    )
    worst = torch.stack(list(groups.parts.values())).amin(dim=0)
    assert found is not None
    assert braver is not None
    assert (found >= worst - 1e-8).all()
    assert (braver >= found - 1e-8).all()
    assert (braver <= groups.rewards + 1e-8).all()


@given(MEMBERS, st.sampled_from(["over_rated", "as_released"]))
def test_the_gate_holds_at_most_its_share_of_the_uncertain_samples(members, sign) -> None:
    rule = {"rule": "gardo", "share": 0.1, "step": 0.1, "lowest": 0.02, "highest": 0.2}
    groups = _ensemble(members)
    answer = _judge({**rule, "window": 20, "sign": sign}, groups)
    assert answer.gate is not None
    assert answer.gate.shape == groups.rewards.shape
    assert answer.gate.sum() <= 0.1 * groups.rewards.numel() + 1
    assert answer.scalars["gate_share"] == 0.1
    assert answer.weights is None


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(1, 20))
def test_the_share_moves_by_one_step_at_most_and_stays_in_its_range(means, window) -> None:
    settings = {"share": 0.1, "step": 0.1, "lowest": 0.02, "highest": 0.2, "window": window}
    controller = ShareController(GardoSettings.model_validate(settings))
    before = 0.1
    for mean in means:
        share = controller.update(mean)
        assert 0.02 <= share <= 0.2
        assert 0.9 * before - 1e-12 <= share <= 1.1 * before + 1e-12
        assert len(controller.means) <= window
        before = share


@given(
    st.fixed_dictionaries(
        {
            "ras": st.sampled_from(["sigmoid", "bayes", "off"]),
            "crt": st.sampled_from(["paper_exp", "released_sigmoid", "off"]),
            "combine": st.sampled_from(["sum", "overwrite"]),
            "alpha": setting(0, 1),
            "k": setting(0, 100),
            "lambda": setting(0, 100),
            "varsigma": setting(0, 10),
            "momentum": setting(0, 0.99),
        }
    )
)
def test_settings_survive_the_way_through_json(values) -> None:
    chosen = BpgoSettings.model_validate(values)
    assert chosen.model_dump(mode="json")["lambda"] == values["lambda"]
    assert BpgoSettings.model_validate(chosen.model_dump(mode="json")) == chosen
    assert BpgoSettings.model_validate_json(chosen.model_dump_json()) == chosen
