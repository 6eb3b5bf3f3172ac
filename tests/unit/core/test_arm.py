"""The base arm: settings and the selection of trained steps."""

from __future__ import annotations

import pytest
import torch
from advantages import PLAIN
from pydantic import ValidationError

from bpgo import seeding
from bpgo.config.settings import RolloutSettings
from bpgo.core.policy_gradient import PolicyGradient, PolicyGradientSettings
from bpgo.errors import UserError

VALUES = {
    "algorithm": "grpo",
    "title": "GRPO",
    "kernel": "dance",
    "noise_level": 0.6,
    "shared_initial_noise": True,
    "trained_fraction": 0.6,
    "step_selection": "shared",
    "advantage": {**PLAIN, "epsilon": "1e-4"},
    "kl_weight": 0.0,
    "kl_form": "flow_grpo",
    "clip_range": "1e-3",
}


def _arm(**changes) -> PolicyGradient:
    return PolicyGradient(PolicyGradientSettings.model_validate({**VALUES, **changes}))


def test_numbers_that_yaml_reads_as_text() -> None:
    assert _arm().settings.clip_range == 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": "ddpm"},
        {"noise_level": 0},
        {"trained_fraction": 1.5},
        {"clip_range": -1},
        {"kl_weight": -0.1},
        {"step_selection": "all"},
        {"advantage": {**PLAIN, "epsilon": 0}},
        {"colour": "red"},
    ],
)
def test_values_out_of_range_are_refused(changes: dict) -> None:
    with pytest.raises(ValidationError):
        _arm(**changes)


def test_shared_steps() -> None:
    found = _arm().trained_steps(list(range(7)), 5, seeding.generator(0))
    assert found.shape == (5, 4)
    assert (found == found[0]).all()
    assert len(set(found[0].tolist())) == 4


def test_own_steps_of_each_sample() -> None:
    arm = _arm(step_selection="per_sample")
    found = arm.trained_steps([1, 2, 4, 5], 50, seeding.generator(0))
    assert found.shape == (50, 2)
    assert all(len(set(row)) == 2 for row in found.tolist())
    assert set(found.flatten().tolist()) == {1, 2, 4, 5}
    assert not (found == found[0]).all()


def test_all_steps_in_order() -> None:
    arm = _arm(step_selection="all", trained_fraction=1.0)
    found = arm.trained_steps([0, 1, 2], 2, seeding.generator(0))
    assert found.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_selections_share_one_stream() -> None:
    shared = _arm().trained_steps(list(range(7)), 5, seeding.generator(3))
    own = _arm(step_selection="per_sample").trained_steps(list(range(7)), 5, seeding.generator(3))
    assert torch.equal(shared[0], own[0])


def test_at_least_one_step() -> None:
    assert _arm(trained_fraction=0.1).trained_steps([3], 2, seeding.generator(0)).tolist() == [
        [3],
        [3],
    ]
    with pytest.raises(UserError, match="no stochastic step"):
        _arm().trained_steps([], 2, seeding.generator(0))


SIZES = RolloutSettings(prompts_per_iteration=2, group_size=3, steps=6, deterministic_tail=1)


def test_noise_in_the_first_steps_alone() -> None:
    """All of them are trained, or a share of them."""
    for changes, trained in (({"step_selection": "all", "trained_fraction": 1.0}, 3), ({}, 1)):
        arm = _arm(stochastic_steps=3, **changes)
        plan = arm.plan(SIZES, 1, seeding.generator(0))
        assert plan.stochastic.tolist() == [[True, True, True, False, False, False]] * 6
        assert plan.trained.shape == (6, trained)
        assert plan.trained.max() < 3
        assert arm.passes(SIZES).trained == trained


def test_without_a_number_all_steps_before_the_tail_have_noise() -> None:
    for number in (None, 5):
        plan = _arm(stochastic_steps=number).plan(SIZES, 1, seeding.generator(0))
        assert plan.stochastic.tolist() == [[True] * 5 + [False]] * 6


def test_no_more_steps_than_may_have_noise() -> None:
    with pytest.raises(UserError, match=r"stochastic_steps: 6 is more than the 5 steps") as caught:
        _arm(stochastic_steps=6).plan(SIZES, 1, seeding.generator(0))
    assert "deterministic_tail 1" in str(caught.value)
    with pytest.raises(ValidationError):
        _arm(stochastic_steps=0)


def test_a_state_of_another_arm_is_refused() -> None:
    with pytest.raises(ValueError, match="another state"):
        _arm().load_state_dict({"prior": {}})
