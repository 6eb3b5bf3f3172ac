"""A group as a tree: its samples share their noise until they part (BranchGRPO, arXiv 2509.06040).

A node at depth t is what samples have in common after t steps; the edge into it is step t - 1. The
root (depth 0) is the start that all share. Samples are the leaves, in the tree's order, so a node's
samples are neighbours, and the whole tree is one number a depth: the samples below each node.

Shapes: P groups, G samples a group, T steps, so T + 1 depths. Importing this file does not import
torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from bpgo.config.fields import Count, Fraction, Positive, Strict
from bpgo.config.settings import RolloutSettings
from bpgo.core.advantage import AdvantageSettings, group_advantage
from bpgo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Step = Annotated[int, Field(ge=0)]


class TreeSettings(Strict):
    """Where a tree splits, and into how many."""

    split_steps: Annotated[list[Step], Field(min_length=1)]  # steps at which paths part
    children: list[Annotated[int, Field(ge=2)]]  # of a node, at each of these steps
    noise_scale: Positive  # of the noise at these steps; the log-probability leaves it out

    @model_validator(mode="after")
    def _one_number_a_split(self) -> TreeSettings:
        if any(later <= step for step, later in pairwise(self.split_steps)):
            raise ValueError(f"split_steps: {self.split_steps} must rise")
        if len(self.children) != len(self.split_steps):
            raise ValueError(
                f"children: {self.children} must hold one number for each of split_steps, which is"
                f" {self.split_steps}"
            )
        return self

    def check(self, sizes: RolloutSettings, key: str) -> None:
        """`UserError` where the tree is not the group, or splits where there is no noise."""
        last = sizes.steps - sizes.deterministic_tail - 1
        if self.split_steps[-1] > last:
            raise UserError(
                f"{key}.split_steps: {self.split_steps}: the steps with noise are 0 to {last}"
                f" (rollout.steps {sizes.steps}, deterministic_tail {sizes.deterministic_tail})"
            )
        leaves = self.leaves(sizes.steps)[0]
        if leaves != sizes.group_size:
            raise UserError(
                f"{key}.children: {self.children} multiply to {leaves} samples, but"
                f" rollout.group_size is {sizes.group_size}; they must be equal"
            )

    def leaves(self, steps: int) -> list[int]:
        """Samples below a node at each depth `[T+1]`; the first number is G."""
        splits = dict(zip(self.split_steps, self.children, strict=True))
        found = [1]
        for step in reversed(range(steps)):
            found.append(found[-1] * splits.get(step, 1))
        return found[::-1]

    def scales(self, steps: int) -> list[float]:
        """How loud the noise of each step is `[T]`, 1 as the kernel says."""
        return [self.noise_scale if step in self.split_steps else 1.0 for step in range(steps)]


class PruningSettings(Strict):
    """Edges that are drawn and not trained.

    By depth: the steps `steps`, all of them one earlier after each `slide_every` iterations, until
    the first is `slide_to`. By width: of the edges after the last split only `share` is trained,
    the `first` of each path, or the `extremes`, half of it with the highest and half with the
    lowest advantages of the batch.
    """

    steps: list[Step]  # that are not trained
    slide_every: Count | None  # iterations after which they move one earlier; None: they stay
    slide_to: Step  # the earliest step that the first of them becomes
    # Which edges after the last split are trained; none: all.
    width: Literal["none", "first", "extremes"]
    share: Fraction  # of those edges

    def kept(self, steps: Iterable[int], last_split: int, iteration: int) -> list[int]:
        """Those of the steps that are trained in an iteration, numbered from 1.

        `UserError`, which names the arm's key `pruning`, if there is none.
        """
        slid = 0
        if self.steps and self.slide_every:
            slid = min(iteration // self.slide_every, max(0, min(self.steps) - self.slide_to))
        kept = [step for step in steps if step + slid not in self.steps]
        late = [step for step in kept if step > last_split]
        if self.width == "first" and late:
            count = max(1, int(len(late) * self.share))
            kept = [step for step in kept if step not in late[count:]]
        if not kept:
            raise UserError(f"pruning.steps: {self.steps} leaves no step to train")
        return kept

    def extremes(self, advantages: Tensor, edges: Tensor, last_split: int) -> Tensor:
        """Those of `edges` `[P, G, T]` bool that `extremes` keeps, by their advantages."""
        late = edges.clone()
        late[..., : last_split + 1] = False
        found = advantages[late]
        count = max(2, int(len(found) * self.share))
        order = found.argsort(descending=True, stable=True)
        chosen = found.new_ones(len(found), dtype=edges.dtype)
        chosen[order[count // 2 : max(count // 2, len(found) - (count - count // 2))]] = False
        kept = edges.clone()
        kept[late] = chosen
        return kept


def tree_noise(leaves: list[int]) -> list[list[int]]:
    """Whose noise each sample has `[G][T+1]` (`bpgo.records.Plan`): its node's first sample's."""
    return [[sample // below * below for below in leaves] for sample in range(leaves[0])]


def node_rewards(rewards: Tensor, leaves: list[int], log_probs: Tensor | None = None) -> Tensor:
    """The reward of each sample's node at each depth `[P, G, T+1]`, from its own `[P, G]`.

    A node's reward is the mean of its children's; with `log_probs` `[P, G, T]` of the steps their
    mean weighted by the softmax of the edges' log-probabilities. float64.
    """
    import torch

    found = [rewards.double()]
    for depth in reversed(range(len(leaves) - 1)):
        values, below = found[-1], leaves[depth + 1]
        if leaves[depth] > below:
            children = _by_parent(values, leaves[depth], below)
            if log_probs is None:
                joined = children.mean(dim=-1)
            else:
                scores = _by_parent(log_probs[..., depth].double(), leaves[depth], below)
                joined = (scores.softmax(dim=-1) * children).sum(dim=-1)
            values = joined.repeat_interleave(leaves[depth], dim=1)
        found.append(values)
    return torch.stack(found[::-1], dim=-1)


def _by_parent(values: Tensor, leaves: int, below: int) -> Tensor:
    """`[P, parents, children]` of values `[P, G]`; parents have `leaves` samples, children `below`.

    All samples of a node have its value.
    """
    return values[:, ::below].unflatten(1, (-1, leaves // below))


def depth_advantages(values: Tensor, leaves: list[int], settings: AdvantageSettings) -> Tensor:
    """Advantages `[P, G, T+1]` of nodes among those of their depth in their own tree."""
    import torch

    found = [
        group_advantage(values[:, ::below, depth], settings).repeat_interleave(below, dim=1)
        for depth, below in enumerate(leaves)
    ]
    return torch.stack(found, dim=-1)


def carriers(leaves: list[int], trained: list[int]) -> Tensor:
    """Which sample stands for an edge `[G, T]` bool: one for each edge of a trained step.

    Another one at the next step, so that each optimizer step, which trains some samples of a group,
    has edges of many depths.
    """
    import torch

    sample, below = torch.arange(leaves[0])[:, None], torch.tensor(leaves[1:])
    step = torch.arange(len(below))
    return (sample % below == step % below) & torch.isin(step, torch.tensor(trained))
