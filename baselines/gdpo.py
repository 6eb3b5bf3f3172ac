"""GDPO (arXiv 2601.05242; as in X-GenGroup/Flow-Factory, `advantage_processor.py`).

Differs from `grpo` with several rewards: each is normalised within the group for itself, their
weighted sum over the batch. So a reward of a small spread is not drowned by one of a large spread,
and combinations that a sum would make equal stay apart.
"""

from __future__ import annotations

from typing import ClassVar

from bpgo.core.arm import ArmSettings
from bpgo.core.parts import Combine, SeveralRewards
from bpgo.core.policy_gradient import PolicyGradient, PolicyGradientSettings


class GdpoSettings(PolicyGradientSettings):
    """What is added up; other than `gdpo` are ablations."""

    combine: Combine  # of several rewards: what is added up


class Gdpo(SeveralRewards, PolicyGradient):
    """Advantages of the parts of a sum of rewards."""

    Settings: ClassVar[type[ArmSettings]] = GdpoSettings
    settings: GdpoSettings

    def refuses_reward(self, parts: int) -> str | None:
        """One reward, which has nothing to be kept apart from."""
        if parts < 2 and self.settings.combine != "rewards":
            return (
                "it normalises each part of a sum of rewards for itself; name a weighted_sum of two"
                " or more"
            )
        return None


ARM = Gdpo
