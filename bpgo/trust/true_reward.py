"""Anchor: rewards that are the truth (analysis only).

The rewards are those of a diagnostic such as the oracle. What an arm gains on them is the most that
its training can gain here; an instrument that does not see this gain sees none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import Name
from bpgo.core.trust import Effect, Reads, Trust, Trusted, TrustSettings
from bpgo.errors import UserError, suggest
from bpgo.records import GroupRewards

if TYPE_CHECKING:
    from torch import Generator


class TrueRewardSettings(TrustSettings):
    """Keys of a rule with `rule: true_reward`."""

    rule: Literal["true_reward"] = "true_reward"
    reward: Name  # one of the experiment's diagnostics

    def effects(self) -> set[Effect]:
        """Other rewards."""
        return {"rewards"}

    def reads(self) -> set[Reads]:
        """A reward that no arm may see."""
        return {"reference"}

    def reference_rewards(self) -> list[str]:
        """The diagnostic that is taken for the truth."""
        return [self.reward]


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
        name = self.settings.reward
        if name not in groups.reference:
            raise UserError(
                f"trust.reward: '{name}' is not among the experiment's diagnostics."
                f"{suggest(name, groups.reference)}"
            )
        return Trusted(rewards=groups.reference[name].double())


TRUST = TrueReward
