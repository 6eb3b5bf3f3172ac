"""MixGRPO: a window of steps with noise, several rewards, and a shortened way after the window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from from_files import PROMPTS, STEPS, arm_of, sizes, trainer_of
from pydantic import ValidationError
from tiny_world import random_embeddings, same, tiny_policy, weights

from bpgo.core.advantage import group_advantage
from bpgo.core.layout import Layout
from bpgo.core.rollout import rollout, rollout_noise
from bpgo.errors import UserError
from bpgo.records import GroupRewards, Passes, Plan
from bpgo.seeding import generator

WINDOW = {"size": 2, "iterations": 1}  # of 6 steps: places 0, 1, 2 and, cut short, 3


def plan(iteration: int, **changes: Any) -> Plan:
    arm = arm_of("mix_grpo", window=WINDOW, **changes)
    return arm.plan(sizes(), iteration, generator(1, "plan", iteration))


def test_the_window_has_the_noise_and_is_trained_whole() -> None:
    for iteration, steps in enumerate([[0, 1], [1, 2], [2, 3], [3], [0, 1]], start=1):
        made = plan(iteration)
        assert made.trained.tolist() == [steps] * 8
        assert [row.nonzero().flatten().tolist() for row in made.stochastic] == [steps] * 8
        assert made.tail is None


def test_a_group_has_one_start() -> None:
    assert plan(1).noise_of[:4, 0].tolist() == [0, 0, 0, 0]
    assert plan(1).noise_of[:4, 1].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("key", ["trained_fraction", "step_selection"])
def test_keys_that_mean_nothing_here_are_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        arm_of("mix_grpo", **{key: {"trained_fraction": 0.5, "step_selection": "all"}[key]})


def test_a_window_that_does_not_fit_is_refused() -> None:
    arm_of("mix_grpo").check(sizes())
    with pytest.raises(UserError, match=r"^window.size: 5 is more than the 4 steps"):
        arm_of("mix_grpo", window={"size": 5}).check(sizes())


def test_passes() -> None:
    assert arm_of("mix_grpo").passes(sizes(8)) == Passes(8, 4, 0)
    assert arm_of("mix_grpo", kl_weight=0.1).passes(sizes(8)) == Passes(8, 4, 4)
    published = {"window": {"stride": 0}, "flash": 0.2}
    assert arm_of("mix_grpo", **published).passes(sizes(25)) == Passes(7, 4, 0)


def test_passes_of_a_moving_window_are_the_mean() -> None:
    # After the window come the levels (2, 6), (3, 6), (4, 6) and (4, 6): 3, 4, 5 and 5 passes.
    arm = arm_of("mix_grpo", window=WINDOW, flash=0.4)
    assert arm.passes(sizes()).rollout == 5
    made = [arm.plan(sizes(), n, generator(1)) for n in (1, 2, 3, 4)]
    assert [one.tail for one in made] == [[2, 6], [3, 6], [4, 6], [4, 6]]


def groups(**parts: list[list[float]]) -> GroupRewards:
    tensors = {name: torch.tensor(value) for name, value in parts.items()}
    part_weights = {"a": 3.0, "b": 1.0}
    total = sum(part_weights[name] * value for name, value in tensors.items())
    assert isinstance(total, torch.Tensor)
    return GroupRewards(total, ["p", "q"], parts=tensors, part_weights=part_weights)


A, B = [[0.0, 1.0, 2.0, 5.0], [1.0, 1.0, 2.0, 4.0]], [[9.0, 8.0, 0.0, 3.0], [70.0, 50.0, 0.0, 0.0]]


def test_each_reward_is_normalised_for_itself_and_weights_sum_to_one() -> None:
    arm = arm_of("mix_grpo")
    found = arm.advantage(groups(a=A, b=B)).advantage
    one, other = (group_advantage(torch.tensor(x), arm.settings.advantage) for x in (A, B))
    torch.testing.assert_close(found, 0.75 * one + 0.25 * other)
    scaled = arm.advantage(groups(a=A, b=[[x * 100 for x in row] for row in B])).advantage
    torch.testing.assert_close(found, scaled)


@pytest.mark.parametrize("combine", ["advantages", "rewards"])
def test_one_reward_is_plain(combine: str) -> None:
    arm = arm_of("mix_grpo", combine=combine)
    given = GroupRewards(torch.tensor(A), ["p", "q"])
    plain = group_advantage(given.rewards, arm.settings.advantage)
    assert torch.equal(arm.advantage(given).advantage, plain)


def test_the_sum_of_rewards_can_be_normalised_instead() -> None:
    arm, given = arm_of("mix_grpo", combine="rewards"), groups(a=A, b=B)
    plain = group_advantage(given.rewards, arm.settings.advantage)
    assert torch.equal(arm.advantage(given).advantage, plain)


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("combine", ["advantages", "rewards"])
def test_a_rule_with_other_rewards_needs_their_sum(combine: str, parts: int) -> None:
    why = arm_of("mix_grpo", combine=combine).refuses("rewards", parts)
    assert (why is not None) == (combine == "advantages" and parts > 1)
    assert why is None or "set combine: rewards" in why


class Counting:
    """A policy that keeps the noise levels it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.inner = tiny_policy(folder)
        self.seen: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def velocity(self, latents: torch.Tensor, sigma: torch.Tensor, *rest: Any) -> torch.Tensor:
        self.seen.append(float(sigma[0]))
        return self.inner.velocity(latents, sigma, *rest)


def drawn(folder: Path, made: Plan) -> tuple[Any, list[float]]:
    policy: Any = Counting(folder)
    rows = torch.arange(PROMPTS).repeat_interleave(4)
    noise = rollout_noise(policy.latent_shape, STEPS, 1, 1, ["a", "b"], made.noise_of)
    given = (policy, random_embeddings(PROMPTS).select(rows), noise, policy.sigmas(STEPS))
    return rollout(*given, "flow", 0.7, made, Layout(1, len(rows), 96)), policy.seen


def test_outside_the_window_a_step_has_no_noise(tiny_folder: Path) -> None:
    found, _ = drawn(tiny_folder, plan(2))
    assert found.log_probs.ne(0).any(dim=0).tolist() == [False, True, True, False, False, False]
    group = found.latents[:4]
    assert torch.equal(group[:, 1], group[:1, 1].expand_as(group[:, 1]))  # one start, one ODE step
    assert not torch.equal(group[0, 2], group[1, 2])


def test_flash_leaves_out_levels_after_the_window(tiny_folder: Path) -> None:
    whole, every = drawn(tiny_folder, plan(1))
    short, seen = drawn(tiny_folder, plan(1, flash=0.6))
    assert len(every) == 6
    assert seen == [every[level] for level in (0, 1, 2, 4)]  # of the levels 2 to 6: 2, 4, 6
    assert torch.equal(short.latents[:, :3], whole.latents[:, :3])
    assert torch.equal(short.log_probs, whole.log_probs)
    assert not short.latents[:, [3, 5]].any()
    assert (short.latents[:, 6] - whole.latents[:, 6]).abs().max() > 0


def test_flash_that_leaves_out_nothing_stays_near_the_euler_path(tiny_folder: Path) -> None:
    euler, _ = drawn(tiny_folder, plan(1))
    solved, seen = drawn(tiny_folder, replace(plan(1), tail=[2, 3, 4, 5, 6]))
    assert len(seen) == 6
    assert torch.equal(solved.latents[:, :3], euler.latents[:, :3])
    gap = (solved.latents[:, 6] - euler.latents[:, 6]).std() / euler.latents[:, 6].std()
    assert 0 < gap < 0.2


@pytest.mark.parametrize("changes", [{}, {"flash": 0.4}], ids=["plain", "flash"])
def test_first_ratios_are_exactly_one(
    changes: dict[str, Any], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"changes": {"window": WINDOW, **changes}}
    trainer = trainer_of(monkeypatch, tiny_folder, tmp_path, "mix_grpo", **options)
    before = {name: value.clone() for name, value in weights(trainer).items()}
    for iteration in (1, 4):
        entry = trainer.iterate(iteration)
        assert entry["ratio_deviation"] == 0.0
        assert entry["gradient_norm"] > 0
    assert not same(before, weights(trainer))


@pytest.mark.parametrize("strategy", ["progressive", "random"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    strategy: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"window": {**WINDOW, "strategy": strategy}}
    runs = []
    for name, stops in (("whole", []), ("parts", [2])):
        for end in [*stops, 4]:
            trainer = trainer_of(
                monkeypatch, tiny_folder, tmp_path / name, "mix_grpo", changes=changes,
                training={"iterations": end, "snapshot_every": 1},
            )  # fmt: skip
            trainer.run()
        runs.append(weights(trainer))
    assert same(*runs)
