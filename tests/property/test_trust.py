"""What BPGO's formulas promise for any rewards."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bpgo.core.loss import clipped_surrogate
from bpgo.method.crt import paper_exp, released_sigmoid
from bpgo.method.objective import objective
from bpgo.method.ras import bayes_reliability, released_scale, sigmoid_weight
from bpgo.method.settings import BpgoSettings

settings.register_profile("bpgo", max_examples=40, deadline=None)
settings.load_profile("bpgo")

REWARD = st.floats(-20, 20)
GROUP = arrays("float64", (3, 6), elements=REWARD)
PRIORS = arrays("float64", (3,), elements=REWARD)

BASE = {
    "algorithm": "bpgo",
    "title": "BPGO",
    "kernel": "dance",
    "noise_level": 0.6,
    "shared_initial_noise": True,
    "trained_fraction": 0.6,
    "step_selection": "shared",
    "advantage": {},
    "clip_range": 1e-3,
}


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


@given(GROUP, PRIORS, st.floats(0, 2), st.floats(0.99, 1.01))
def test_objective_is_the_papers_sum(advantages, weights, varsigma, ratio) -> None:
    """Terms as weighted advantages give w L(A) + varsigma L(A~) of Eq. 5."""
    plain, weight = _tensors(advantages, abs(weights))
    other = plain.flip(1)
    ratios = torch.full_like(plain, ratio)
    terms = objective(plain, other, weight, varsigma)
    total = sum(t.weight * clipped_surrogate(ratios, t.advantage, 1e-3) for t in terms)
    first = weight[:, None] * clipped_surrogate(ratios, plain, 1e-3)
    expected = first + varsigma * clipped_surrogate(ratios, other, 1e-3)
    torch.testing.assert_close(total, expected)


@given(
    st.fixed_dictionaries(
        {
            "ras": st.sampled_from(["sigmoid", "bayes", "off"]),
            "crt": st.sampled_from(["paper_exp", "released_sigmoid", "off"]),
            "combine": st.sampled_from(["sum", "overwrite"]),
            "alpha": st.floats(0, 1),
            "k": st.floats(0, 100),
            "lambda": st.floats(0, 100),
            "varsigma": st.floats(0, 10),
            "momentum": st.floats(0, 0.99),
        }
    )
)
def test_settings_survive_the_way_through_json(values) -> None:
    chosen = BpgoSettings.model_validate({**BASE, **values})
    assert chosen.model_dump(mode="json")["lambda"] == values["lambda"]
    assert BpgoSettings.model_validate(chosen.model_dump(mode="json")) == chosen
    assert BpgoSettings.model_validate_json(chosen.model_dump_json()) == chosen
