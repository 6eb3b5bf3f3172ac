"""Anchor: rewards that say nothing (our control).

Each sample's reward is a draw from a standard normal. What such an arm loses is what steps of this
size do to a policy by themselves; what a rule saves of it, it saves without knowing anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.core.trust import Effect, Trust, Trusted, TrustSettings
from bpgo.records import GroupRewards

if TYPE_CHECKING:
    from torch import Generator


class RandomRewardSettings(TrustSettings):
    """Keys of a rule with `rule: random_reward`."""

    rule: Literal["random_reward"] = "random_reward"

    def effects(self) -> set[Effect]:
        """Other rewards."""
        return {"rewards"}


class RandomReward(Trust):
    """Keeps no state."""

    Settings = RandomRewardSettings

    def judge(self, groups: GroupRewards, generator: Generator) -> Trusted:
        """Rewards `[P, G]`."""
        import torch

        drawn = torch.randn(groups.rewards.shape, generator=generator, dtype=torch.float64)
        return Trusted(rewards=drawn.to(groups.rewards.device))


TRUST = RandomReward
