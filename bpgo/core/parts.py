"""Arms that look at the parts of a sum of rewards, not at the sum alone.

Importing this file does not import torch.
"""

from __future__ import annotations

from typing import Any, Literal

from bpgo.core.advantage import several_rewards_advantage
from bpgo.core.arm import Arm
from bpgo.core.trust import Effect
from bpgo.records import GroupRewards, WeightedAdvantage

Combine = Literal["advantages", "rewards", "gdpo"]  # see `several_rewards_advantage`


class SeveralRewards(Arm):
    """Normalises each part for itself, as the setting `combine` says; stands before a family."""

    settings: Any  # an arm's with the key `combine`

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        """Of several rewards the combined one, with weights that sum to 1; else the family's."""
        if self.settings.combine == "rewards" or not groups.parts:
            return super().advantage(groups)
        total = sum(map(abs, groups.part_weights.values()))
        weights = {name: weight / total for name, weight in groups.part_weights.items()}
        chosen = self.settings
        found = several_rewards_advantage(groups.parts, weights, chosen.advantage, chosen.combine)
        return WeightedAdvantage(1.0, found.to(groups.rewards.dtype))

    def refuses(self, effect: Effect, parts: int) -> str | None:
        """Other rewards, too, where those of several parts are what counts."""
        if effect == "rewards" and parts > 1 and self.settings.combine != "rewards":
            return (
                f"with combine: {self.settings.combine} it normalises each part of a sum of rewards"
                " for itself, and other rewards have no parts; set combine: rewards"
            )
        return super().refuses(effect, parts)
