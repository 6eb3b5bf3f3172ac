"""TempFlow-GRPO and Flash-GRPO: one noisy step a prompt, trained by all its samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from from_files import GROUP, PROMPTS, STEPS, arm_of, sizes, trainer_of
from pydantic import ValidationError

from bpgo.core.advantage import group_advantage
from bpgo.core.sde import flow_sigmas, log_prob, transition
from bpgo.core.single_step import SingleStep
from bpgo.errors import UserError
from bpgo.records import GroupRewards, Passes, Plan
from bpgo.seeding import generator

BOTH = ["tempflow_grpo", "flash_grpo"]
NOTHING = torch.zeros(0, dtype=torch.long)


def arm(name: str, **changes: Any) -> SingleStep:
    if name == "tempflow_grpo":
        changes = {"children": 2, "kl_weight": 0.0, **changes}
    found = arm_of(name, **changes)
    assert isinstance(found, SingleStep)
    return found


def plan(chosen: SingleStep, iteration: int = 1, prompts: int = PROMPTS) -> Plan:
    wanted = sizes().model_copy(update={"prompts_per_iteration": prompts})
    return chosen.plan(wanted, iteration, generator(1, "plan", iteration))


@pytest.mark.parametrize("name", BOTH)
def test_all_samples_of_a_prompt_have_one_noisy_step_and_train_it(name: str) -> None:
    for iteration in range(1, 9):
        made = plan(arm(name), iteration)
        assert made.stochastic.sum(dim=1).tolist() == [1] * PROMPTS * GROUP
        assert made.stochastic.float().argmax(dim=1).tolist() == made.trained.flatten().tolist()
        for rows in made.trained.view(PROMPTS, GROUP):
            assert len(rows.unique()) == 1
    assert arm(name).passes(sizes()) == Passes(STEPS, 1)
    assert arm(name, kl_weight=0.1).passes(sizes()) == Passes(STEPS, 1, 1)


def test_even_draws_have_each_step_equally_often() -> None:
    chosen = arm("tempflow_grpo", stochastic_steps=3)
    orders = set()
    for iteration in range(1, 30):
        drawn = plan(chosen, iteration, prompts=7).trained.view(7, GROUP)[:, 0]
        assert sorted(drawn.bincount(minlength=3).tolist()) == [2, 2, 3]
        orders.add(tuple(drawn.tolist()))
    assert len(orders) == 6  # all orders of three steps


def test_random_draws_stay_among_the_first_steps() -> None:
    chosen = arm("flash_grpo", stochastic_steps=3)
    drawn = [tuple(plan(chosen, n).trained[::GROUP, 0].tolist()) for n in range(1, 200)]
    assert {step for pair in drawn for step in pair} == {0, 1, 2}
    assert len(set(drawn)) == 9  # also twice the same


def test_a_family_shares_its_start_and_no_other_noise() -> None:
    noise_of = plan(arm("tempflow_grpo")).noise_of[:GROUP].tolist()
    assert noise_of == [[0, *[0] * 6], [0, *[1] * 6], [2, *[2] * 6], [2, *[3] * 6]]
    assert plan(arm("flash_grpo")).noise_of[:GROUP].tolist() == [[k] * 7 for k in range(4)]


@pytest.mark.parametrize("name", BOTH)
def test_a_group_is_computed_once_where_it_is_alike(
    name: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two families are two rows up to their step, four rows from there on; others are four."""
    changes = {"children": 2} if name == "tempflow_grpo" else {}
    trainer = trainer_of(monkeypatch, tiny_folder, tmp_path, name, changes=changes)
    steps = trainer.plan(1).trained[::GROUP, 0].tolist()
    entry = trainer.iterate(1)
    before = GROUP // 2 if name == "tempflow_grpo" else GROUP
    expected = sum(before * (step + 1) + GROUP * (STEPS - step - 1) for step in steps)
    assert entry["rollout_passes"] == expected
    assert entry["trained_passes"] == before * PROMPTS


def groups(made: Plan) -> GroupRewards:
    rewards = torch.tensor([[1.0, 3.0, 5.0, 9.0], [2.0, 0.0, 2.0, 7.0]])
    return GroupRewards(rewards, ["p", "q"], plan=made, sigmas=flow_sigmas(STEPS, 3.0))


@pytest.mark.parametrize("name", BOTH)
def test_advantages_weigh_as_their_step(name: str) -> None:
    chosen = arm(name)
    made = plan(chosen, 3)
    made = replace(made, trained=torch.tensor([0, 2]).repeat_interleave(GROUP)[:, None])
    found = chosen.advantage(groups(made)).advantage
    plain = group_advantage(groups(made).rewards, chosen.settings.advantage)
    weights = chosen.step_weights(flow_sigmas(STEPS, 3.0), made.trained.flatten())
    expected = weights[[0, 2]].float()[:, None] * plain
    torch.testing.assert_close(found, expected)
    off = arm(name, step_weight="none").advantage(groups(made)).advantage
    assert torch.equal(off, plain)


def test_tempflows_weights_are_1_on_average_or_a_multiple_of_the_std() -> None:
    sigmas = flow_sigmas(STEPS)
    even = arm("tempflow_grpo", kernel="dance").step_weights(sigmas, NOTHING)
    torch.testing.assert_close(even, torch.ones(STEPS).double())  # equal steps, equal noise
    few = arm("tempflow_grpo", stochastic_steps=2).step_weights(sigmas, NOTHING)
    assert few[:2].mean().item() == pytest.approx(1)
    # Flow-GRPO's first step: eta itself.
    times = arm("tempflow_grpo", weight_norm=2.25).step_weights(sigmas, NOTHING)
    assert times[0].item() == pytest.approx(2.25 * 0.7)


@pytest.mark.parametrize("kernel", ["wan", "flow", "dance"])
def test_flashs_weights_make_every_steps_gradient_count_alike(kernel: str) -> None:
    """The gradient of log p by the velocity, for noise of one size, times the weight."""
    sigmas = flow_sigmas(STEPS, 3.0).double()
    chosen = arm("flash_grpo", kernel=kernel)
    drawn = torch.tensor([0, 0, 2, 3])
    weights = chosen.step_weights(sigmas, drawn)
    assert weights[drawn].mean().item() == pytest.approx(1)
    sized = []
    for step in range(STEPS - 1):
        velocity = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
        levels = (sigmas[step], sigmas[step + 1], chosen.noise_level)
        moved = transition(kernel, velocity, velocity.detach(), *levels, sigma_max=sigmas[1])
        reached = moved.sample(torch.ones(1, 5)).detach()
        log_prob(reached, moved.mean, moved.std).sum().backward()
        assert velocity.grad is not None
        sized.append(velocity.grad.abs().mean() * weights[step])
    torch.testing.assert_close(torch.stack(sized), sized[0].expand(STEPS - 1))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"^children: 3 does not divide rollout.group_size.* 4"):
        arm("tempflow_grpo", children=3).check(sizes())
    with pytest.raises(UserError, match=r"^stochastic_steps: 6 is more than the 5 steps"):
        arm("flash_grpo", stochastic_steps=6).check(sizes())
    with pytest.raises(ValidationError, match="shared_initial_noise"):
        arm("tempflow_grpo", shared_initial_noise=True)
    with pytest.raises(ValidationError, match="children"):
        arm("tempflow_grpo", children=1)
