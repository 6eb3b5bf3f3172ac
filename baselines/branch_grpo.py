"""BranchGRPO, over 80 lines: a tree's plan, the rewards of its nodes and two ways to prune it.

arXiv 2509.06040; Fredreic1849/BranchGRPO, `fastvideo/train_branchgrpo_flux.py`. Differs from `grpo`
in that a group is a tree: its samples are one path until a step splits it, a node's reward is that
of the samples below it, and each edge is trained once, with the advantage of the node it leads to
among those of its depth. Its mathematics is in `bpgo.core.tree`. A regulariser sees an edge once
for each sample that has it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bpgo.config.settings import RolloutSettings
from bpgo.core.arm import ArmSettings
from bpgo.core.policy_gradient import Surrogate, SurrogateSettings
from bpgo.core.tree import (
    PruningSettings,
    TreeSettings,
    carriers,
    depth_advantages,
    node_rewards,
    tree_noise,
)
from bpgo.core.trust import Effect
from bpgo.records import GroupRewards, Plan, WeightedAdvantage

if TYPE_CHECKING:
    from torch import Generator


class BranchGrpoSettings(SurrogateSettings):
    """The tree, its rewards, and what is left out of it in training."""

    shared_initial_noise: Literal[True]  # a tree has one root
    tree: TreeSettings  # where samples part
    node_rewards: Literal["mean", "probability"]  # of children: plain, or by softmax of log p
    pruning: PruningSettings  # what is not trained


class BranchGrpo(Surrogate):
    """A tree of samples in place of independent ones."""

    Settings: ClassVar[type[ArmSettings]] = BranchGrpoSettings
    settings: BranchGrpoSettings

    def refuses(self, effect: Effect, parts: int) -> str | None:
        """Weights of single samples, too."""
        if effect == "sample_weights":
            return (
                "an edge of its tree belongs to several samples, which would weigh it differently"
            )
        return super().refuses(effect, parts)

    def check(self, sizes: RolloutSettings) -> None:
        """`UserError` too where the tree does not fit the group or the steps."""
        self.settings.tree.check(sizes, "tree")
        super().check(sizes)

    def noise_of(self, sizes: RolloutSettings) -> list[list[int]]:
        """The tree's."""
        return tree_noise(self.settings.tree.leaves(sizes.steps))

    def kept(self, sizes: RolloutSettings, iteration: int) -> list[int]:
        """The steps with noise less those that are pruned."""
        steps = range(sizes.steps - sizes.deterministic_tail)
        return self.settings.pruning.kept(steps, self.settings.tree.split_steps[-1], iteration)

    def trained_count(self, sizes: RolloutSettings) -> int:
        """All steps that are not pruned (in the first iteration), of all samples.

        Edges that samples share are computed for each of them.
        """
        return len(self.kept(sizes, 1))

    def plan(self, sizes: RolloutSettings, iteration: int, generator: Generator) -> Plan:
        """A tree in each group, louder where it splits."""
        import torch

        made = super().plan(sizes, iteration, generator)
        trained = self.trained_steps(self.kept(sizes, iteration), len(made.trained), generator)
        scale = torch.tensor(self.settings.tree.scales(sizes.steps))
        return replace(made, trained=trained, noise_scale=scale)

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        """`[P, G, T]`: that of an edge at the sample that carries it, 0 elsewhere.

        Scaled so that the mean over all samples and steps is the mean over edges.
        """
        chosen, plan = self.settings, groups.plan
        assert plan is not None
        leaves = chosen.tree.leaves(plan.stochastic.shape[1])
        scores = groups.log_probs if chosen.node_rewards == "probability" else None
        values = node_rewards(groups.rewards, leaves, scores)
        found = depth_advantages(values, leaves, chosen.advantage)[..., 1:]
        edges = carriers(leaves, plan.trained[0].tolist()).to(found.device).expand_as(found)
        if chosen.pruning.width == "extremes":
            edges = chosen.pruning.extremes(found, edges, chosen.tree.split_steps[-1])
        share = plan.trained.numel() / edges.sum()
        return WeightedAdvantage(1.0, (found * edges * share).to(groups.rewards.dtype), "step")


ARM = BranchGrpo
