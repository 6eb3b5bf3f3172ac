"""BranchGRPO: a group is a tree, and each of its edges is trained once."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from from_files import GROUP, PROMPTS, STEPS, arm_of, sizes, trainer_of
from pydantic import ValidationError
from tiny_world import random_embeddings, same, tiny_policy, weights

from bpgo.core.layout import Layout
from bpgo.core.loss import clipped_surrogate
from bpgo.core.rollout import rollout, rollout_noise
from bpgo.core.trust import Effect
from bpgo.errors import UserError
from bpgo.records import GroupRewards, Passes, Plan, WeightedAdvantage
from bpgo.seeding import generator

TREE = {"split_steps": [0, 2], "children": [2, 2], "noise_scale": 4.0}  # of 6 steps, 5 with noise
EDGES = 2 + 2 + 4 + 4 + 4
HALF = 1 / math.sqrt(2)


def arm(**changes: Any) -> Any:
    return arm_of("branch_grpo", **{"tree": TREE, **changes})


def plan(iteration: int = 1, **changes: Any) -> Plan:
    made: Plan = arm(**changes).plan(sizes(), iteration, generator(1, "plan", iteration))
    return made


def groups(made: Plan | None = None, **changes: Any) -> GroupRewards:
    rewards = torch.tensor([[1.0, 3.0, 5.0, 9.0], [2.0, 2.0, 2.0, 2.0]])
    given = GroupRewards(rewards, ["p", "q"], plan=made or plan())
    return replace(given, **changes)


def test_the_plan_is_a_tree_in_each_group() -> None:
    made = plan()
    four = [[0] * 7, [0, 0, 0, 1, 1, 1, 1], [0, *[2] * 6], [0, 2, 2, 3, 3, 3, 3]]
    assert made.noise_of.tolist() == four * PROMPTS
    assert made.stochastic.tolist() == [[True] * 5 + [False]] * 8
    assert made.trained.tolist() == [[0, 1, 2, 3, 4]] * 8
    assert made.noise_scale is not None
    assert made.noise_scale.tolist() == [4.0, 1.0, 4.0, 1.0, 1.0, 1.0]


def test_paths_are_one_until_they_part(tiny_folder: Path) -> None:
    policy, made = tiny_policy(tiny_folder), plan()
    rows = torch.arange(PROMPTS).repeat_interleave(GROUP)
    noise = rollout_noise(policy.latent_shape, STEPS, 1, 1, ["a", "b"], made.noise_of)
    given = (policy, random_embeddings(PROMPTS).select(rows), noise, policy.sigmas(STEPS))
    path = rollout(*given, "dance", 0.6, made, Layout(1, len(rows), 96)).latents
    for first in (0, GROUP):
        one, other, third, fourth = path[first : first + GROUP]
        assert torch.equal(one[:3], other[:3])
        assert torch.equal(third[:3], fourth[:3])
        assert torch.equal(one[0], third[0])
        for step in range(3, STEPS + 1):
            assert not torch.equal(one[step], other[step])
            assert not torch.equal(third[step], fourth[step])
        for step in range(1, STEPS + 1):
            assert not torch.equal(one[step], third[step])


def test_advantages_of_edges_by_hand() -> None:
    term = arm(advantage={"clip": None}).advantage(groups())
    assert term.over == "step"
    share = GROUP * 5 / ((EDGES + EDGES) / 2)
    std = math.sqrt((3.5**2 + 1.5**2 + 0.5**2 + 4.5**2) / 3)
    low, high, late = -HALF * share, HALF * share, [x / std * share for x in (-3.5, -1.5, 0.5, 4.5)]
    wanted = [
        [low, 0.0, *[late[0]] * 3, 0.0],
        [0.0, low, *[late[1]] * 3, 0.0],
        [high, 0.0, *[late[2]] * 3, 0.0],
        [0.0, high, *[late[3]] * 3, 0.0],
    ]
    torch.testing.assert_close(term.advantage[0], torch.tensor(wanted))
    assert not term.advantage[1].any()  # equal rewards
    assert term.advantage.dtype == torch.float32


def test_the_loss_is_the_mean_over_edges() -> None:
    """Of both trees' edges, whatever share of the group each optimizer step takes."""
    chosen = arm()
    given = groups(rewards=torch.tensor([[1.0, 3.0, 5.0, 9.0], [0.0, 7.0, 1.0, 2.0]]))
    ratio = 1 + 0.01 * torch.randn(PROMPTS, GROUP, STEPS, generator=generator(3))
    ratio[:, [1, 3]] = torch.where(torch.arange(STEPS) < 2, ratio[:, [0, 2]], ratio[:, [1, 3]])
    found = chosen.advantage(given).advantage
    trained = clipped_surrogate(ratio, found, chosen.settings.clip_range)[..., :5].mean()
    losses = []
    for group in range(PROMPTS):
        rewards = given.rewards[group].double()
        for step, nodes in enumerate([[(0, 1), (2, 3)]] * 2 + [[(0,), (1,), (2,), (3,)]] * 3):
            values = torch.stack([rewards[list(node)].mean() for node in nodes])
            scores = (values - values.mean()) / values.std()
            for node, score in zip(nodes, scores, strict=True):
                one = ratio[group, node[0], step].double()[None]
                losses.append(clipped_surrogate(one, score[None], chosen.settings.clip_range))
    assert len(losses) == PROMPTS * EDGES
    torch.testing.assert_close(trained, torch.cat(losses).mean().float())


def test_nodes_weighted_by_probability() -> None:
    log_probs = torch.zeros(PROMPTS, GROUP, STEPS)
    log_probs[0, 1, 2] = math.log(3)
    chosen = arm(node_rewards="probability", advantage={"clip": None})
    found = chosen.advantage(groups(log_probs=log_probs)).advantage
    assert found[0, 0, 0] < 0 < found[0, 2, 0]
    uneven = log_probs.clone()
    uneven[0, :, 2] = torch.tensor([0.0, 40.0, 40.0, 0.0])  # a branch is the likelier of its two
    given = groups(log_probs=uneven, rewards=torch.tensor([[1.0, 6.0, 5.0, 9.0], [2.0] * 4]))
    found = chosen.advantage(given).advantage
    assert found[0, 0, 0] > 0 > found[0, 2, 0]
    plain = arm().advantage(given).advantage
    assert plain[0, 0, 0] < 0 < plain[0, 2, 0]


def test_pruned_steps_are_not_trained() -> None:
    changes = {"pruning": {"steps": [4], "slide_every": 2, "slide_to": 3, "width": "none"}}
    assert plan(1, **changes).trained[0].tolist() == [0, 1, 2, 3]
    assert plan(2, **changes).trained[0].tolist() == [0, 1, 2, 4]
    term = arm(**changes).advantage(groups(plan(2, **changes)))
    assert term.advantage[0].ne(0).sum(dim=0).tolist() == [2, 2, 4, 0, 4, 0]
    first = {"pruning": {"width": "first"}}
    assert plan(1, **first).trained[0].tolist() == [0, 1, 2, 3]
    assert arm(**first).passes(sizes()) == Passes(STEPS, 4)


def test_only_extremes_after_the_last_split() -> None:
    """Of the 16 edges after step 2 the 4 highest and the 4 lowest: those of the equal group go."""
    chosen = arm(pruning={"width": "extremes"}, advantage={"clip": None})
    found = chosen.advantage(groups()).advantage
    assert found[0].ne(0).sum(dim=0).tolist() == [2, 2, 4, 4, 4, 0]
    std = math.sqrt((3.5**2 + 1.5**2 + 0.5**2 + 4.5**2) / 3)
    edges = 2 * (2 + 2 + 4) + 8
    assert found[0, 3, 3].item() == pytest.approx(4.5 / std * PROMPTS * GROUP * 5 / edges)


def test_passes_count_shared_edges_for_each_sample() -> None:
    assert arm().passes(sizes()) == Passes(STEPS, 5, 0)
    assert arm(kl_weight=0.1).passes(sizes()) == Passes(STEPS, 5, 5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (sizes(group=12), r"^tree.children: \[2, 2\] multiply to 4 samples.*group_size is 12"),
        (sizes(steps=3), r"^tree.split_steps: \[0, 2\]: the steps with noise are 0 to 1"),
    ],
)
def test_a_tree_that_does_not_fit(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        arm().check(given)


def test_the_file_fits_the_embedded_default() -> None:
    arm_of("branch_grpo").check(sizes(steps=8, group=12))


def test_a_tree_has_one_root() -> None:
    with pytest.raises(ValidationError, match="shared_initial_noise"):
        arm(shared_initial_noise=False)


@pytest.mark.parametrize("effect", ["weights", "rewards", "sample_weights"])
def test_what_a_trust_rule_may_do(effect: Effect) -> None:
    why = arm().refuses(effect, parts=0)
    assert (why is not None) == (effect == "sample_weights")
    assert why is None or "belongs to several samples" in why


def test_weights_of_groups_go_to_all_their_nodes() -> None:
    chosen = arm()
    term = chosen.advantage(groups(rewards=torch.tensor([[1.0, 3.0, 5.0, 9.0]] * 2)))
    weighed: WeightedAdvantage = chosen.weighed(term, torch.tensor([1.0, 0.5]))
    assert torch.equal(weighed.advantage[1], weighed.advantage[0] / 2)


@pytest.mark.parametrize("node_rewards", ["mean", "probability"])
def test_first_ratios_are_exactly_one(
    node_rewards: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"tree": TREE, "node_rewards": node_rewards}
    trainer = trainer_of(monkeypatch, tiny_folder, tmp_path, "branch_grpo", changes=changes)
    seen: list[GroupRewards] = []
    inner = trainer.arm.advantage

    def watched(given: GroupRewards) -> WeightedAdvantage:
        seen.append(given)
        return inner(given)

    monkeypatch.setattr(trainer.arm, "advantage", watched)
    before = {name: value.clone() for name, value in weights(trainer).items()}
    entry = trainer.iterate(1)
    assert entry["ratio_deviation"] == 0.0
    assert entry["gradient_norm"] > 0
    assert not same(before, weights(trainer))
    log_probs = seen[0].log_probs
    assert log_probs is not None
    assert log_probs.shape == (PROMPTS, GROUP, STEPS)
    assert log_probs.ne(0).all(dim=0).all(dim=0).tolist() == [True] * 5 + [False]
    assert torch.equal(log_probs[:, 0, :2], log_probs[:, 1, :2])  # one edge


def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"tree": TREE, "pruning": {"steps": [4], "slide_every": 2, "slide_to": 3}}
    runs = []
    for name, ends in (("whole", [4]), ("parts", [2, 4])):
        for end in ends:
            trainer = trainer_of(
                monkeypatch, tiny_folder, tmp_path / name, "branch_grpo", changes=changes,
                training={"iterations": end, "snapshot_every": 1},
            )  # fmt: skip
            trainer.run()
        runs.append(weights(trainer))
    assert same(*runs)
