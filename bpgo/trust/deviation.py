"""Trust where the reward tells a group's samples apart (our rule).

w_i = unbiased standard deviation of the group's rewards, divided by the batch's mean. Range [0, P],
mean 1; where no group has a spread, 1 everywhere. Dividing advantages by the group's standard
deviation (GRPO) throws this signal away; the weight gives it back, as Dr. GRPO (arXiv 2503.20783)
does by not dividing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.core.trust import Trust, Trusted, TrustSettings
from bpgo.records import GroupRewards
from bpgo.trust.measures import mean_one

if TYPE_CHECKING:
    from torch import Generator


class DeviationSettings(TrustSettings):
    """Keys of a rule with `rule: deviation`."""

    rule: Literal["deviation"] = "deviation"


class Deviation(Trust):
    """Keeps no state."""

    Settings = DeviationSettings

    def judge(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> Trusted:
        """Weights `[P]`; a group of one sample has no spread."""
        rewards = groups.rewards.double()
        spread = rewards.std(dim=1, correction=min(1, rewards.shape[1] - 1))
        weights = mean_one(spread)
        return Trusted(weights, columns={"weight": weights})


TRUST = Deviation
