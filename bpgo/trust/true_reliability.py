"""Trust by the truth: how a rule would fare that knows which groups are right (analysis only).

w_i = 1 + alpha rho_i, with rho_i the Spearman rank correlation (equal values share their ranks) of
the group's rewards with a diagnostic such as the oracle; 0 where one of them is constant. Range
[1 - alpha, 1 + alpha], not normalised. A real run has no oracle: this is a bound to measure by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import Fraction
from bpgo.core.trust import Trust, Trusted
from bpgo.records import GroupRewards
from bpgo.trust.measures import spearman
from bpgo.trust.truth import TruthSettings, truth_of

if TYPE_CHECKING:
    from torch import Generator


class TrueReliabilitySettings(TruthSettings):
    """Keys of a rule with `rule: true_reliability`."""

    rule: Literal["true_reliability"] = "true_reliability"
    alpha: Fraction  # weights lie in [1 - alpha, 1 + alpha]


class TrueReliability(Trust):
    """Keeps no state."""

    Settings = TrueReliabilitySettings
    settings: TrueReliabilitySettings

    def judge(
        self,
        groups: GroupRewards,
        generator: Generator,  # noqa: ARG002 (nothing is drawn)
    ) -> Trusted:
        """Weights `[P]`. Column `reliability`: rho. `UserError` if the diagnostic is not given."""
        rho = spearman(groups.rewards.double(), truth_of(groups, self.settings.reward))
        weights = 1 + self.settings.alpha * rho
        return Trusted(weights, columns={"weight": weights, "reliability": rho})


TRUST = TrueReliability
