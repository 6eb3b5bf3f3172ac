"""BranchGRPO's tree -> `bpgo.core.tree`.

A published tree is a list of nodes; ours is the number of leaves below a node at each depth.
"""

from __future__ import annotations

from typing import Any

import torch
from advantages import advantage_settings
from golden_case import Case

from bpgo.core.tree import PruningSettings, TreeSettings, depth_advantages, node_rewards

Answers = dict[str, Any]


def tree(case: Case) -> Answers:
    """Node rewards and advantages by depth; with the pruning block the edges that it keeps."""
    nodes = "log_probs" if case.has("log_probs") else "edge_log_prob"
    log_probs, parent = case.tensor(nodes), case.tensor("parent").tolist()
    depth = case.tensor("depth").tolist()
    leaf_nodes = case.tensor("leaf_ids" if case.has("leaf_ids") else "leaf_index").tolist()
    case.descriptive("binary_tree_depth", "sampling_steps")
    steps = max(depth)
    splits = case.arg("split_points", list(range(steps)))
    settings = TreeSettings(split_steps=splits, children=[2] * len(splits), noise_scale=4.0)
    leaves = settings.leaves(steps)
    paths = [_path(leaf, parent, depth, steps) for leaf in leaf_nodes]
    weighted = case.arg("use_prob_weighted")
    scores = torch.stack([log_probs[path[1:]] for path in paths])[None]
    values = node_rewards(case.tensor("leaf_rewards")[None], leaves, scores if weighted else None)
    norm = advantage_settings(ddof=1, epsilon=1e-8, min_group_std=1e-6, clip=None)
    found = depth_advantages(values, leaves, norm)
    answers = {name: torch.zeros(len(parent)).double() for name in ("reward", "advantage")}
    for sample, path in enumerate(paths):
        for level, node in enumerate(path):
            if node >= 0:
                answers["reward"][node] = values[0, sample, level]
                answers["advantage"][node] = found[0, sample, level]
    if case.arg("depth_pruning", None) is not None:
        answers["kept"] = torch.tensor([level - 1 in _kept(case, settings) for level in depth])
    return answers


def _path(node: int, parent: list[int], depth: list[int], steps: int) -> list[int]:
    """The nodes from the root to a leaf `[T+1]`; -1 for a root that is not in the list."""
    path = [-1] * (steps + 1)
    while node >= 0:
        path[depth[node]] = node
        node = parent[node]
    return path


def _kept(case: Case, settings: TreeSettings) -> list[int]:
    """The steps that are trained; a published depth is the step before it, plus one."""
    case.choice("pruning_step_ratio", {1.0: None})
    case.choice("depth_pruning_stop_depth", {None: None})
    case.descriptive("max_steps")
    pruning = PruningSettings(
        steps=[int(depth) - 1 for depth in case.arg("depth_pruning").split(",")],
        slide_every=case.arg("depth_pruning_slide_interval")
        if case.arg("depth_pruning_slide")
        else None,
        slide_to=settings.split_steps[-1] - 1,
        width=case.choice("width_pruning_mode", {0: "none", 1: "first"}),
        share=case.arg("width_pruning_ratio"),
    )
    steps = range(case.arg("sampling_steps"))
    return pruning.kept(steps, settings.split_steps[-1], case.arg("current_step"))
