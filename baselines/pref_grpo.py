"""Pref-GRPO (arXiv 2508.20751; CodeGoat24/Pref-GRPO, `fastvideo/rewards/unifiedreward_think.py`).

Differs from `grpo` in that a sample's reward is the share of duels that it wins against the others
of its group, so small differences of a score are not blown up. The published judge of a duel is a
language model that sees both images; here a duel is decided by the training reward (see
`bpgo.core.duels`). With `dimension_weight` each part of a sum of rewards is a criterion that is
fought for too (the Flex judge).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from bpgo.config.fields import NonNegative
from bpgo.core.arm import ArmSettings
from bpgo.core.policy_gradient import PolicyGradient, PolicyGradientSettings
from bpgo.core.trust import Effect
from bpgo.records import AdvantageResult, GroupRewards, WeightedAdvantage

if TYPE_CHECKING:
    from torch import Generator


class PrefGrpoSettings(PolicyGradientSettings):
    """Pref-GRPO's own keys."""

    duel_noise: NonNegative  # of the judge, in the reward's units; 0: the higher reward wins
    dimension_weight: NonNegative  # of the mean rate by the parts of a sum, beside 1; 0: off


class PrefGrpo(PolicyGradient):
    """Win rates in the place of rewards."""

    Settings: ClassVar[type[ArmSettings]] = PrefGrpoSettings
    settings: PrefGrpoSettings

    def refuses_reward(self, parts: int) -> str | None:
        """One reward, where its parts are to be criteria."""
        if self.settings.dimension_weight and parts < 2:
            return (
                "dimension_weight is for the parts of a sum, which are criteria of their own; name"
                " a weighted_sum of two or more, or set it to 0"
            )
        return None

    def refuses(self, effect: Effect, parts: int) -> str | None:
        """Other rewards, too, where parts are criteria."""
        if effect == "rewards" and self.settings.dimension_weight:
            return "with dimension_weight parts of a sum count, and other rewards have none"
        return super().refuses(effect, parts)

    def advantages(self, groups: GroupRewards, generator: Generator) -> AdvantageResult:
        """With the judge's luck of this batch, the same for all terms of the objective."""
        import torch

        prompts, size = groups.rewards.shape
        self.luck = torch.rand(prompts, size, size, generator=generator, dtype=torch.float64)
        return super().advantages(groups, generator)

    def advantage(self, groups: GroupRewards) -> WeightedAdvantage:
        """That of the win rates."""
        import torch

        from bpgo.core.duels import blended, duels, mean_rates, win_rates

        noise, share = self.settings.duel_noise, self.settings.dimension_weight
        found = win_rates(duels(groups.rewards, noise, self.luck))
        if share:
            fought = [duels(each, noise, self.luck) for each in groups.parts.values()]
            rates = torch.stack([win_rates(won, rounded=False) for won in fought])
            weights = torch.tensor(list(groups.part_weights.values()))
            found = blended(found, mean_rates(rates, weights), share)
        return super().advantage(replace(groups, rewards=found.to(groups.rewards.dtype)))


ARM = PrefGrpo
