"""Trust by the truth: how a rule would fare that knows which groups are right (analysis only).

w_i = 1 + alpha rho_i, with rho_i the Spearman rank correlation (equal values share their ranks) of
the group's rewards with a diagnostic such as the oracle; 0 where one of them is constant. Range
[1 - alpha, 1 + alpha], not normalised. A real run has no oracle: this is a bound to measure by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bpgo.config.fields import Fraction, Name
from bpgo.core.trust import Reads, Trust, Trusted, TrustSettings
from bpgo.errors import UserError, suggest
from bpgo.records import GroupRewards
from bpgo.trust.measures import spearman

if TYPE_CHECKING:
    from torch import Generator


class TrueReliabilitySettings(TrustSettings):
    """Keys of a rule with `rule: true_reliability`."""

    rule: Literal["true_reliability"] = "true_reliability"
    reward: Name  # one of the experiment's diagnostics
    alpha: Fraction

    def reads(self) -> set[Reads]:
        """A reward that no arm may see."""
        return {"reference"}

    def reference_rewards(self) -> list[str]:
        """The diagnostic that is taken for the truth."""
        return [self.reward]


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
        name = self.settings.reward
        if name not in groups.reference:
            raise UserError(
                f"trust.reward: '{name}' is not among the experiment's diagnostics."
                f"{suggest(name, groups.reference)}"
            )
        rho = spearman(groups.rewards.double(), groups.reference[name].double())
        weights = 1 + self.settings.alpha * rho
        return Trusted(weights, columns={"weight": weights, "reliability": rho})


TRUST = TrueReliability
