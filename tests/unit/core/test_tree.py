"""Trees of samples, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from advantages import advantage_settings
from pydantic import ValidationError

from bpgo.config.settings import RolloutSettings
from bpgo.core.tree import (
    PruningSettings,
    TreeSettings,
    carriers,
    depth_advantages,
    node_rewards,
    tree_noise,
)
from bpgo.errors import UserError

PLAIN = advantage_settings(ddof=1, epsilon=1e-12, min_group_std=1e-6)
# Four samples of four steps: two branches from step 0 on, each two from step 2 on.
FOUR = TreeSettings(split_steps=[0, 2], children=[2, 2], noise_scale=4.0)
LEAVES = [4, 2, 2, 1, 1]


def pruning(**changes: Any) -> PruningSettings:
    values: dict[str, Any] = {
        "steps": [],
        "slide_every": None,
        "slide_to": 0,
        "width": "none",
        "share": 0.5,
    }
    return PruningSettings.model_validate({**values, **changes})


def test_samples_below_the_nodes_of_each_depth() -> None:
    assert FOUR.leaves(4) == LEAVES
    dozen = TreeSettings(split_steps=[0, 2, 4], children=[3, 2, 2], noise_scale=1.0)
    assert dozen.leaves(6) == [12, 4, 4, 2, 2, 1, 1]


def test_whose_noise_each_sample_has() -> None:
    assert tree_noise(LEAVES) == [
        [0, 0, 0, 0, 0],
        [0, 0, 0, 1, 1],
        [0, 2, 2, 2, 2],
        [0, 2, 2, 3, 3],
    ]


def test_only_splits_are_louder() -> None:
    assert FOUR.scales(4) == [4.0, 1.0, 4.0, 1.0]


def test_node_rewards_are_means_of_the_samples_below() -> None:
    found = node_rewards(torch.tensor([[1.0, 3.0, 5.0, 9.0]]), LEAVES)
    assert found.tolist() == [
        [
            [4.5, 2.0, 2.0, 1.0, 1.0],
            [4.5, 2.0, 2.0, 3.0, 3.0],
            [4.5, 7.0, 7.0, 5.0, 5.0],
            [4.5, 7.0, 7.0, 9.0, 9.0],
        ]
    ]


def test_node_rewards_weighted_by_the_probability_of_the_edges() -> None:
    scores = torch.zeros(1, 4, 4)
    scores[0, :, 2] = torch.tensor([math.log(3), 0.0, 0.0, 0.0])  # 3 to 1, and 1 to 1
    scores[0, 2:, 0] = math.log(4)  # 1 to 4
    scores[0, :, 1] = scores[0, :, 3] = 7.0  # no split, so without effect
    found = node_rewards(torch.tensor([[1.0, 3.0, 5.0, 9.0]]), LEAVES, scores)
    assert found[0, :, 2].tolist() == pytest.approx([1.5, 1.5, 7.0, 7.0])
    assert found[0, 0, 0].item() == pytest.approx(0.2 * 1.5 + 0.8 * 7.0)


def test_advantages_compare_the_nodes_of_a_depth() -> None:
    values = node_rewards(torch.tensor([[1.0, 3.0, 5.0, 9.0], [2.0, 2.0, 2.0, 2.0]]), LEAVES)
    found = depth_advantages(values, LEAVES, PLAIN)
    assert found[0, :, 0].tolist() == [0.0] * 4  # the root is alone
    half = 1 / math.sqrt(2)
    assert found[0, :, 2].tolist() == pytest.approx([-half, -half, half, half])
    std = math.sqrt((3.5**2 + 1.5**2 + 0.5**2 + 4.5**2) / 3)
    assert found[0, :, 4].tolist() == pytest.approx([x / std for x in (-3.5, -1.5, 0.5, 4.5)])
    assert not found[1].any()


def test_one_sample_carries_an_edge_and_another_the_next() -> None:
    found = carriers(LEAVES, [0, 1, 2, 3]).int().tolist()
    assert found == [[1, 0, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1], [0, 1, 1, 1]]
    assert carriers(LEAVES, [1, 3]).int().sum(dim=0).tolist() == [0, 2, 0, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split_steps": [2, 0]}, "must rise"),
        ({"split_steps": [1, 1]}, "must rise"),
        ({"children": [2]}, "one number for each of split_steps"),
        ({"children": [2, 1]}, "children.1"),
        ({"split_steps": []}, "split_steps"),
    ],
)
def test_a_tree_that_is_none(changes: dict[str, Any], message: str) -> None:
    values = {"split_steps": [0, 2], "children": [2, 2], "noise_scale": 1.0}
    with pytest.raises(ValidationError, match=message):
        TreeSettings.model_validate({**values, **changes})


def sizes(steps: int, group: int) -> RolloutSettings:
    return RolloutSettings(prompts_per_iteration=2, group_size=group, steps=steps)


def test_a_tree_is_the_group() -> None:
    FOUR.check(sizes(4, 4), "tree")
    with pytest.raises(UserError, match=r"^tree.children: \[2, 2\] multiply to 4 .* is 12"):
        FOUR.check(sizes(4, 12), "tree")


def test_a_tree_splits_where_there_is_noise() -> None:
    with pytest.raises(UserError, match=r"^tree.split_steps: \[0, 2\]: .* are 0 to 1 "):
        FOUR.check(sizes(3, 4), "tree")


def test_pruned_steps_slide_towards_the_root_and_stop() -> None:
    chosen = pruning(steps=[4, 5], slide_every=3, slide_to=3)
    kept = [chosen.kept(range(6), 2, iteration) for iteration in (1, 2, 3, 5, 6, 99)]
    assert kept == [[0, 1, 2, 3], [0, 1, 2, 3], *[[0, 1, 2, 5]] * 4]


def test_the_first_edges_after_the_last_split() -> None:
    chosen = pruning(width="first")
    assert chosen.kept(range(7), 2, 1) == [0, 1, 2, 3, 4]
    assert chosen.kept(range(4), 2, 1) == [0, 1, 2, 3]  # one at least
    assert chosen.kept(range(3), 2, 1) == [0, 1, 2]


def test_nothing_left_to_train() -> None:
    with pytest.raises(UserError, match=r"^pruning.steps: \[0, 1\] leaves no step"):
        pruning(steps=[0, 1]).kept(range(2), 0, 1)


def test_the_extremes_of_the_late_edges() -> None:
    advantages = torch.tensor([[[9.0, 1.0, 2.0], [-9.0, 3.0, -4.0]], [[0.0, 5.0, 0.5]] * 2])
    edges = torch.ones(2, 2, 3, dtype=torch.bool)
    edges[1, 1] = False  # not an edge of its own
    # After step 0: 1, 2, 3, -4, 5, .5; the half of them is 3: the highest and the two lowest.
    kept = pruning(width="extremes").extremes(advantages, edges, 0)
    assert kept[..., 0].tolist() == edges[..., 0].tolist()
    assert sorted(advantages[..., 1:][kept[..., 1:]].tolist()) == [-4.0, 0.5, 5.0]


def test_one_late_edge_is_kept() -> None:
    edges = torch.tensor([[[True, True], [True, False]]])
    assert torch.equal(pruning(width="extremes").extremes(torch.zeros(1, 2, 2), edges, 0), edges)
