"""Anchor: rewards that are the truth (analysis only).

The rewards are those of a diagnostic such as the oracle. What an arm gains on them is the most that
its training can gain here; an instrument that does not see this gain sees none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.core.trust import Effect, Trust, Trusted
from bpgo.records import GroupRewards
from bpgo.trust.truth import TruthSettings, truth_of

if TYPE_CHECKING:
    from torch import Generator


class TrueRewardSettings(TruthSettings):
    """Keys of a rule with `rule: true_reward`."""

    rule: Literal["true_reward"] = "true_reward"

    def effects(self) -> set[Effect]:
        """Other rewards."""
        return {"rewards"}


class TrueReward(Trust):
    """Keeps no state."""

    Settings = TrueRewardSettings
    settings: TrueRewardSettings

    def judge(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> Trusted:
        """Rewards `[P, G]`; `UserError` if the diagnostic is not given."""
        return Trusted(rewards=truth_of(groups, self.settings.reward))


TRUST = TrueReward
